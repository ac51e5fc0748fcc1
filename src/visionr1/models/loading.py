"""Loading a policy: any transformers folder that reads images, or a folder of adapters.

A folder may come from anyone: its code is never run, and whatever is wrong with it is one CheckpointError.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.quantizers import AutoHfQuantizer
from transformers.utils.logging import disable_progress_bar

from visionr1.assets import embedded_path
from visionr1.dialects import Dialect, describe_dialects, get_dialect, resolve_dialect
from visionr1.errors import CheckpointError, DataError, ImageRefused, RecipeError, short_repr
from visionr1.models.adapters import base_folder, is_adapter_folder, load_adapters
from visionr1.models.attention.tree import NAME as TREE_ATTENTION
from visionr1.models.families import FAMILIES
from visionr1.models.family import Family
from visionr1.models.folder.files import (
    INDEX,
    WEIGHTS,
    check_entries,
    check_layer_counts,
    check_no_hub_code,
    read_object,
    read_shapes,
)
from visionr1.models.folder.foreign import foreign
from visionr1.models.folder.processor import (
    LOCAL,
    check_patches,
    load_image_processor,
    load_processor,
    load_tokenizer,
    read_processor_files,
)
from visionr1.models.folder.thought import dialect_for_template
from visionr1.models.image_bounds import check_bound_acts, limit_pixels
from visionr1.models.memory.cpu import limit_prepared_products
from visionr1.models.memory.quantization import QUANTIZATIONS, keep_layout, quantize_on_loading, stored_weights
from visionr1.models.patches import multiply_patches
from visionr1.models.paths.generic import GenericPath
from visionr1.models.paths.packed import PackedPath
from visionr1.models.policy import Policy
from visionr1.models.unsupported import check_supported, check_type_supported, warn_if_untested
from visionr1.models.weights import check_finite

DIALECT_FILE = "visionr1.json"
GENERATION_CONFIG = "generation_config.json"
DEFAULT_DIALECTS = {
    "qwen2_vl": "qwen2vl",
    "qwen3_5": "qwen3",
    "qwen3_5_moe": "qwen3",
    "qwen3_vl_moe": "qwen3",
    "gemma3": "gemini",
    "gemma4": "gemini",
    "paligemma": "paligemma",
    "glm4v": "glm",
    "glm46v": "glm",
    "glm4v_moe": "glm",
    "lfm2_vl": "lfm",
    "minicpmv4_6": "minicpm",
    "minicpmv4_7": "minicpm",
}
"""How released models write boxes, by model type, where it has no file in `families`; each dialect names its source."""
MOST_LAYERS = 1024
"""Of a model whose weights are not there to be counted."""
NAME_A_DIALECT = "--dialect my_dialect.py:NAME, in a recipe model.dialect"
"""How a user names a dialect, for messages."""


def load_policy(
    path: str | Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    dialect: str | None = None,
    template: str | None = None,
    base: str | Path | None = None,
    max_pixels: int | None = None,
    quantization: str | None = None,
) -> Policy:
    """Return the policy in transformers folder `path`; "tiny" is the model that ships.

    A folder of adapters is loaded with the model that they were trained on: `base`, else where it was.
    `dialect` names how it writes boxes; else the folder's visionr1.json does, else its model type. If it has a thought,
    the chat template decides which of prompt and reply opens it. `template` takes the
    place of the dialect's instructions; else that of the folder's visionr1.json does, if it has one. Images are fed
    with at most `max_pixels` pixels; else as the folder says. `quantization` rounds the language model's weights (see
    `memory.quantization`); else a folder of adapters says how its base was.
    Raises CheckpointError if the folder is missing, of an unknown family, or lacks weights in safetensors files, and
    RecipeError if the device is not there.
    """
    limit_prepared_products()
    check_device(device)
    opened = _open_folder(path, base)
    quantization = quantization or opened.settings.get("quantization", "none")
    if quantization == "none":
        model = _load_model(opened.folder, dtype).to(device)
    else:
        settings = quantize_on_loading(opened.config, opened.folder, getattr(torch, dtype), device)
        model = _load_model(opened.folder, dtype, **settings)
    policy = _make_policy(opened, model, dialect=dialect, template=template, max_pixels=max_pixels)
    policy.quantization = quantization
    if opened.adapters:
        load_adapters(policy.model, opened.adapters)
    return policy


def load_encoder(
    path: str | Path, *, dtype: str = "float32", dialect: str | None = None, max_pixels: int | None = None
) -> Policy:
    """Return the policy in `path` without its weights, which need not be there: it makes prompts and cannot be run.

    Parameters are on the meta device, buffers have their content. Arguments and errors are those of `load_policy`.
    """
    opened = _open_folder(path, None, needs_weights=False)
    with foreign(f"{opened.folder / 'config.json'}"):
        with init_empty_weights(include_buffers=False):
            model = AutoModelForImageTextToText.from_config(
                opened.config, dtype=getattr(torch, dtype), trust_remote_code=False
            )
        model.tie_weights()
    # The tokens that end a reply may stand there alone.
    if (opened.folder / GENERATION_CONFIG).is_file():
        with foreign(f"{opened.folder / GENERATION_CONFIG}"):
            model.generation_config = GenerationConfig.from_pretrained(opened.folder, **LOCAL)
    return _make_policy(opened, model, dialect=dialect, template=None, max_pixels=max_pixels)


@dataclass(frozen=True, slots=True)
class _OpenedFolder:
    """A model folder, or one of adapters with its base, whose configuration is read and checked."""

    folder: Path
    """That of the model."""
    adapters: Path | None
    settings: Mapping[str, Any]
    """What visionr1.json says, that of the adapters first."""
    config: Any
    family: Family | None


def _open_folder(path: str | Path, base: str | Path | None, *, needs_weights: bool = True) -> _OpenedFolder:
    """Read what `path` says of its model; `base` is the model's folder if `path` holds adapters."""
    folder = model_folder(path)
    adapters = None
    settings = {}
    if is_adapter_folder(folder):
        adapters = folder
        folder = model_folder(base or base_folder(adapters))
        if folder == adapters:
            raise CheckpointError(
                f"{adapters} holds adapters, and a whole model is needed here: take the final/ of their run, in which "
                "they are merged"
            )
        if is_adapter_folder(folder):
            raise CheckpointError(
                f"the base of the adapters in {adapters}, {folder}, holds adapters itself, not a model"
            )
        check_entries(adapters)
        settings = _folder_settings(adapters)

    check_entries(folder)
    config = _load_config(folder, str(path), needs_weights=needs_weights)
    return _OpenedFolder(folder, adapters, {**_folder_settings(folder), **settings}, config, find_family(config))


