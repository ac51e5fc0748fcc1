"""What the shared-prefix path needs to know of a model family beyond its transformers class.

A family's image features enter at the image tokens of the prompt; its decoder then runs on token
embeddings and position ids alone, every layer attending causally to all that came before.
Axis letters: A axes of position ids (3 where images have rows and columns of their own, else 1), R rows,
T tokens, M image tokens, D width, K features of one image token: the one that takes its place, and those that
are added to it in later layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from visionr1.samples import Size

Inputs = Mapping[str, Tensor]
"""Keyword arguments of a model's forward pass that describe images. Those of several images, or prompts, are
concatenated along the first axis."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """One image, ready for the model."""

    inputs: Inputs
    token_ids: Tensor
    """(T,) tokens that replace the chat template's one image token in the prompt."""
    input_size_wh: Size
    """Size of the image as the model sees it, in pixels."""


class Family(Protocol):
    """The parts of a transformers model class that it does not offer under one name."""

    @property
    def name(self) -> str:
        """The `model_type` in the config.json of its checkpoints."""

    @property
    def text_types(self) -> tuple[str, ...]:
        """The `model_type`s of the language models that it is known to work with."""

    @property
    def dialect(self) -> str | None:
        """The dialect its released checkpoints write boxes in; None if they have none."""

    @property
    def fewer_tokens(self) -> str:
        """The setting in preprocessor_config.json to lower for images to take fewer tokens."""

    @property
    def uses_all_weights(self) -> bool:
        """False if some weights never have a gradient, such as those of a vision tower's layers that are not read."""

    def prepare(self, model: Any) -> None:
        """Change a loaded model so that it is faster; its results and weights stay."""

    def encode_image(self, config: Any, image_processor: Any, tokenizer: Any, image: Image.Image) -> EncodedImage:
        """Encode an RGB image as the family's own processor does; ValueError if it cannot be."""

    def position_ids(self, config: Any, input_ids: Tensor, inputs: Inputs) -> Tensor:
        """Return the position ids (A, T) of a prompt (T,) that holds the images of `inputs`, in their order."""

    def image_features(self, model: Any, inputs: Inputs) -> Tensor:
        """Return the features (M, K, D) of the tokens of all images, each of which the vision tower sees once."""

    def later_features(self, is_image: Tensor, features: list[Tensor]) -> dict[str, Any]:
        """Return the decoder's keyword arguments for `features` (each (M, D)) that are added in later layers, at the
        tokens of rows where `is_image` (R, T)."""


class OneAxis:
    """The common part of families whose decoder takes image tokens like any others."""

    uses_all_weights = True

    def prepare(self, model: Any) -> None:
        """Change nothing."""

    def position_ids(self, config: Any, input_ids: Tensor, inputs: Inputs) -> Tensor:
        """Count every token as one."""
        return torch.arange(len(input_ids))[None]

    def image_features(self, model: Any, inputs: Inputs) -> Tensor:
        """Return one feature a token, tile by tile."""
        features: Tensor | list[Tensor] = model.model.get_image_features(**inputs, return_dict=True).pooler_output
        tiles = features if isinstance(features, Tensor) else torch.stack(features)
        return tiles.flatten(0, 1)[:, None]

    def later_features(self, is_image: Tensor, features: list[Tensor]) -> dict[str, Any]:
        """Add nothing in later layers."""
        return {}
