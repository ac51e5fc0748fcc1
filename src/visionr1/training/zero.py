"""ZeRO-2 (Rajbhandari et al., 2019) by DeepSpeed: weights replicated on each rank, gradients and AdamW's state sharded.

DeepSpeed's engine reduces the gradients, steps its shard of the weights and all-gathers the shards. It also clips,
skips steps and writes checkpoints, by rules and in a format of its own; here these are done as without it, so that a
run is the same. That relies on DeepSpeed's layout: it concatenates the flattened weights of a parameter group, in
order, and cuts the result into equal shards, one for each rank, the last one padded; `averaged_gradients` are the
pieces of a rank's shard, group by group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedType
from torch import Tensor, nn

from visionr1.training.optimizers import Optimizer, check_state


class ShardedOptimizer(Optimizer):
    """AdamW of which each rank holds a shard; it saves and loads the full state."""

    def __init__(self, accelerator: Accelerator, trained: nn.Module, optimizer: Optimizer) -> None:
        """Hand `trained` to DeepSpeed, whose `engine` runs it from now on.

        `optimizer` must have one part and no float32 copies.
        """
        (adamw,) = optimizer.parts
        self.weights = [list(group["params"]) for group in adamw.param_groups]
        accelerator.state.deepspeed_plugin.deepspeed_config.update(
            train_micro_batch_size_per_gpu=1, gradient_accumulation_steps=1, gradient_clipping=0.0
        )
        self.engine, _ = accelerator.prepare(trained, adamw)
        super().__init__(adamw)  # the engine has put its shards in the weights' place

    def clip(self, trained: nn.Module, accelerator: Accelerator, limit: float) -> Tensor:
        """Scale the gradient down to norm `limit`; return its norm before, over all ranks."""
        gradients: list[Tensor] = []
        for group_gradients in self.engine.optimizer.averaged_gradients.values():
            gradients.extend(group_gradients)

        # Each rank has the gradient of its shard alone.
        norms = torch.stack([gradient.norm() for gradient in gradients])
        norm: Tensor = accelerator.reduce(norms.square().sum(), "sum").sqrt()

        # As torch.nn.utils.clip_grad_norm_ does it, so that a run is the same without shards.
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def step(self) -> None:
        """Step this rank's shard, then all-gather the weights."""
        self.engine.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the full state on the main rank; all ranks must call it."""
        states: dict[int, dict[str, Any]] = {}
        groups = []
        for weights, group in zip(self.weights, self.param_groups, strict=True):
            (shard,) = group["params"]
            shard_state = self.parts[0].state[shard]

            # Number the weights over all groups, as torch does.
            first = len(states)
            groups.append({**group, "params": list(range(first, first + len(weights)))})
            for number, (weight, in_shard, in_weight) in enumerate(_overlaps(weights, len(shard)), first):
                states[number] = {}
                for name, value in shard_state.items():
                    states[number][name] = _gather_full(value, weight, in_shard, in_weight)
        return {"parts": [{"state": states, "param_groups": groups}], "masters": []}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take this rank's shard of a full state, written by any number of ranks."""
        (saved,) = state["parts"]
        for weights, group, saved_group in zip(self.weights, self.param_groups, saved["param_groups"], strict=True):
            (shard,) = group["params"]
            shard_state = self.parts[0].state[shard]

            by_number = dict(zip(saved_group["params"], weights, strict=True))
            for number, weight in by_number.items():
                check_state({"state": {0: saved["state"].get(number, {})}}, [weight])

            # The group keeps its shard as its parameter; learning rate and the like are the saved ones.
            settings = {name: value for name, value in saved_group.items() if name != "params"}
            group.update(settings)

            overlaps = _overlaps(weights, len(shard))
            for number, (_, in_shard, in_weight) in zip(saved_group["params"], overlaps, strict=True):
                for name, value in saved["state"].get(number, {}).items():
                    if not value.ndim:  # the number of steps
                        shard_state[name] = value.to(shard.device)
                        continue
                    part = value.flatten()[in_weight].to(shard.device)
                    shard_state.setdefault(name, torch.zeros_like(shard))[in_shard] = part


def distribute(trained: nn.Module, optimizer: Optimizer, accelerator: Accelerator) -> tuple[nn.Module, Optimizer]:
    """Return model and optimizer as the launcher distributes them over the ranks."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        sharded = ShardedOptimizer(accelerator, trained, optimizer)
        return sharded.engine, sharded

    # DDP and FSDP2 wrap the model; accelerate points each part of the optimizer to the wrapped parameters.
    trained, *optimizer.parts = accelerator.prepare(trained, *optimizer.parts)
    return trained, optimizer


def _overlaps(weights: Sequence[Tensor], shard_size: int) -> Iterator[tuple[Tensor, slice, slice]]:
    """Yield each of a group's `weights` with the part that this rank's shard holds: its place in shard and weight.

    Both places are in flattened elements, and empty for a weight of another rank's shard.
    """
    shard_start = dist.get_rank() * shard_size
    weight_start = 0
    for weight in weights:
        low = max(weight_start, shard_start)
        high = max(low, min(weight_start + weight.numel(), shard_start + shard_size))
        in_shard = slice(low - shard_start, high - shard_start)
        in_weight = slice(low - weight_start, high - weight_start)
        yield weight, in_shard, in_weight
        weight_start += weight.numel()


def _gather_full(value: Tensor, weight: Tensor, in_shard: slice, in_weight: slice) -> Tensor | None:
    """Gather the part of the shards' state `value` that belongs to `weight`, on the main rank."""
    if not value.ndim:  # the number of steps, which torch keeps for each weight
        return value.clone()

    # The ranks' parts do not overlap, so the sum of all puts them together.
    full = torch.zeros_like(weight).flatten()
    full[in_weight] = value[in_shard]
    dist.reduce(full, 0)
    if dist.get_rank() != 0:
        return None
    return full.view_as(weight).cpu()
