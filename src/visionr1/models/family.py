"""What training needs to know of a model family beyond its transformers class.

A family's image features enter at the image tokens of the prompt; its decoder then runs on token
embeddings and position ids alone, every layer attending causally to all that came before.
Axis letters: A axes of position ids (3 where images have rows and columns of their own, else 1),
T tokens, M image tokens, D width, K features of one image token: what takes its place, and what is
added to it in later layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from visionr1.samples import Size

Inputs = Mapping[str, Tensor]
"""What a model takes of images, by the names of its forward pass. Those of several images, or
prompts, are joined along the first axis."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """One image, ready for the model."""

    inputs: Inputs
    token_ids: Tensor
    """(T,) what stands in the prompt in the place of the chat template's image token."""
    input_size_wh: Size
    """What the model sees of the image, in its pixels."""


class Family(Protocol):
    """The parts of a transformers model class that it does not offer under one name."""

    @property
    def model_type(self) -> str:
        """`config.model_type` of the checkpoints."""

    @property
    def text_types(self) -> tuple[str, ...]:
        """`model_type` of the language models that it is known to work with."""

    @property
    def dialect(self) -> str | None:
        """The dialect its released checkpoints write boxes in; None where they have none."""

    @property
    def fewer_tokens(self) -> str:
        """What to lower in preprocessor_config.json for images to take fewer tokens."""

    def prepare(self, model: Any) -> None:
        """Change a loaded model where that makes it faster; its results and weights stay."""

    def encode_image(self, config: Any, image_processor: Any, tokenizer: Any, image: Image.Image) -> EncodedImage:
        """An RGB image as the family's own processor encodes it; ValueError if it cannot."""

    def position_ids(self, config: Any, input_ids: Tensor, inputs: Inputs) -> Tensor:
        """Position ids (A, T) of a prompt (T,) that holds the images of `inputs`, in their order."""

    def image_features(self, model: Any, inputs: Inputs) -> Tensor:
        """Features (M, K, D) of the tokens of all images, which the vision tower sees once."""

    def later_features(self, is_image: Tensor, features: list[Tensor]) -> dict[str, Any]:
        """How the decoder takes `features` (each (M, D)) that are added in later layers to the tokens of
        rows that are images (R, T)."""


class OneAxis:
    """What families have in common whose decoder takes image tokens like any others."""

    def prepare(self, model: Any) -> None:
        """Nothing to change."""

    def position_ids(self, config: Any, input_ids: Tensor, inputs: Inputs) -> Tensor:
        """Every token counts one."""
        return torch.arange(len(input_ids))[None]

    def image_features(self, model: Any, inputs: Inputs) -> Tensor:
        """One feature a token."""
        features: Tensor | list[Tensor] = model.model.get_image_features(**inputs, return_dict=True).pooler_output
        tiles = features if isinstance(features, Tensor) else torch.stack(features)
        return tiles.flatten(0, 1)[:, None]

    def later_features(self, is_image: Tensor, features: list[Tensor]) -> dict[str, Any]:
        """None."""
        return {}
