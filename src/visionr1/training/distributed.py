"""Several ranks that train one model, by accelerate. In a run of one process all of this does nothing.

`accelerate launch` or `torchrun` starts the processes and says by environment variables how the model is distributed:
replicated (DDP), in shards (FSDP2), or replicated with its optimizer in shards (ZeRO-2, see `zero`). Each rank takes
its part of a step's samples, all completions of a sample on one rank.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from importlib import import_module
from operator import attrgetter
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedType
from accelerate.utils import InitProcessGroupKwargs, fsdp2_prepare_model, gather_object
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from visionr1.errors import RecipeError, TrainingError, needs_extra
from visionr1.models.weights import full_tensor
from visionr1.training.recipe import Recipe

Item = TypeVar("Item")
NEEDED_BY_SHARDS = {
    "model.dtype": "float32",
    "model.quantization": "none",
    "optimizer.name": "adamw",
    "optimizer.offload": False,
}
NEEDED_BY_FSDP2 = {**NEEDED_BY_SHARDS, "rollout.compile": False, "model.offload_reference": False}
"""Its weights are put together elsewhere for each rollout, so that CUDA graphs would be recorded anew for ever. It
offloads by itself, the reference too: fsdp_offload_params in the launcher's settings."""
Sharding = Literal["none", "fsdp2", "zero2"]
"""What is divided over the ranks: nothing (DDP), all (FSDP2), or gradients and the optimizer's state (ZeRO-2)."""
NEEDED: Mapping[Sharding, Mapping[str, object]] = {"none": {}, "fsdp2": NEEDED_BY_FSDP2, "zero2": NEEDED_BY_SHARDS}
"""Settings of a recipe that a sharding needs."""
SHARDING_NAMES: Mapping[Sharding, str] = {"none": "DDP", "fsdp2": "FSDP2", "zero2": "ZeRO-2"}
RANK_TIMEOUT = timedelta(hours=2)
"""How long a rank waits for another, which may be writing a checkpoint of 100 GB to a slow disk."""
ZERO = {"ZERO_STAGE": "2", "OFFLOAD_OPTIMIZER_DEVICE": "none", "OFFLOAD_PARAM_DEVICE": "none", "CONFIG_FILE": "none"}
"""Settings of DeepSpeed that are supported, as accelerate's launcher passes them to the ranks."""


def make_accelerator(device: str) -> Accelerator:
    """Join the ranks of the run, which compute on `device` ("cuda:1" only where there is one rank).

    Raises RecipeError if the launcher asks for what is not supported.
    """
    uses_deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    process_group = InitProcessGroupKwargs(timeout=RANK_TIMEOUT)
    if uses_deepspeed:
        _check_deepspeed()
        if device == "cpu":
            # Without a backend accelerate sees a world size of 1 here, and with cpu=True no DeepSpeed.
            process_group.backend = "gloo"

    accelerator = Accelerator(
        cpu=device == "cpu" and not uses_deepspeed,
        mixed_precision="no",
        device_placement=False,
        kwargs_handlers=[process_group],
    )
    if uses_deepspeed and accelerator.device.type != torch.device(device).type:
        raise RecipeError(f'model.device: expected "{accelerator.device.type}", DeepSpeed\'s here, found "{device}"')
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        _check_fsdp(accelerator)
    return accelerator


def _check_deepspeed() -> None:
    """Raise RecipeError for settings of DeepSpeed that are not supported, MissingDependency if it is not installed."""
    for name, expected in ZERO.items():
        value = os.environ.get(f"ACCELERATE_DEEPSPEED_{name}", expected)
        if value != expected:
            raise RecipeError(f"{name.lower()}: expected {expected}, found {value}: examples/accelerate/zero2.yaml")
    with needs_extra("deepspeed"):
        import_module("deepspeed")


def _check_fsdp(accelerator: Accelerator) -> None:
    """Raise RecipeError for settings of FSDP that are not supported."""
    if not accelerator.is_fsdp2:
        raise RecipeError("only FSDP version 2, over GPUs, is supported: examples/accelerate/fsdp2.yaml")
    if accelerator.state.fsdp_plugin.cpu_ram_efficient_loading:
        raise RecipeError("fsdp_cpu_ram_efficient_loading: expected false: examples/accelerate/fsdp2.yaml")


class Trained(nn.Module):
    """A model whose forward pass is any function of it.

    DDP, FSDP2 and ZeRO-2 hook into the forward pass of the module that they wrap: what runs inside it has its
    parameters gathered and its gradients reduced, be it a loss, a rollout or an evaluation.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

        # The layers that FSDP shards one by one. A class may name layers of a part that this model is without, such as
        # sound in Gemma 4, and accelerate refuses names that it does not find.
        present = {type(module).__name__ for module in model.modules()}
        self._no_split_modules = [name for name in getattr(model, "_no_split_modules", None) or () if name in present]

    def forward(self, function: Any, *arguments: Any) -> Any:
        return function(*arguments)


def check_processes(recipe: Recipe, accelerator: Accelerator) -> None:
    """Raise RecipeError if the recipe does not suit the processes that were launched."""
    sharding: Sharding = "none"
    if is_sharded(accelerator):
        sharding = "fsdp2" if accelerator.is_fsdp2 else "zero2"
    check_layout(recipe, accelerator.num_processes, sharding)


def check_layout(recipe: Recipe, world_size: int, sharding: Sharding) -> None:
    """Raise RecipeError if the recipe does not suit so many processes, and what is divided over them."""
    smallest = min(phase.batch_size for phase in recipe.phases)
    if smallest < world_size:
        raise RecipeError(
            f"train.batch_size: expected a sample for each of {world_size} processes or more, found {smallest}"
        )
    for key, expected in NEEDED[sharding].items():
        value = attrgetter(key)(recipe)
        if value != expected:
            problem = f"expected {json.dumps(expected)}, found {json.dumps(value)}"
            raise RecipeError(f"{key}: in shards ({SHARDING_NAMES[sharding]}) {problem}: docs/training.md")


def is_sharded(accelerator: Accelerator) -> bool:
    """Return True if the optimizer's state, at least, is sharded over the ranks: by FSDP2 or ZeRO-2."""
    return bool(accelerator.is_fsdp2 or accelerator.distributed_type == DistributedType.DEEPSPEED)


