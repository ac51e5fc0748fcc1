"""InternVL (3, 3.5): the image cut into square tiles on the grid nearest to its shape, and where
there are several a thumbnail of the whole; every tile takes the same number of tokens."""

from typing import Any

import torch
from PIL import Image
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from visionr1.models.family import EncodedImage, OneAxis


class InternVL(OneAxis):
    """`InternVLForConditionalGeneration` of transformers (checkpoints whose name ends in -hf)."""

    name = "internvl"
    text_types = ("qwen2", "qwen3")
    dialect = "internvl"
    fewer_tokens = "max_patches"

    def encode_image(self, config: Any, image_processor: Any, tokenizer: Any, image: Image.Image) -> EncodedImage:
        # Tiling is the default of the family's processor, whatever the image processor's own is.
        tiles = image_processor(images=[image], crop_to_patches=True, return_tensors="pt")["pixel_values"]
        height, width = tiles.shape[-2:]
        columns, rows = get_optimal_tiled_canvas(
            (image.height, image.width), (height, width), image_processor.min_patches, image_processor.max_patches
        )

        start, end = tokenizer.convert_tokens_to_ids([tokenizer.start_image_token, tokenizer.end_image_token])
        num_tokens = len(tiles) * config.image_seq_length
        return EncodedImage(
            inputs={"pixel_values": tiles},
            token_ids=torch.tensor([start, *[config.image_token_id] * num_tokens, end]),
            input_size_wh=(columns * width, rows * height),
        )


FAMILY = InternVL()
