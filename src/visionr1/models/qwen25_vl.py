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

    def image_features(self, model: Any, pixel_values: Tensor, grid_thw: Tensor) -> Tensor:
        output = model.model.visual(pixel_values.to(model.model.visual.dtype), grid_thw=grid_thw)
        return torch.stack((output.pooler_output, *self.deepstack(output)), dim=1)

    def deepstack(self, output: Any) -> list[Tensor]:
        """Features (M, D) that the vision tower's `output` holds for later layers of the decoder."""
        return []

    def hidden_states(
        self,
        model: Any,
        *,
        input_ids: Tensor,
        position_ids: Tensor,
        branches: Branches | None,
        features: Tensor,
        cache: Any = None,
    ) -> Tensor:
        # The decoder is called by itself, so the model's `rope_deltas`, left by an earlier call, are unused.
        decoder, is_image = self.decoder(model), input_ids == model.config.image_token_id
        embeddings = decoder.embed_tokens(input_ids)
        first, *later = features.to(embeddings.dtype).unbind(dim=1)
        output = decoder(
            inputs_embeds=embeddings.masked_scatter(is_image[..., None], first),
            position_ids=position_ids,
            branches=branches,
            past_key_values=cache,
            use_cache=cache is not None,
            **self.later_features(is_image, later),
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def later_features(self, is_image: Tensor, features: list[Tensor]) -> dict[str, Any]:
        """How the decoder takes features that are added in later layers."""
        return {}

    def decoder(self, model: Any) -> Any:
        return model.model.language_model


def _count(start: int, length: int) -> Tensor:
    return torch.arange(start, start + length).expand(3, length)
