"""Small models with random weights of any family that transformers has, built from its own default configuration.

`family_shapes.SHAPES` says what each family needs beyond sizes: its tokens and its processor's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from visionr1.files import write_json_atomic
from visionr1.models.loading import load_policy
from visionr1.models.tiny import CHAT_TEMPLATE

QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
WIDTH, LAYERS, TILE, PATCH = 64, 2, 40, 10

DECODER: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "sliding_window": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
"""Sizes of language models, of which each family takes those that its configuration has."""
TOWER: dict[str, Any] = {
    "hidden_size": WIDTH,
    "embed_dim": WIDTH,
    "out_hidden_size": WIDTH,
    "projection_dim": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "depth": LAYERS,
    "num_hidden_layers": LAYERS,
    "num_heads": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "image_size": TILE,
    "patch_size": PATCH,
    "num_position_embeddings": 256,
}
"""Sizes of vision towers, of which each family takes those that its configuration has."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a family needs beyond the common sizes."""

    model_type: str
    image: str = "<image>"
    """What the chat template writes for an image."""
    tokens: tuple[str, ...] = ()
    """Special tokens of the tokenizer."""
    named: Mapping[str, str] = field(default_factory=dict)
    """Special tokens that the processor asks the tokenizer for, by attribute."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the configuration; where a key of token ids has a text, the id of that token."""
    image_processor: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)
    image_class: str = ""
    """The image processor's class, where transformers names none for the model type."""
    processor_class: str = ""
    needs: tuple[str, ...] = ()
    """Packages that loading it needs."""
    many_convolutions: bool = False
    """Convolutions keep the size of their input: many of small weights would make an image vanish."""


def build_family(
    folder: Path,
    like: Path,
    shape: Shape,
    *,
    decoder: Mapping[str, Any] = DECODER,
    tower: Mapping[str, Any] = TOWER,
) -> Path:
    """Write a model of `shape` with the tokenizer of the folder `like`, whose dialect is qwen3, into `folder`.

    `decoder` and `tower` are the sizes of its parts.
    """
    config, tokenizer = write_files(folder, like, shape, decoder=decoder, tower=tower)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
        fill_zeros(model)
        if shape.many_convolutions:
            keep_signals(model)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    return folder


def write_files(
    folder: Path,
    like: Path,
    shape: Shape,
    *,
    decoder: Mapping[str, Any] = DECODER,
    tower: Mapping[str, Any] = TOWER,
) -> tuple[Any, PreTrainedTokenizerFast]:
    """Write what belongs to a model of `shape` beside its weights; return its configuration and tokenizer."""
    tokenizer = make_tokenizer(like, shape)
    config = make_config(shape, tokenizer, decoder=decoder, tower=tower)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

    # Processors are written as their authors' files, for some cannot be made without torchvision.
    class_name = shape.processor_class or PROCESSOR_MAPPING_NAMES[shape.model_type]
    names = IMAGE_PROCESSOR_MAPPING_NAMES.get(shape.model_type) or {}
    image_class = shape.image_class or names.get("torchvision") or names.get("pil")
    preprocessor = {"image_processor_type": image_class, "processor_class": class_name, **shape.image_processor}
    write_json_atomic(folder / "preprocessor_config.json", preprocessor)
    write_json_atomic(folder / "processor_config.json", {"processor_class": class_name, **shape.processor})
    write_json_atomic(folder / "visionr1.json", {"dialect": "qwen3"})
    return config, tokenizer


def make_tokenizer(like: Path, shape: Shape) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the folder `like` with the tokens of `shape`, and its chat template."""
    tokenizer = load_policy(like).tokenizer
    tokens = [*shape.tokens, *shape.named.values()]
    tokenizer.add_special_tokens({"additional_special_tokens": tokens}, replace_extra_special_tokens=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        bos_token=tokenizer.pad_token,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        extra_special_tokens=dict(shape.named),
        chat_template=CHAT_TEMPLATE.replace(QWEN_IMAGE, shape.image),
        clean_up_tokenization_spaces=False,
    )


def make_config(
    shape: Shape, tokenizer: Any, *, decoder: Mapping[str, Any] = DECODER, tower: Mapping[str, Any] = TOWER
) -> Any:
    """Return the family's default configuration in small."""
    default = AutoConfig.for_model(shape.model_type).to_dict()
    ends = {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    settings: dict[str, Any] = {}
    for name, part in default.items():
        # Parts for sound and the like stay away where a shape says None.
        changed = shape.config.get(name, {})
        if changed is None:
            settings[name] = None
        elif name.endswith("_config") and (isinstance(part, dict) or changed):
            part = part or {}
            kind = changed.get("model_type", part.get("model_type"))
            known = AutoConfig.for_model(kind).to_dict() if kind else part
            sizes = {**decoder, **ends} if name == "text_config" else tower
            settings[name] = {key: value for key, value in sizes.items() if key in known}
            # Without kinds of layers the cache would have windows that the model does not have.
            if "layer_types" not in known:
                settings[name].pop("sliding_window", None)
            settings[name] |= {"model_type": kind, **changed}
    for name, value in shape.config.items():
        if not name.endswith("_config"):
            settings[name] = value
    return AutoConfig.for_model(shape.model_type, **_resolve(settings, tokenizer))


def _resolve(settings: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Return settings with the ids of tokens in place of their texts."""
    resolved = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            value = _resolve(value, tokenizer)
        elif name.endswith(("_id", "_index", "_ids")) and isinstance(value, str | tuple):
            value = tokenizer.convert_tokens_to_ids(list(value) if isinstance(value, tuple) else value)
        resolved[name] = value
    return resolved


@torch.no_grad()
def keep_signals(model: torch.nn.Module) -> None:
    """Give convolutions weights that keep the size of their input once `sharpen` has made them four times as large."""
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight).mul_(0.25)


@torch.no_grad()
def fill_zeros(model: torch.nn.Module) -> None:
    """Fill weights that begin at zero, with which images or whole layers would say nothing."""
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
