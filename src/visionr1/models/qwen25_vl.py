"""Qwen2.5-VL: three-axis rotary positions (mRoPE), windowed vision tower."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from visionr1.models.family import EncodedImage, Inputs


class PatchConv3d(nn.Conv3d):
    """A convolution whose input is one patch: a matrix product, many times faster on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight.flatten(1)
        return nn.functional.linear(input.flatten(1), weight, self.bias)


class Qwen25VL:
    """`Qwen2_5_VLForConditionalGeneration` of transformers."""

    model_type = "qwen2_5_vl"
    text_types: tuple[str, ...] = ("qwen2_5_vl_text",)
    dialect = "qwen25"
    fewer_tokens = "longest_edge"

    def prepare(self, model: Any) -> None:
        model.model.visual.patch_embed.proj.__class__ = PatchConv3d

    def encode_image(self, config: Any, image_processor: Any, tokenizer: Any, image: Image.Image) -> EncodedImage:
        pixels = image_processor(images=[image], return_tensors="pt")
        grid, patch = pixels["image_grid_thw"], image_processor.patch_size
        _, rows, columns = grid[0].tolist()
        num_tokens = int(grid.prod()) // config.vision_config.spatial_merge_size**2
        return EncodedImage(
            inputs={"pixel_values": pixels["pixel_values"], "image_grid_thw": grid},
            token_ids=torch.full((num_tokens,), config.image_token_id),
            input_size_wh=(columns * patch, rows * patch),
        )

    def position_ids(self, config: Any, input_ids: Tensor, inputs: Inputs) -> Tensor:
        """Text counts up on all three axes; an image's tokens share one time and lie on a grid of
        rows and columns; what follows starts after the longest side of that grid."""
        merge = config.vision_config.spatial_merge_size
        is_image = input_ids == config.image_token_id
        spans: list[Tensor] = []
        start, token = 0, 0
        for _, height, width in inputs["image_grid_thw"].tolist():
            rows, columns = height // merge, width // merge
            first = token + int(is_image[token:].nonzero()[0])
            spans.append(_count(start, first - token))
            start += first - token
            grid = torch.cartesian_prod(torch.arange(1), torch.arange(rows), torch.arange(columns))
            spans.append(grid.T + start)
            start += max(rows, columns)
            token = first + rows * columns
        spans.append(_count(start, len(input_ids) - token))
        return torch.cat(spans, dim=1)

    def image_features(self, model: Any, inputs: Inputs) -> Tensor:
        visual = model.model.visual
        output = visual(inputs["pixel_values"].to(visual.dtype), grid_thw=inputs["image_grid_thw"])
        return torch.stack((output.pooler_output, *self.deepstack(output)), dim=1)

    def deepstack(self, output: Any) -> list[Tensor]:
        """Features (M, D) that the vision tower's `output` holds for later layers of the decoder."""
        return []

    def later_features(self, is_image: Tensor, features: list[Tensor]) -> dict[str, Any]:
        return {}


def _count(start: int, length: int) -> Tensor:
    return torch.arange(start, start + length).expand(3, length)
