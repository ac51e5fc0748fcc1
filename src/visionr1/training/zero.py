"""ZeRO-2 (Rajbhandari et al., 2019) by DeepSpeed: whole weights on each process, gradients and AdamW's state in shards.

DeepSpeed's engine sums the gradients, steps its shard of the weights and hands the shards round. Clipping, withheld
steps and checkpoints it has too, by rules and in a format of its own; here they are done as without it, so that a run
is the same. What is known of it for that: it lays the weights of a parameter group end to end, in order, and cuts the
row into equal shards, one a process, the last one padded; `averaged_gradients` are a shard's pieces, group by group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedType
from torch import Tensor, nn

from visionr1.training.optimizers import Optimizer


class ShardedOptimizer(Optimizer):
    """AdamW of which each process holds a shard; what it saves and loads is as if one held it all."""

    def __init__(self, accelerator: Accelerator, trained: nn.Module, optimizer: Optimizer) -> None:
        """`trained` is run by `engine` from now on; `optimizer` has one part, and no float32 copies."""
        (adamw,) = optimizer.parts
        self.weights = [list(group["params"]) for group in adamw.param_groups]
        accelerator.state.deepspeed_plugin.deepspeed_config.update(
            train_micro_batch_size_per_gpu=1, gradient_accumulation_steps=1, gradient_clipping=0.0
        )
        self.engine, _ = accelerator.prepare(trained, adamw)
        super().__init__(adamw)  # in which the engine has put its shards in the weights' place

    def clip(self, trained: nn.Module, accelerator: Accelerator, limit: float) -> Tensor:
        """See `Optimizer`."""
        gradients = [part for group in self.engine.optimizer.averaged_gradients.values() for part in group]
        own = torch.stack([part.norm() for part in gradients]).square().sum()
        norm: Tensor = accelerator.reduce(own, "sum").sqrt()
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def step(self) -> None:
        """One step, after which the weights are whole again."""
        self.engine.step()

    def state_dict(self) -> dict[str, Any]:
        """The whole state, on the main process; all processes must call it."""
        states: dict[int, dict[str, Any]] = {}
        groups = []
        for weights, group in zip(self.weights, self.param_groups, strict=True):
            (shard,) = group["params"]
            first = len(states)
            groups.append({**group, "params": list(range(first, first + len(weights)))})
            for number, (weight, here, there) in enumerate(_overlaps(weights, len(shard)), first):
                held = self.parts[0].state[shard]
                states[number] = {name: _whole(value, weight, here, there) for name, value in held.items()}
        return {"parts": [{"state": states, "param_groups": groups}], "masters": []}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`, or from one of a process that held it all."""
        (saved,) = state["parts"]
        for weights, group, old in zip(self.weights, self.param_groups, saved["param_groups"], strict=True):
            (shard,) = group["params"]
            group.update({name: value for name, value in old.items() if name != "params"})
            held = self.parts[0].state[shard]
            for number, (_, here, there) in zip(old["params"], _overlaps(weights, len(shard)), strict=True):
                for name, value in saved["state"].get(number, {}).items():
                    if value.ndim:
                        held.setdefault(name, torch.zeros_like(shard))[here] = value.flatten()[there].to(shard.device)
                    else:
                        held[name] = value.to(shard.device)


def spread(trained: nn.Module, optimizer: Optimizer, accelerator: Accelerator) -> tuple[nn.Module, Optimizer]:
    """Model and optimizer as the processes of the launcher share them."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        sharded = ShardedOptimizer(accelerator, trained, optimizer)
        return sharded.engine, sharded
    trained, *optimizer.parts = accelerator.prepare(trained, *optimizer.parts)
    return trained, optimizer


def _overlaps(weights: Sequence[Tensor], size: int) -> Iterator[tuple[Tensor, slice, slice]]:
    """Each of a group's `weights`, and where this process's shard of `size` holds which part of it, flattened."""
    begin, first = dist.get_rank() * size, 0
    for weight in weights:
        low = max(first, begin)
        high = max(low, min(first + weight.numel(), begin + size))
        yield weight, slice(low - begin, high - begin), slice(low - first, high - first)
        first += weight.numel()


def _whole(value: Tensor, weight: Tensor, here: slice, there: slice) -> Tensor | None:
    """What `weight` has of the state `value` of a shard, put together on the main process."""
    if not value.ndim:  # how many steps there were, which every weight counts for itself
        return value.clone()
    whole = torch.zeros_like(weight).flatten()
    whole[there] = value[here]
    dist.reduce(whole, 0)
    return whole.view_as(weight).cpu() if dist.get_rank() == 0 else None
