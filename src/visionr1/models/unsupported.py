"""Models of transformers that read images and cannot be trained here, by model type, and why."""

import logging
from pathlib import Path
from typing import Any

from visionr1.assets import families_path
from visionr1.errors import CheckpointError
from visionr1.files import read_json

_log = logging.getLogger(__name__)

ENCODER = "it is an encoder with a decoder, and its image is no part of the prompt"
NO_CHAT = "it describes images or pages, and its released models follow no chat template"
NO_CACHE = "its forward pass takes no cache of a prompt, which completions would share"
CODES = "its images are tokens of a codebook, so no gradient reaches what encodes them"
ELSEWHERE = "its class has no language model in the place where those of the others have it"
SPEAKS = "it also speaks; its thinker alone is of type '{}_thinker', which is not tried yet"

UNSUPPORTED = {
    "blip": NO_CHAT,
    "blip-2": NO_CACHE,
    "chameleon": CODES,
    "diffusion_gemma": "it writes text by diffusion, so a token has no log-probability given the ones before it",
    "emu3": CODES,
    "evolla": "it reads proteins, not images",
    "florence2": ENCODER,
    "git": NO_CHAT,
    "got_ocr2": NO_CHAT,
    "idefics": "its completions see the image by cross-attention, which their prompt's cache does not hold",
    "instructblip": NO_CACHE,
    "instructblipvideo": NO_CACHE,
    "kosmos-2": ELSEWHERE,
    "kosmos-2.5": NO_CHAT,
    "llama4": ELSEWHERE,
    "mistral4": "it reads text alone",
    "mllama": "its completions see the image through a mask of tiles, which their prompt's cache does not hold",
    "nemotron_h_omni": ELSEWHERE,
    "pi0": "it writes actions of a robot, not text",
    "pix2struct": ENCODER,
    "pp_chart2table": NO_CHAT,
    "pp_formulanet": ENCODER,
    "qwen2_5_omni": SPEAKS.format("qwen2_5_omni"),
    "qwen3_omni_moe": SPEAKS.format("qwen3_omni_moe"),
    "shieldgemma2": "it classifies images, and writes no text",
    "t5gemma2": ENCODER,
    "udop": ENCODER,
    "vision-encoder-decoder": ENCODER,
}
"""Why completions of models of a type cannot go on from their prompt's cache."""


def check_type_supported(model_type: str, folder: Path) -> None:
    """Raise CheckpointError if models of this type are known not to work, before anything else of `folder` is read."""
    if model_type in UNSUPPORTED:
        raise _refusal(model_type, folder, UNSUPPORTED[model_type])


def check_supported(model: Any, folder: Path) -> None:
    """Raise CheckpointError if the `model` in `folder` lacks what sharing a prompt's cache needs."""
    if model.config.is_encoder_decoder:
        raise _refusal(model.config.model_type, folder, ENCODER)
    has_decoder = hasattr(getattr(model, "model", None), "get_decoder")
    if not has_decoder or model.get_output_embeddings() is None:
        raise _refusal(model.config.model_type, folder, ELSEWHERE)


def warn_if_untested(model_type: str) -> None:
    """Log a warning if no small model of this type was compared with transformers' own forward pass."""
    tested = {row["model_type"] for row in read_json(families_path())}
    if model_type not in tested:
        _log.warning(
            "models of type %r were not compared with transformers' own forward pass, so whether completions share "
            "their prompt exactly is not known (docs/faq.md#models-of-this-type-were-not-compared)",
            model_type,
        )


def _refusal(model_type: str, folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{folder}: models of type {model_type!r} are not supported: {reason}; see `visionr1 models`"
    )
