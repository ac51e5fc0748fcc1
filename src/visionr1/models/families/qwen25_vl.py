"""Qwen2.5-VL: three-axis rotary positions (mRoPE), windowed vision tower.

Axis letters: T tokens or patches, H heads, D width of a head, S segments of one length L.
"""

from types import MethodType
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from visionr1.models.family import EncodedImage, Inputs
from visionr1.models.patches import multiply_patches


class Qwen25VL:
    """`Qwen2_5_VLForConditionalGeneration` of transformers."""

    name = "qwen2_5_vl"
    text_types: tuple[str, ...] = ("qwen2_5_vl_text",)
    dialect = "qwen25"
    fewer_tokens = "size.longest_edge"
    uses_all_weights = True

    def prepare(self, model: Any) -> None:
        """Replace the forward pass of the vision tower's patch embedding and attention by faster ones."""
        multiply_patches(model)
        for block in model.model.visual.blocks:
            block.attn.forward = MethodType(attend_in_segments, block.attn)

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
        position, token = 0, 0  # of the next span
        for _, height, width in inputs["image_grid_thw"].tolist():
            rows, columns = height // merge, width // merge

            # The text before the image.
            first = token + int(is_image[token:].nonzero()[0])
            spans.append(_count(position, first - token))
            position += first - token

            # The image.
            grid = torch.cartesian_prod(torch.arange(1), torch.arange(rows), torch.arange(columns))
            spans.append(grid.T + position)
            position += max(rows, columns)
            token = first + rows * columns
        spans.append(_count(position, len(input_ids) - token))
        return torch.cat(spans, dim=1)

    def image_features(self, model: Any, inputs: Inputs) -> Tensor:
        visual = model.model.visual
        output = visual(inputs["pixel_values"].to(visual.dtype), grid_thw=inputs["image_grid_thw"])
        return torch.stack((output.pooler_output, *self.deepstack(output)), dim=1)

    def deepstack(self, output: Any) -> list[Tensor]:
        """Return the features (M, D) in the vision tower's `output` that are added in later layers of the decoder."""
        return []

    def later_features(self, is_image: Tensor, features: list[Tensor]) -> dict[str, Any]:
        return {}


def attend_in_segments(
    attention: Any, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor], **kwargs: Any
) -> Tensor:
    """Attend within segments of the vision tower's patches (T, H x D): windows, or whole images.

    `cu_seqlens` are the first places of the segments, and T. Segments of one length are stacked, so that there are a
    few products a layer; transformers' own, whose `forward` this replaces, takes one segment after the other.
    """
    states = attention.qkv(hidden_states).unflatten(1, (3, attention.num_heads, -1))  # (T, 3, H, D)
    cosine, sine = (part[:, None].float() for part in position_embeddings)
    query = _rotate(states[:, 0], cosine, sine)
    key = _rotate(states[:, 1], cosine, sine)
    value = states[:, 2]

    output = torch.empty_like(value)
    lengths = cu_seqlens.diff()
    for length in lengths.unique().tolist():
        starts = cu_seqlens[:-1][lengths == length]
        places = starts[:, None] + torch.arange(length, device=cu_seqlens.device)  # (S, L)
        stacked = [part[places].transpose(1, 2) for part in (query, key, value)]  # (S, H, L, D) each
        attended = scaled_dot_product_attention(stacked[0], stacked[1], stacked[2], scale=attention.scaling)
        output = output.index_copy(0, places.flatten(), attended.transpose(1, 2).flatten(0, 1))
    projected: Tensor = attention.proj(output.flatten(1))
    return projected


def _rotate(state: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Apply the rotary embedding to `state` (T, H, D), in float32."""
    first, second = state.float().chunk(2, dim=-1)
    turned = state.float() * cosine + torch.cat((-second, first), dim=-1) * sine
    return turned.to(state.dtype)


def _count(start: int, length: int) -> Tensor:
    """Return positions (3, length) that count up from `start` on all three axes."""
    return torch.arange(start, start + length).expand(3, length)


FAMILY = Qwen25VL()
