"""Families of the generic path, as large as the fixed model of the speed benchmarks."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from support.family_builder import DECODER, TOWER, Shape, build_family
from support.family_shapes import SHAPES

PATCH = 14
SPEED_DECODER = {
    **DECODER,
    "hidden_size": 256,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "sliding_window": 512,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
}
SPEED_TOWER = {
    **TOWER,
    "hidden_size": 128,
    "embed_dim": 128,
    "out_hidden_size": 256,
    "projection_dim": 128,
    "intermediate_size": 256,
    "depth": 4,
    "num_hidden_layers": 4,
    "num_heads": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "patch_size": PATCH,
    "num_position_embeddings": 1024,
}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 4, 4], "mrope_interleaved": True}
CHANGED: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # Three layers in four are recurrences.
    "qwen3_5": ({"rope_parameters": {**MROPE, "partial_rotary_factor": 0.5}}, {"size": None}),
    # Three layers in four see a window; the tokens of an image see each other.
    "gemma4": (
        {"num_hidden_layers": 4, "layer_types": [*["sliding_attention"] * 3, "full_attention"]},
        {"max_soft_tokens": 280},
    ),
}
"""What the family's small shape has otherwise here: settings of its language model, and of its image processor, where
None is the class's own."""
SPEED_FAMILIES = tuple(CHANGED)


def build_speed_family(folder: Path, like: Path, name: str) -> Path:
    """Write one of SPEED_FAMILIES with the tokenizer of the speed model `like`, 5 to 8 million weights, to `folder`.

    An image of 448 x 448 pixels takes 256 tokens.
    """
    return build_family(folder, like, _speed_shape(name), decoder=SPEED_DECODER, tower=SPEED_TOWER)


def _speed_shape(name: str) -> Shape:
    """Return the family's shape for these sizes."""
    shape = SHAPES[name]
    text, image = CHANGED[name]
    settings = {**shape.image_processor, "patch_size": PATCH, **image}
    kept = {key: value for key, value in settings.items() if value is not None}
    config = {**shape.config, "text_config": {**shape.config["text_config"], **text}}
    return replace(shape, config=config, image_processor=kept)