def _make_policy(
    opened: _OpenedFolder, model: Any, *, dialect: str | None, template: str | None, max_pixels: int | None
) -> Policy:
    """Return the policy of a `model` with what makes its prompts, from its folder."""
    folder, family, settings = opened.folder, opened.family, opened.settings
    written_in = _find_dialect(dialect, settings, opened.adapters or folder, opened.config.model_type)
    with foreign(f"the model folder {folder}"):
        if family is None:
            check_supported(model, folder)
            warn_if_untested(opened.config.model_type)
            multiply_patches(model)
            processor = load_processor(folder, opened.config.model_type)
            generic_path = GenericPath(model.config, processor, read_processor_files(folder))
            generic_path.check_dialect(written_in, folder)
            policy = Policy(model, processor.tokenizer, processor.image_processor, written_in, generic_path)
        else:
            policy = share_prefixes(model, folder, family, written_in)
        is_default = not dialect and "dialect" not in settings
        policy.write_in(dialect_for_template(written_in, policy.tokenizer, is_default=is_default))
        check_patches(policy.image_processor, getattr(opened.config, "vision_config", None), folder)
        _try_image(policy, folder)

    policy.template = template or settings.get("template", "")
    bound = max_pixels or settings.get("max_pixels")
    if bound:
        if "max_pixels" not in settings:  # a folder with a bound may have been cut to one size by it
            check_bound_acts(policy, bound)
        limit_pixels(policy, bound)
    return policy


