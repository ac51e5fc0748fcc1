"""Prompts: one image and one query as token ids, position ids and what the vision tower takes.

Axis letters: A axes of position ids, T tokens, M image tokens, D width, K features of one image token: the one that
takes its place, and those that are added to it in later layers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from visionr1.errors import DataError, ImageRefused, VisionR1Error
from visionr1.models.family import Inputs
from visionr1.models.folder.chat_template import render_prompt
from visionr1.samples import Size


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """One image and one query, ready for the model."""

    input_ids: Tensor
    """(T,)"""
    position_ids: Tensor
    """(A, T); A is 0 on the generic path, where the model counts positions itself."""
    inputs: Inputs
    """What the vision tower takes of the image; on the generic path, all that the model takes besides tokens."""
    input_size_wh: Size
    """Size of the image as the model sees it, in pixels."""
    text: str
    """As the chat template wrote it, the image one placeholder."""
    features: Any = None
    """What the vision tower makes of the image, where it is computed beforehand and `inputs` lacks the image: (M, K, D)
    of its image tokens; on the generic path the output of the model's own `get_image_features`."""
    image: Image.Image | None = None
    """The image itself, for a rollout engine with an image processor of its own."""

    def to(self, device: torch.device) -> "Prompt":
        """Return this prompt with its tokens and inputs on `device`; features stay where they were made."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return replace(self, input_ids=self.input_ids.to(device), inputs=inputs)


def join_features(prompts: Sequence[Prompt]) -> Tensor | None:
    """Concatenate the features (M, K, D) of the prompts' image tokens; None if they were not computed beforehand."""
    features = [prompt.features for prompt in prompts if prompt.features is not None]
    return torch.cat(features) if features else None


def join_inputs(prompts: Sequence[Prompt]) -> Inputs:
    """Concatenate what the vision tower takes of the prompts' images, along the first axis."""
    # Prompts of one family have the same inputs.
    joined = {}
    for name in prompts[0].inputs:
        joined[name] = torch.cat([prompt.inputs[name] for prompt in prompts])
    return joined


@lru_cache(maxsize=1024)
def render_chat(tokenizer: Any, image_token_id: int, instruction: str) -> tuple[str, Tensor, Tensor]:
    """Return the chat prompt for one image and `instruction`, and its token ids before and after the image.

    Raises DataError if the text does not hold one image placeholder with text after it.
    """
    content = [{"type": "image"}, {"type": "text", "text": instruction}]
    chat = render_prompt(tokenizer.apply_chat_template, content)
    ids = torch.tensor(tokenizer.encode(chat, add_special_tokens=False))
    places = (ids == image_token_id).nonzero().flatten().tolist()
    if len(places) != 1 or places[0] == len(ids) - 1:
        raise DataError(
            f"the prompt must hold one image placeholder with text after it, but holds "
            f"{len(places)}; is there an image token in the query? Prompt: {chat!r}"
        )
    return chat, ids[: places[0]], ids[places[0] + 1 :]


def holds_pixels(name: str, tensor: Tensor) -> bool:
    """Return True if this input of a model is an image's pixels: some models take them at two sizes."""
    return "pixel_values" in name and tensor.is_floating_point()


@contextmanager
def feeding(image: Image.Image) -> Iterator[None]:
    """Run a processor on `image` inside this block; whatever it raises becomes ImageRefused, naming size and reason."""
    try:
        yield
    except VisionR1Error:
        raise
    except Exception as error:  # processors refuse an image by ValueError, or fail on it by an error of any type
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ImageRefused(
            f"the image of {image.width}x{image.height} pixels cannot be fed to the model: {reason} "
            "(docs/faq.md#an-image-cannot-be-fed-to-the-model)"
        ) from error


def check_length(image: Image.Image, input_ids: Tensor, context: int, advice: str) -> None:
    """Raise ImageRefused if a prompt (T,) about `image` leaves no room for a reply in a context of so many tokens."""
    if len(input_ids) >= context:
        raise ImageRefused(
            f"the prompt for an image of {image.width}x{image.height} pixels takes {len(input_ids)} tokens, but the "
            f"model's context holds {context}; {advice} (docs/faq.md#an-image-cannot-be-fed-to-the-model)"
        )
