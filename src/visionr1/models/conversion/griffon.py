"""Convert Griffon-G as its authors release it (github.com/jefferyZhan/Griffon) for `families.griffon`.

A checkpoint is two folders. That of the model holds the weights of the language model, of the projector and
of the trained vision tower. That of the CLIP that the tower began as says how large images are.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, CLIPVisionConfig

from visionr1.errors import CheckpointError, RecipeError, short_repr
from visionr1.folders import whole_folder
from visionr1.models.conversion.griffon_prompts import (
    RELEASES,
    Release,
    write_generation,
    write_processor,
    write_tokenizer,
)
from visionr1.models.conversion.weights import FLOATS, StoredWeight, find_weights, read_weights, write_weights
from visionr1.models.families.griffon import KERNEL, STRIDE, GriffonConfig
from visionr1.models.folder.files import check_entries, check_layer_counts, check_no_hub_code, read_object
from visionr1.models.folder.foreign import foreign
from visionr1.models.loading import load_encoder

PADDING = {"conv_reduce": 1, "conv_reduce_wo_pad": 0}
"""The projector's padding, by `mm_projector_type`."""
FIXED: dict[str, tuple[Any, ...]] = {
    "mm_vision_select_feature": ("patch", None),
    "mm_use_im_start_end": (False, None),
    "image_aspect_ratio": ("square", None),
    "image_token_reg": (False, None),
}
"""Other settings of config.json that change the model or its prompts, with the values that are known."""
RENAMED = {
    "model.vision_tower.": "model.vision_tower.vision_tower.vision_model.",
    "model.multi_modal_projector.": "model.mm_projector.",
    "model.language_model.": "model.",
    "lm_head.": "lm_head.",
}
"""Beginnings of the names of weights: in transformers' LLaVA, and in the authors' code."""
TOWER, CLIP_TOWER = RENAMED["model.vision_tower."], "vision_model."
"""The vision tower's weights, in the checkpoint and in CLIP's own folder."""
PROMPT_ENCODER = ("model.prompt_visual_encoder.", "model.prompt_projector.")
"""A second CLIP for images as prompts ("count what looks like this"), which no query here has."""
BUFFERS = (".position_ids", ".rotary_emb.inv_freq")
"""Ends of names under which older versions of transformers stored what is computed."""
ROPE = ("rope_theta", "rope_scaling")
"""Settings of the language model under the names of older versions of transformers."""
NOT_KEPT = ("architectures", "use_cache", "dtype", "torch_dtype", "transformers_version", "model_type")
"""Settings in config.json that say nothing of the language model."""
HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"


def convert_griffon(folder: Path, vision_tower: Path, out: Path) -> list[str]:
    """Write the checkpoint in `folder`, whose tower began as the CLIP in `vision_tower`, as a model folder `out`.

    Weights keep their values and types. Returns the names of the weights that are left out: those for images as
    prompts. Raises RecipeError if `out` is there, and CheckpointError if a file is missing or damaged, if a setting is
    unknown, or if the weights are not exactly those of the configuration, each of which is named.
    """
    if out.exists():
        raise RecipeError(f"{out}: expected a new folder to write the model to, found one that is there")

    # Read what the two folders say, before anything is written.
    check_entries(folder)
    check_entries(vision_tower)
    content = _read_config(folder)
    release = RELEASES[content["model_type"]]
    stored = find_weights(folder)
    preprocessor, tower = _read_tower(vision_tower)
    check_layer_counts(content, len(stored), folder / "config.json")
    check_layer_counts(tower.to_dict(), len(stored), vision_tower / "config.json")
    text = _text_config(content, release, folder)

    # Weights last: they take minutes, and everything else may turn out to be wrong before.
    with whole_folder(out) as partial:
        tokenizer = write_tokenizer(text, release, folder, partial)
        config = _make_config(content, tower, text, tokenizer, release)
        weights, left_out = _match_weights(config, stored, folder, vision_tower)
        write_weights(weights, partial)
        config.dtype = FLOATS[weights["model.language_model.embed_tokens.weight"].dtype]
        config.save_pretrained(partial)
        write_processor(partial, preprocessor, config, release)
        write_generation(partial, folder, tokenizer)
        load_encoder(partial)  # its errors are those of the folder that was made
    return left_out