def reduce_gradients(trained: Any, accelerator: Accelerator, *, last: bool) -> AbstractContextManager[Any]:
    """Surround a backward pass: DDP all-reduces gradients with the `last` one of a step.

    A sharded rank has no room for the gradients of other shards, so it reduces them with each pass.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        trained.set_gradient_accumulation_boundary(last)
    if last or is_sharded(accelerator):
        return nullcontext()
    no_sync: AbstractContextManager[Any] = accelerator.no_sync(trained)
    return no_sync


def wrap_frozen(accelerator: Accelerator, model: nn.Module) -> nn.Module:
    """Wrap a `model` that never trains, to be called with functions of it; under FSDP2 it is sharded.

    FSDP2 all-gathers one layer at a time and reshards it after use, so all ranks must call the model equally often.
    """
    trained = Trained(model)
    if accelerator.is_fsdp2:
        fsdp2_prepare_model(accelerator, trained).set_reshard_after_forward(True)
    return trained


def gather(items: Sequence[Item]) -> list[Item]:
    """All-gather Python objects: return the items of all ranks, in order of rank, on each."""
    if not dist.is_initialized():
        return list(items)
    gathered: list[Item] = gather_object(list(items))
    return gathered


def equal_passes(work: Sequence[Item]) -> Iterator[tuple[Item, bool]]:
    """Yield this rank's parts, equally many on all ranks, and whether each counts.

    Gradients are reduced and shards gathered in each pass, so a rank with fewer parts repeats its last, uncounted.
    """
    most = max(gather([len(work)]))
    for number in range(most):
        yield work[min(number, len(work) - 1)], number < len(work)


def gather_full_state(state: dict[str, Any], accelerator: Accelerator) -> dict[str, Any]:
    """Gather the sharded tensors of a state on the main rank; all ranks must call it."""

    def gather_tensor(shard: DTensor) -> Any:
        tensor = full_tensor(shard.to(accelerator.device))  # offloaded shards are gathered there too
        if not accelerator.is_main_process:
            return None  # one copy in memory, not one on each rank
        return tensor.cpu()

    full_state: dict[str, Any] = tree_map_only(DTensor, gather_tensor, state)
    return full_state


def shard_for_rank(state: dict[str, Any], parameters: Sequence[nn.Parameter]) -> dict[str, Any]:
    """Shard an optimizer's full state, each tensor as its parameter is: the inverse of `gather_full_state`."""

    def shard(parameter: nn.Parameter, value: Any) -> Any:
        # Other values, such as the number of steps, are the same on all ranks.
        if isinstance(parameter, DTensor) and getattr(value, "shape", None) == parameter.shape:
            sharded = distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
            return sharded.to(parameter.device)
        return value

    sharded = {}
    for index, values in state["state"].items():
        parameter = parameters[index]
        sharded[index] = {name: shard(parameter, value) for name, value in values.items()}
    return {**state, "state": sharded}


@contextmanager
def unshard_parameters(
    trained: nn.Module, accelerator: Accelerator, within: Iterable[nn.Module] | None = None
) -> Iterator[None]:
    """Unshard FSDP2 weights while sampling: ranks decode different lengths, so per-layer all-gathers would deadlock.

    Use it inside the forward pass of `trained`. The weights are those of all its modules, or of those `within`.
    """
    candidates = set(trained.modules() if within is None else within)
    modules: list[Any] = [m for m in trained.modules() if isinstance(m, FSDPModule) and m in candidates]

    # Without resharding after the forward pass, the weights stay whole for all tokens.
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            module.reshard()
            # FSDP2 keeps the root module unsharded after its forward pass.
            reshard = module is not trained and accelerator.state.fsdp_plugin.reshard_after_forward
            module.set_reshard_after_forward(reshard, recurse=False)


@contextmanager
def explain_lost_ranks() -> Iterator[None]:
    """Turn the errors that a rank gets when another has died into a TrainingError."""
    try:
        yield
    except RuntimeError as error:
        # NCCL raises errors of its own class; gloo's are known by their message alone.
        if isinstance(error, dist.DistError) or re.search(r"gloo.*(peer|pair|timed? ?out)", str(error), re.I | re.S):
            raise TrainingError(
                f"another process of this run has ended or cannot be reached; its own message says why ({error}). "
                "Launch the run again with --resume"
            ) from error
        raise
