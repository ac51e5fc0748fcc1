"""What the processes of one run need of each other, by accelerate. Alone, a process finds every one of these a no-op.

`accelerate launch` or `torchrun` starts the processes and says by its environment how the model is spread: whole on
each (DDP), in shards (FSDP2), or whole with its optimizer in shards (ZeRO-2, see `zero`). Each takes its share of a
step's samples, all completions of a sample on one process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from importlib import import_module
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedType
from accelerate.utils import InitProcessGroupKwargs, fsdp2_prepare_model, gather_object
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from visionr1.errors import RecipeError, TrainingError, needs_extra

Item = TypeVar("Item")
PATIENCE = timedelta(hours=2)
"""How long a process waits for another, which may be writing a checkpoint of 100 GB to a slow disk."""
ZERO = {"ZERO_STAGE": "2", "OFFLOAD_OPTIMIZER_DEVICE": "none", "OFFLOAD_PARAM_DEVICE": "none", "CONFIG_FILE": "none"}
"""What is supported of DeepSpeed, as accelerate's launcher says it to the processes."""


def make_accelerator(device: str) -> Accelerator:
    """This process among those of the run, which compute on `device` ("cuda:1" only where it is alone).

    Raises RecipeError if the launcher asks for what cannot be had.
    """
    zero, group = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true", InitProcessGroupKwargs(timeout=PATIENCE)
    if zero:
        for name, expected in ZERO.items():
            found = os.environ.get(f"ACCELERATE_DEEPSPEED_{name}", expected)
            if found != expected:
                raise RecipeError(f"{name.lower()}: expected {expected}, found {found}: examples/accelerate/zero2.yaml")
        with needs_extra("deepspeed"):
            import_module("deepspeed")
        if device == "cpu":
            group.backend = "gloo"  # without it accelerate counts one process here, and with cpu=True no DeepSpeed
    accelerator = Accelerator(
        cpu=device == "cpu" and not zero,
        mixed_precision="no",
        device_placement=False,
        kwargs_handlers=[group],
    )
    if zero and accelerator.device.type != torch.device(device).type:
        raise RecipeError(f'model.device: expected "{accelerator.device.type}", DeepSpeed\'s here, found "{device}"')
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        if not accelerator.is_fsdp2:
            raise RecipeError("only FSDP version 2, over GPUs, is supported: examples/accelerate/fsdp2.yaml")
        if accelerator.state.fsdp_plugin.cpu_ram_efficient_loading:
            raise RecipeError("fsdp_cpu_ram_efficient_loading: expected false: examples/accelerate/fsdp2.yaml")
    return accelerator


class Trained(nn.Module):
    """A model whose forward pass is any function of it: through here gradients are reduced and shards gathered."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._no_split_modules = getattr(model, "_no_split_modules", None)  # what FSDP shards one by one

    def forward(self, function: Any, *arguments: Any) -> Any:
        return function(*arguments)


def in_shards(accelerator: Accelerator) -> bool:
    """Whether the optimizer's state, at least, is cut up among processes: by FSDP2 or ZeRO-2."""
    return bool(accelerator.is_fsdp2 or accelerator.distributed_type == DistributedType.DEEPSPEED)


def summing(trained: Any, accelerator: Accelerator, *, last: bool) -> AbstractContextManager[Any]:
    """For a backward pass: processes add their gradients up with the `last` of a step, and shards, which have no room
    for those of others, with each."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        trained.set_gradient_accumulation_boundary(last)
    return nullcontext() if last or in_shards(accelerator) else accelerator.no_sync(trained)


def frozen(accelerator: Accelerator, model: nn.Module) -> nn.Module:
    """`model`, which never trains, to be called with functions of it; under FSDP2 in shards, of which one layer's are
    put together at a time, so that all processes must call it equally often."""
    trained = Trained(model)
    if accelerator.is_fsdp2:
        fsdp2_prepare_model(accelerator, trained).set_reshard_after_forward(True)
    return trained


def gather(items: Sequence[Item]) -> list[Item]:
    """The items of all processes, in order, on each."""
    if not dist.is_initialized():
        return list(items)
    gathered: list[Item] = gather_object(list(items))
    return gathered


def passes(work: Sequence[Item]) -> Iterator[tuple[Item, bool]]:
    """The parts of this process's work, as many on all processes, whose gradients and shards meet in each, and whether
    they count: who has fewer repeats its last."""
    for number in range(max(gather([len(work)]))):
        yield work[min(number, len(work) - 1)], number < len(work)


def whole_tensor(tensor: Tensor) -> Tensor:
    """A tensor put together from the processes' shards; all processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole(state: dict[str, Any], accelerator: Accelerator) -> dict[str, Any]:
    """A state in which shards of a tensor are put together, on the main process; all processes must call it."""

    def put_together(shard: DTensor) -> Any:
        tensor = shard.full_tensor()
        return tensor.cpu() if accelerator.is_main_process else None  # one copy in memory, not one a process

    collected: dict[str, Any] = tree_map_only(DTensor, put_together, state)
    return collected


def cut(state: dict[str, Any], parameters: Sequence[nn.Parameter]) -> dict[str, Any]:
    """An optimizer's state from `whole`, each tensor cut as its parameter is."""

    def shard(parameter: nn.Parameter, value: Any) -> Any:
        if isinstance(parameter, DTensor) and getattr(value, "shape", None) == parameter.shape:
            return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
        return value

    of_parameters = {
        index: {name: shard(parameters[index], value) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    return {**state, "state": of_parameters}


@contextmanager
def gathered(trained: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """Whole parameters inside this block: sampling takes as many passes as replies are long, which differs between
    processes, so that none may wait for another's shard. To be used in `trained`'s forward pass."""
    shards = _shards(trained)
    for module in shards:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in shards:
            module.reshard()
            module.set_reshard_after_forward(
                module is not trained and accelerator.state.fsdp_plugin.reshard_after_forward, recurse=False
            )


def _shards(trained: nn.Module) -> list[Any]:
    return [module for module in trained.modules() if isinstance(module, FSDPModule)]


@contextmanager
def lost_processes_named() -> Iterator[None]:
    """What a process meets when another one has died becomes a TrainingError."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or re.search(r"gloo.*(peer|pair|timed? ?out)", str(error), re.I | re.S):
            raise TrainingError(
                f"another process of this run has ended or cannot be reached; its own message says why ({error}). "
                "Launch the run again with --resume"
            ) from error
        raise
