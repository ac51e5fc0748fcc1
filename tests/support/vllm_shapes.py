"""Families in small as vLLM takes them: heads of 64, for its attention on a CPU takes none of 16; released names.

The shapes are those of `family_shapes` with what differs. vLLM knows the weights by the names of released folders,
which transformers writes for models that it has loaded from one, and not for those made from a configuration.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from support.family_builder import DECODER, TOWER, build_family
from support.family_shapes import SHAPES
from visionr1.models.folder.files import WEIGHTS

WIDTH = 256
WIDE_DECODER = {
    **DECODER,
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "head_dim": 64,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
}
WIDE_TOWER = {
    **TOWER,
    "hidden_size": WIDTH,
    "embed_dim": WIDTH,
    "out_hidden_size": WIDTH,
    "projection_dim": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "head_dim": 64,
}
TILE_448 = {"height": 448, "width": 448}
MROPE = {"text_config": {"rope_parameters": {"mrope_section": [16, 8, 8]}}}
HALF_MROPE = {"text_config": {"rope_parameters": {"mrope_section": [8, 4, 4]}}}
INTERNVL = {
    "config": {"image_seq_length": 256, "vision_config": {"image_size": [448, 448], "patch_size": [14, 14]}},
    "image_processor": {"size": TILE_448, "max_patches": 3},
    "processor": {"image_seq_length": 256},
}
LINES = ("\n", "\n\n", "\n\n\n", "\n\n\n\n")
CLIP = {"vision_tower.": "vision_tower.vision_model."}


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs from the shape of the same family in `family_shapes`."""

    config: Mapping[str, Any] = field(default_factory=dict)
    image_processor: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)
    tokens: tuple[str, ...] = ()
    """Tokens of released tokenizers that vLLM asks for."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Prefixes of weights, and what released folders have in their place."""


DIFFERENCES: dict[str, Difference] = {
    "qwen2_vl": Difference(config=MROPE),
    "qwen2_5_vl": Difference(config=MROPE),
    "qwen3_vl": Difference(config=MROPE),
    "qwen3_vl_moe": Difference(config=MROPE),
    "qwen3_5": Difference(config=HALF_MROPE),
    "qwen3_5_moe": Difference(config=HALF_MROPE),
    "internvl": Difference(**INTERNVL),
    "internvl+qwen3": Difference(**INTERNVL),
    "smolvlm": Difference(),
    "idefics3": Difference(),
    "llava": Difference(names=CLIP),
    "llava_next": Difference(names=CLIP),
    "llava_onevision": Difference(names=CLIP),
    "gemma3": Difference(tokens=LINES, names=CLIP),
    "gemma4": Difference(config={"vision_config": {"default_output_length": 70}}),
    "paligemma": Difference(config={"projection_dim": WIDTH, "hidden_size": WIDTH}, names=CLIP),
    "glm4v": Difference(config=MROPE),
    "glm46v": Difference(config=MROPE),
    "mistral3": Difference(),
    "minicpmv4_6": Difference(config=HALF_MROPE),
    "lfm2_vl": Difference(config={"projector_hidden_size": WIDTH}),
}
"""The families that benchmarks/vllm_families.py tries."""


def build_for_vllm(folder: Path, like: Path, name: str) -> Path:
    """Write a model of the family `name` with the tokenizer of the folder `like` into `folder`."""
    difference = DIFFERENCES[name]
    shape = SHAPES[name]
    shape = replace(
        shape,
        config=_merge(shape.config, difference.config),
        image_processor=_merge(shape.image_processor, difference.image_processor),
        processor=_merge(shape.processor, difference.processor),
        tokens=(*shape.tokens, *difference.tokens),
    )
    build_family(folder, like, shape, decoder=WIDE_DECODER, tower=WIDE_TOWER)
    if difference.names:
        _rename(folder / WEIGHTS, difference.names)
    return folder


def _merge(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with some of them changed."""
    merged = dict(settings)
    for name, value in changes.items():
        merged[name] = _merge(merged.get(name) or {}, value) if isinstance(value, Mapping) else value
    return merged


def _rename(path: Path, names: Mapping[str, str]) -> None:
    """Give weights in a safetensors file the prefixes of released folders."""
    weights = {}
    for name, weight in load_file(path).items():
        for prefix, released in names.items():
            if name.startswith(prefix):
                name = released + name.removeprefix(prefix)
        weights[name] = weight
    save_file(weights, path, metadata={"format": "pt"})
