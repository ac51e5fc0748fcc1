"""Writing a policy: as an ordinary transformers folder, or what `load_policy` needs to restore it."""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from visionr1.files import write_json_atomic
from visionr1.models.adapters import has_adapters, merged_weights, save_adapters
from visionr1.models.image_bounds import save_bounds
from visionr1.models.loading import DIALECT_FILE
from visionr1.models.memory.quantization import make_plain
from visionr1.models.policy import Policy


def save_policy(
    policy: Policy, folder: Path, dtype: torch.dtype | None = None, weights: Mapping[str, Tensor] | None = None
) -> None:
    """Write an ordinary transformers folder; weights in `dtype`, else as they are in memory.

    Adapters are added to the weights, and also written by themselves to `folder`/adapter. Quantized weights are written
    as the numbers that they stand for. `weights` is the model's full state dict where the model itself holds shards.
    """
    model = policy.model
    state = model.state_dict() if weights is None else weights
    # Adapters are added on the way to the file: the model stays as it is.
    merged = {name: tensor.cpu() for name, tensor in merged_weights(model, state, dtype)}
    writer = make_plain(model) if policy.quantization != "none" else model
    writer.save_pretrained(folder, state_dict=merged)
    # The model's own configuration names the precision in memory.
    if dtype:
        config = copy.deepcopy(writer.config)
        config.dtype = dtype
        config.save_pretrained(folder)
    if has_adapters(model):
        _save_adapters(policy, state, folder / "adapter")
    policy.path.save_processor(folder)
    if policy.max_pixels:
        save_bounds(policy, folder)
    _save_settings(policy, folder)
    give_usual_mode(folder)


def save_trained(policy: Policy, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write what `load_policy` needs to restore this policy: its adapters alone if it has any."""
    if has_adapters(policy.model):
        _save_adapters(policy, policy.model.state_dict() if weights is None else weights, folder)
    else:
        save_policy(policy, folder, weights=weights)


def give_usual_mode(folder: Path) -> None:
    """Let others read the weights in `folder` as they may read what lies beside them: safetensors writes mode 0600."""
    mode = (folder / DIALECT_FILE).stat().st_mode
    for path in folder.rglob("*.safetensors"):
        path.chmod(mode)


def _save_adapters(policy: Policy, state: Mapping[str, Tensor], folder: Path) -> None:
    """Write a folder of adapters, which are loaded with the dialect and template that they were trained with."""
    save_adapters(policy.model, state, folder)
    _save_settings(policy, folder, quantization=policy.quantization)
    give_usual_mode(folder)


def _save_settings(policy: Policy, folder: Path, *, quantization: str = "none") -> None:
    """Write how the policy writes boxes and is asked, which transformers' own files do not say.

    Adapters belong to a base in their `quantization`; merged weights have none.
    """
    settings = {"dialect": policy.dialect.name, "template": policy.template, "max_pixels": policy.max_pixels}
    if quantization != "none":
        settings["quantization"] = quantization
    write_json_atomic(folder / DIALECT_FILE, {key: value for key, value in settings.items() if value})