def _read_config(folder: Path) -> dict[str, Any]:
    """Return what config.json in a released folder says; CheckpointError if the model is not known here."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"no checkpoint in {folder}: config.json is missing")
    content = read_object(path)
    check_no_hub_code(content, path)

    # An unknown setting would make another model of the same weights.
    expected: dict[str, Iterable[Any]] = {"model_type": RELEASES, "mm_projector_type": PADDING, **FIXED}
    for name, known in expected.items():
        if content.get(name) not in known:
            values = ", ".join(json.dumps(value) for value in known if value is not None)
            raise CheckpointError(
                f"{path}: {name}: expected one of {values}, as in the released Griffon-G, found "
                f"{short_repr(content.get(name))}"
            )
    layer = content.get("mm_vision_select_layer")
    if type(layer) is not int:
        raise CheckpointError(
            f"{path}: mm_vision_select_layer: expected the number of a layer of the vision tower, such as -2, found "
            f"{short_repr(layer)}"
        )
    return content


def _read_tower(folder: Path) -> tuple[dict[str, Any], CLIPVisionConfig]:
    """Return the settings of the image processor in CLIP's folder, and the tower's configuration.

    Raises CheckpointError if a file is missing, or if the two are for images of different sizes.
    """
    for name in ("config.json", "preprocessor_config.json"):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"no vision tower in {folder}: {name} is missing; expected the folder that mm_vision_tower in the "
                "checkpoint's config.json names, such as clip-vit-large-path14-336_to_1022"
            )
    content = read_object(folder / "config.json")
    check_no_hub_code(content, folder / "config.json")
    content = content.get("vision_config", content)
    with foreign(f"{folder / 'config.json'}"):
        config = CLIPVisionConfig.from_dict(dict(content))

    # Their code squeezes an image to the size that the processor names, so that the processor leaves it as it is.
    path = folder / "preprocessor_config.json"
    settings = read_object(path)
    for name in ("size", "crop_size"):
        sides = settings.get(name)
        sides = list(sides.values()) if isinstance(sides, dict) else [sides]
        if any(side != config.image_size for side in sides):
            raise CheckpointError(
                f"{path}: {name}: expected {config.image_size}, the image_size of the vision tower, found "
                f"{short_repr(settings.get(name))}"
            )
    return settings, config


def _text_config(content: Mapping[str, Any], release: Release, folder: Path) -> Any:
    """Return the configuration of the language model, which stands in config.json among other settings."""
    # Other settings are of the vision tower, the projector and the authors' training.
    with foreign(f"{folder / 'config.json'}"):
        known = AutoConfig.for_model(release.text_type).to_dict()
        settings = {name: value for name, value in content.items() if name in {*known, *ROPE}}
        for name in NOT_KEPT:
            settings.pop(name, None)
        if release.text_type == "qwen2":
            settings.pop("rope_scaling", None)  # their class takes it away
        return AutoConfig.for_model(**{**settings, "model_type": release.text_type})


def _make_config(
    content: Mapping[str, Any], tower: CLIPVisionConfig, text: Any, tokenizer: Any, release: Release
) -> GriffonConfig:
    """Return the configuration of the converted model."""
    padding = PADDING[content["mm_projector_type"]]
    with foreign("the configuration of the vision tower"):
        side = (tower.image_size // tower.patch_size + 2 * padding - KERNEL) // STRIDE + 1
        return GriffonConfig(
            text_config=text.to_dict(),
            vision_config=tower.to_dict(),
            vision_feature_layer=content["mm_vision_select_layer"],
            projector_padding=padding,
            image_token_index=tokenizer.convert_tokens_to_ids(release.image_token),
            image_seq_length=side**2,
        )


def _match_weights(
    config: GriffonConfig, stored: Mapping[str, StoredWeight], folder: Path, vision_tower: Path
) -> tuple[dict[str, StoredWeight], list[str]]:
    """Return where each weight of the model is stored, by its own name, and the names of those that are left out.

    Raises CheckpointError with the names of all that are missing, too many, or of another shape or type.
    """
    stored = _with_tower(stored, vision_tower)
    expected = _expected_weights(config, folder)
    if config.tie_word_embeddings:
        del expected[HEAD]
        _check_tied(stored, folder)

    # In the order in which they are stored, in which they are read.
    weights, left_out, wrong = {}, [], []
    for name, weight in stored.items():
        if name.startswith(PROMPT_ENCODER):
            left_out.append(name)
        elif name not in expected:
            if not (name == HEAD and config.tie_word_embeddings):
                wrong.append(f"not expected: {name}")
        else:
            new_name, shape = expected[name]
            weights[new_name] = weight
            if weight.shape != shape or weight.dtype not in FLOATS:
                wrong.append(
                    f"{name}: expected shape {shape} of {', '.join(FLOATS)}, found {weight.shape} of {weight.dtype}"
                )
    wrong += [f"missing: {name}" for name in expected if name not in stored]
    if wrong:
        lines = "\n  ".join(wrong)
        raise CheckpointError(
            f"{folder}: the weights are not those that its config.json and {vision_tower} describe:\n  {lines}"
        )
    return weights, left_out


def _with_tower(stored: Mapping[str, StoredWeight], vision_tower: Path) -> dict[str, StoredWeight]:
    """Return the weights that are stored, without buffers; a tower that was never trained may be in CLIP's folder."""
    weights = {name: weight for name, weight in stored.items() if not name.endswith(BUFFERS)}
    if not any(name.startswith(TOWER) for name in weights):
        for name, weight in find_weights(vision_tower).items():
            if name.startswith(CLIP_TOWER) and not name.endswith(BUFFERS):
                weights[TOWER + name.removeprefix(CLIP_TOWER)] = weight
    return weights


def _expected_weights(config: GriffonConfig, folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the name and the shape of each weight of the model, by the name that the authors' code gives it."""
    with foreign(f"{folder / 'config.json'}"), torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    expected = {}
    for name, tensor in model.state_dict().items():
        ours = next(beginning for beginning in RENAMED if name.startswith(beginning))
        expected[RENAMED[ours] + name.removeprefix(ours)] = (name, tuple(tensor.shape))
    return expected


def _check_tied(stored: Mapping[str, StoredWeight], folder: Path) -> None:
    """Raise CheckpointError if an output layer that is tied to the embeddings is stored too, and is another."""
    if HEAD not in stored or EMBEDDINGS not in stored:
        return
    (_, head), (_, embeddings) = read_weights([stored[HEAD], stored[EMBEDDINGS]])
    if not torch.equal(head, embeddings):
        raise CheckpointError(
            f"{folder}: config.json ties {HEAD} to {EMBEDDINGS} (tie_word_embeddings), but they differ; set it to "
            "false if both are meant"
        )