def _try_image(policy: Policy, folder: Path) -> None:
    """Raise CheckpointError if not even an ordinary image can be fed to the model: then its folder is at fault.

    Where the weights are there, its vision tower takes the image too: tower and processor may differ in their patches.
    """
    try:
        prompt = policy.path.encode(Image.new("RGB", (224, 224)), "?")
        if policy.has_weights:
            with torch.no_grad():
                policy.path.encode_images(policy, [prompt])
    except DataError as error:
        if isinstance(error, ImageRefused) and error.__cause__ is None:
            return  # its context is small, which smaller images may fit
        raise CheckpointError(f"nothing can be fed to the model in {folder}: {error}") from error


def share_prefixes(model: Any, folder: Path, family: Family, dialect: Dialect) -> Policy:
    """Return the policy of a `model` of a known family, with the tokenizer and image processor in `folder`."""
    family.prepare(model)
    model.set_attn_implementation({"text_config": TREE_ATTENTION})
    tokenizer = load_tokenizer(folder)
    image_processor = load_image_processor(folder)
    path = PackedPath(family, model.config, tokenizer, image_processor, read_processor_files(folder))
    return Policy(model, tokenizer, image_processor, dialect, path)


def model_folder(path: str | Path) -> Path:
    """Return the folder that `path` names: itself, a run's final/, or for "tiny" the model that ships."""
    if path == "tiny":
        return embedded_path("tiny")
    final = Path(path) / "final"
    return final if final.is_dir() else Path(path)


