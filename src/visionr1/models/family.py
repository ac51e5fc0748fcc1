"""What training needs to know of a model family beyond its transformers class.

A family's vision features enter at the image tokens of the prompt; its decoder then runs on token
embeddings and (3, R, T) position ids alone. Axis letters: R rows, T tokens, M image tokens, D width,
K features of one image token: what takes its place, and what is added to it in later layers.
"""

from typing import Any, Protocol

from torch import Tensor

from visionr1.models.tree_attention import Branches


class Family(Protocol):
    """The parts of a transformers model class that it does not offer under one name."""

    @property
    def model_type(self) -> str:
        """`config.model_type` of the checkpoints."""

    @property
    def dialect(self) -> str:
        """The dialect its released checkpoints write boxes in."""

    def num_image_tokens(self, config: Any, grid_thw: Tensor) -> int:
        """How many prompt tokens one image of patch grid `grid_thw` (3,) takes."""

    def position_ids(self, config: Any, input_ids: Tensor, grid_thw: Tensor) -> Tensor:
        """Position ids (3, T) of a prompt (T,) that holds images of grids `grid_thw` (N, 3)."""

    def image_features(self, model: Any, pixel_values: Tensor, grid_thw: Tensor) -> Tensor:
        """Features (M, K, D) of the tokens of all images, which the vision tower sees once."""

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
        """Last hidden states (R, T, D) of rows (R, T), each causal, or a tree of `branches`, whose
        image tokens, row by row, have `features` (M, K, D)."""

    def decoder(self, model: Any) -> Any:
        """The language model: `embed_tokens`, `layers`, `norm`, `rotary_emb`."""
