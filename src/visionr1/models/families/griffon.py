"""Griffon-G (arXiv 2410.16163): a CLIP tower at one high resolution, whose grid of features a convolution halves.

transformers has no class for it, so this file brings one: LLaVA's, with a projector of its own. `visionr1 models
convert` writes the folders that it loads. An image is squeezed into a square, whatever its shape, and boxes are parts
of its width and height.
Axis letters: B images, T patches, D width of the tower, E width of the language model.
"""

from math import isqrt
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaModel,
    ProcessorMixin,
)

from visionr1.models.family import EncodedImage, OneAxis

NAME = "griffon"
KERNEL, STRIDE = 3, 2


class GriffonConfig(LlavaConfig):  # type: ignore[misc]  # transformers has no types
    """As of LLaVA, whose `image_seq_length` is the number of tokens of every image."""

    model_type = NAME
    projector_padding: int = 1
    """Rows and columns of zeros around the tower's grid; 0 in the variant without."""


class GriffonProjector(nn.Module):
    """A convolution that takes each second row and column of patches, then a linear layer."""

    def __init__(self, config: GriffonConfig, scale: float) -> None:
        """`scale` is the factor that the language model gives its embeddings."""
        super().__init__()
        self.scale = scale
        tower, decoder = config.vision_config.hidden_size, config.text_config.hidden_size
        self.conv = nn.Conv2d(tower, decoder, KERNEL, stride=STRIDE, padding=config.projector_padding)
        self.act = nn.GELU()
        self.linear = nn.Linear(decoder, decoder)

    def forward(self, features: Tensor) -> Tensor:
        """Return the features (B, tokens, E) of images from those (B, T, D) of their patches, row by row."""
        side = isqrt(features.shape[1])
        grid = features.transpose(1, 2).unflatten(2, (side, side))
        projected: Tensor = self.linear(self.act(self.conv(grid)).flatten(2).transpose(1, 2))
        return projected * torch.tensor(self.scale, dtype=projected.dtype)


class GriffonModel(LlavaModel):  # type: ignore[misc]  # transformers has no types
    """LLaVA's tower and language model with Griffon's projector between them."""

    config: GriffonConfig

    def __init__(self, config: GriffonConfig) -> None:
        super().__init__(config)
        # Gemma 2 was trained when its scale was that of all it was given, images too. Now its embedding layer, which
        # sees text alone, has it.
        scale = getattr(self.language_model.get_input_embeddings(), "scalar_embed_scale", 1.0)
        self.multi_modal_projector = GriffonProjector(config, scale)
        self.post_init()


class CappedHead(nn.Linear):
    """An output layer whose logits stay between minus and plus `cap`, if there is one (Gemma 2)."""

    def __init__(self, width: int, vocabulary: int, cap: float | None) -> None:
        super().__init__(width, vocabulary, bias=False)
        self.cap = cap

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the logits after last hidden states."""
        logits = super().forward(hidden)
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


class GriffonForConditionalGeneration(LlavaForConditionalGeneration):  # type: ignore[misc]  # transformers has no types
    """The whole model: weights are named as LLaVA's."""

    config: GriffonConfig

    def __init__(self, config: GriffonConfig) -> None:
        super().__init__(config)
        text = config.text_config
        self.model = GriffonModel(config)
        self.lm_head = CappedHead(text.hidden_size, text.vocab_size, getattr(text, "final_logit_softcapping", None))
        self.post_init()


class GriffonProcessor(ProcessorMixin):  # type: ignore[misc]  # transformers has no types
    """Writes each image's tokens in place of its one token in the text."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        image_token: str = "<image>",
        image_seq_length: int = 1369,
    ) -> None:
        """`image_token` is a token that no text holds; `image_seq_length` times it stands for an image."""
        self.image_token = image_token
        self.image_seq_length = image_seq_length
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def __call__(
        self, images: Any = None, text: str | list[str] | None = None, return_tensors: Any = None, **settings: Any
    ) -> BatchFeature:
        """Encode texts, and the images whose tokens stand in them."""
        texts = [text] if isinstance(text, str) else list(text or ())
        tokens = self.image_token * self.image_seq_length
        encoded = self.tokenizer([one.replace(self.image_token, tokens) for one in texts], **settings)
        if images is not None:
            encoded.update(self.image_processor(images=images))
        return BatchFeature(encoded, tensor_type=return_tensors)


class Griffon(OneAxis):
    """Griffon-G around any language model; around Gemma 2, as released, it takes the generic path."""

    name = NAME
    text_types = ("llama", "qwen2")
    dialect = "griffon"
    fewer_tokens = "size"
    uses_all_weights = False  # features come from before the tower's last layer

    def encode_image(self, config: Any, image_processor: Any, tokenizer: Any, image: Image.Image) -> EncodedImage:
        pixels = image_processor(images=[image], return_tensors="pt")["pixel_values"]
        height, width = pixels.shape[-2:]
        return EncodedImage(
            inputs={"pixel_values": pixels},
            token_ids=torch.full((config.image_seq_length,), config.image_token_id),
            input_size_wh=(width, height),
        )


AutoConfig.register(NAME, GriffonConfig)
AutoModelForImageTextToText.register(GriffonConfig, GriffonForConditionalGeneration)
AutoProcessor.register(GriffonConfig, GriffonProcessor)

FAMILY = Griffon()
