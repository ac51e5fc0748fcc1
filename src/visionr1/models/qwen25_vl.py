"""Qwen2.5-VL: three-axis rotary positions (mRoPE), windowed vision tower."""

from typing import Any

import torch
from torch import Tensor

from visionr1.models.tree_attention import Branches


class Qwen25VL:
    """`Qwen2_5_VLForConditionalGeneration` of transformers."""

    model_type = "qwen2_5_vl"
    dialect = "qwen25"

    def num_image_tokens(self, config: Any, grid_thw: Tensor) -> int:
        merge: int = config.vision_config.spatial_merge_size
        return int(grid_thw.prod()) // merge**2

    def position_ids(self, config: Any, input_ids: Tensor, grid_thw: Tensor) -> Tensor:
        """Text counts up on all three axes; an image's tokens share one time and lie on a grid of
        rows and columns; what follows starts after the longest side of that grid."""
        merge = config.vision_config.spatial_merge_size
        is_image = input_ids == config.image_token_id
        spans: list[Tensor] = []
        start, token = 0, 0
        for _, height, width in grid_thw.tolist():
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

    def hidden_states(
        self,
        model: Any,
        *,
        input_ids: Tensor,
        position_ids: Tensor,
        branches: Branches | None,
        pixel_values: Tensor,
        grid_thw: Tensor,
        cache: Any = None,
    ) -> Tensor:
        # Positions are passed, so the model's own `rope_deltas`, left by an earlier call, are unused.
        output = model.model(
            input_ids=input_ids,
            position_ids=position_ids,
            branches=branches,
            pixel_values=pixel_values,
            image_grid_thw=grid_thw,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def decoder(self, model: Any) -> Any:
        return model.model.language_model


def _count(start: int, length: int) -> Tensor:
    return torch.arange(start, start + length).expand(3, length)
