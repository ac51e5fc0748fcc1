"""SmolVLM and Idefics3: the image enlarged to whole square tiles, cut into them, each named by its row
and column, with the whole image small behind them; every tile takes the same number of tokens."""

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from visionr1.models.family import EncodedImage, OneAxis

FAKE, GLOBAL = "<fake_token_around_image>", "<global-img>"


@dataclass(frozen=True, slots=True)
class SmolVLM(OneAxis):
    """`SmolVLMForConditionalGeneration` of transformers, or with "idefics3" the class of that name."""

    name: str
    text_types: tuple[str, ...] = ("llama",)
    dialect: None = None
    fewer_tokens: str = "size.longest_edge"

    def encode_image(self, config: Any, image_processor: Any, tokenizer: Any, image: Image.Image) -> EncodedImage:
        pixels = image_processor(images=[image], return_row_col_info=True, return_tensors="pt")
        tiles = pixels["pixel_values"][0]
        mask = pixels.get("pixel_attention_mask")
        if mask is not None and not mask.all():
            raise ValueError("its tiles are padded; set do_resize and do_image_splitting in preprocessor_config.json")

        rows, columns = int(pixels["rows"][0][0]), int(pixels["cols"][0][0])
        vision = config.vision_config
        num_tokens = (vision.image_size // vision.patch_size) ** 2 // config.scale_factor**2
        tokens = tokenizer.convert_ids_to_tokens(config.image_token_id) * num_tokens
        text = _image_text(tokens, rows, columns)

        height, width = tiles.shape[-2:]
        return EncodedImage(
            # The model takes images by prompt, padded with empty ones; one tile each needs no padding.
            inputs={"pixel_values": tiles[:, None]},
            token_ids=torch.tensor(tokenizer.encode(text, add_special_tokens=False)),
            input_size_wh=(max(columns, 1) * width, max(rows, 1) * height),
        )


def _image_text(tokens: str, rows: int, columns: int) -> str:
    """Return what the processor writes for an image, `tokens` for each tile; an image without tiles has 0 rows."""
    text = ""
    for row in range(1, rows + 1):
        for column in range(1, columns + 1):
            text += f"{FAKE}<row_{row}_col_{column}>{tokens}"
        text += "\n"
    if rows:
        text += "\n"
    return f"{text}{FAKE}{GLOBAL}{tokens}{FAKE}"


FAMILY = (SmolVLM("smolvlm"), SmolVLM("idefics3"))
