"""Qwen2.5-VL: three-axis rotary positions (mRoPE), windowed vision tower."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from visionr1.models.family import EncodedImage, Inputs


class PatchConv3d(nn.Conv3d):
    """A convolution whose input is one patch: a matrix product, many times faster on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight.flatten(1)
        return nn.functional.linear(input.flatten(1), weight, self.bias)


class SegmentAttention(nn.Module):
    """Attention of the vision tower's patches (T, D) within segments: windows, or whole images. Those of one length are
    stacked, so that there are a few products a layer; transformers' own takes one segment after the other."""

    qkv: nn.Linear
    proj: nn.Linear
    num_heads: int
    scaling: float

    def forward(
        self, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor], **kwargs: Any
    ) -> Tensor:
        """`cu_seqlens` are the first places of the segments, and T."""
        states = self.qkv(hidden_states).unflatten(1, (3, self.num_heads, -1))
        cosine, sine = (part[:, None].float() for part in position_embeddings)
        parts = (*(_rotate(part, cosine, sine) for part in states[:, :2].unbind(1)), states[:, 2])
        output = torch.empty_like(parts[2])
        lengths = cu_seqlens.diff()
        for length in lengths.unique().tolist():
            places = cu_seqlens[:-1][lengths == length][:, None] + torch.arange(length, device=cu_seqlens.device)
            query, key, value = (part[places].transpose(1, 2) for part in parts)
            attended = scaled_dot_product_attention(query, key, value, scale=self.scaling).transpose(1, 2)
            output = output.index_copy(0, places.flatten(), attended.flatten(0, 1))
        projected: Tensor = self.proj(output.flatten(1))
        return projected


def _rotate(state: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = state.float().chunk(2, dim=-1)
    turned = state.float() * cosine + torch.cat((-second, first), dim=-1) * sine
    return turned.to(state.dtype)


class Qwen25VL:
    """`Qwen2_5_VLForConditionalGeneration` of transformers."""

    model_type = "qwen2_5_vl"
    text_types: tuple[str, ...] = ("qwen2_5_vl_text",)
    dialect = "qwen25"
    fewer_tokens = "longest_edge"

    def prepare(self, model: Any) -> None:
        model.model.visual.patch_embed.proj.__class__ = PatchConv3d
        for block in model.model.visual.blocks:
            block.attn.__class__ = SegmentAttention

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