def check_device(name: str) -> None:
    """Raise RecipeError if nothing can be computed on the device called `name`."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(
            f'device: expected "cpu", or "cuda" or "cuda:1" where there is one, found {name!r} '
            f"({str(error).partition(chr(10))[0]}); choose with --device cpu, of a recipe --set model.device=cpu"
        ) from error


def find_family(config: Any) -> Family | None:
    """Return the family of a model; None if it has to take the generic path."""
    if config.model_type not in FAMILIES:
        return None

    # A known family may stand around a language model whose layers attend to a part of the prefix only.
    family = FAMILIES.known(config.model_type)
    text = config.get_text_config()
    partial = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    return None if partial or text.model_type not in family.text_types else family


def _load_config(folder: Path, given: str, *, needs_weights: bool) -> Any:
    """Return the configuration in `folder`, for which the user gave the name `given`; CheckpointError if there is none,
    or if the model reads no images."""
    if not (folder / "config.json").is_file():
        is_name = not folder.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", given)
        hint = f"; if it is a name on the hub, first: hf download {given} --local-dir {given}" if is_name else ""
        raise CheckpointError(f"no model in {folder}: config.json is missing{hint}")
    content = read_object(folder / "config.json")
    _check_type(content, folder)
    check_no_hub_code(content, folder / "config.json")
    is_quantized = _check_quantization(content, folder)
    has_weights = needs_weights or any((folder / name).is_file() for name in (WEIGHTS, INDEX))
    num_weights = len(read_shapes(folder, floats=not is_quantized)) if has_weights else MOST_LAYERS
    check_layer_counts(content, num_weights, folder / "config.json")
    with foreign(f"{folder / 'config.json'}"):
        return AutoConfig.from_pretrained(folder, **LOCAL)


def _check_type(content: Mapping[str, Any], folder: Path) -> None:
    """Raise CheckpointError if config.json, whose `content` is given, is not of a model that reads images."""
    model_type = content.get("model_type")
    if not isinstance(model_type, str):
        raise CheckpointError(f"{folder / 'config.json'}: model_type: expected a text, found {short_repr(model_type)}")
    check_type_supported(model_type, folder)
    if model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return
    if model_type in FAMILIES:
        FAMILIES.known(model_type)  # its file brings a class of its own, which transformers knows from now on
        return
    if "auto_map" in content:
        raise CheckpointError(
            f"{folder / 'config.json'}: this folder wants to run code of its own (auto_map), which visionr1 never "
            f"does, and transformers has no models of type {short_repr(model_type)}; known best: {', '.join(FAMILIES)} "
            "(docs/faq.md#this-folder-wants-to-run-code-of-its-own)"
        )
    raise CheckpointError(
        f"{folder} holds a model of type {short_repr(model_type)}, which reads no images; "
        f"known best: {', '.join(FAMILIES)}"
    )


def _check_quantization(content: Mapping[str, Any], folder: Path) -> bool:
    """Return True if config.json says that the weights are quantized.

    Raises CheckpointError for a way that transformers does not know: it would warn, and take the quantized numbers for
    the weights themselves.
    """
    is_quantized = False
    for part in (content, content.get("text_config")):
        settings = part.get("quantization_config") if isinstance(part, dict) else None
        if settings is None:
            continue
        with foreign(f"{folder / 'config.json'}: quantization_config"):
            is_known = AutoHfQuantizer.supports_quant_method(settings)
        if not is_known:
            raise CheckpointError(
                f"{folder / 'config.json'}: quantization_config: transformers knows no quant_method "
                f"{short_repr(settings.get('quant_method'))}; use the model's weights that are not quantized "
                "(docs/faq.md#weights-of-whole-numbers-or-an-unknown-quant_method)"
            )
        is_quantized = True
    return is_quantized


def _load_model(folder: Path, dtype: str, **settings: Any) -> Any:
    """Return the model in `folder`, on the CPU unless transformers' `settings` say otherwise.

    Raises CheckpointError if its weights do not fit its configuration.
    """
    disable_progress_bar()
    with foreign(f"cannot load the model in {folder}: its configuration or its weights"):
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **LOCAL, **settings
        )
    keep_layout(model)
    wrong = []
    for key, names in report.items():
        if names:
            wrong.append(f"{key}: {len(names)}, such as {min(map(str, names))!r}")
    if wrong:
        raise CheckpointError(f"the weights in {folder} do not fit its config.json: {'; '.join(wrong)}")
    check_finite(stored_weights(model), folder)
    _keep_softcap(model)
    return model


def _keep_softcap(model: Any) -> None:
    """Let a language model that caps its attention scores (Gemma 2) do so.

    transformers before 5.21 gives it scaled dot-product attention, which leaves the cap out without a word.
    """
    for module in model.modules():
        if not isinstance(module, PreTrainedModel) or module.config._attn_implementation != "sdpa":
            continue
        if getattr(module.config, "attn_logit_softcapping", None):
            module.set_attn_implementation("eager")


def _find_dialect(name: str | None, settings: Mapping[str, Any], folder: Path, model_type: str) -> Dialect:
    """Return the dialect that a user named, else that of the `settings` in `folder`, else that of its type."""
    if name:
        dialect = resolve_dialect(name)
    elif "dialect" in settings:
        # No code is imported for a name that stands in a file.
        try:
            dialect = get_dialect(settings["dialect"])
        except RecipeError as error:
            raise CheckpointError(
                f"{folder / DIALECT_FILE}: {error}; give one of your own with {NAME_A_DIALECT}"
            ) from error
    elif default_dialect(model_type):
        dialect = get_dialect(default_dialect(model_type))
    else:
        raise CheckpointError(
            f"{folder} does not say how its model writes boxes, and models of type {model_type!r} have no one way: "
            f'write {{"dialect": NAME}} into {folder / DIALECT_FILE}, or name it with {NAME_A_DIALECT}; '
            f"known: {describe_dialects()}"
        )
    return dialect


def default_dialect(model_type: str) -> str:
    """Return the dialect of released models of a type, on whichever path; empty if they have no one way."""
    if model_type in FAMILIES:
        return FAMILIES.known(model_type).dialect or ""
    return DEFAULT_DIALECTS.get(model_type, "")


def _folder_settings(folder: Path) -> dict[str, Any]:
    """Return what a model folder's visionr1.json says, nothing if there is none: dialect, template, max_pixels, and of
    adapters the quantization of their base."""
    path = folder / DIALECT_FILE
    content = read_object(path) if path.is_file() else {}
    bound = content.get("max_pixels", 1)
    texts = [value for name, value in content.items() if name != "max_pixels"]
    template = content.get("template")
    if not all(isinstance(value, str) for value in texts) or type(bound) is not int or bound < 1:
        raise CheckpointError(
            f"{path}: expected an object with the texts dialect and template, and the number max_pixels, "
            f"found {short_repr(content)}"
        )
    if content.get("quantization", "none") not in QUANTIZATIONS:
        expected = ", ".join(QUANTIZATIONS)
        found = short_repr(content["quantization"])
        raise CheckpointError(f"{path}: quantization: expected {expected}, found {found}")
    if template and "{}" not in template:
        raise CheckpointError(
            f"{path}: template: expected {{}} where the categories stand, found {short_repr(template)}"
        )
    return content
