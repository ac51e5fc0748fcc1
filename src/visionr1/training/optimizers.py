"""Optimizers by name: AdamW, or Muon for the matrices inside the towers with AdamW for the rest.

Muon (Jordan et al., 2024; torch.optim.Muon) makes each update of a matrix orthogonal. A small VLM that is trained from
random weights with it learns to localise in a fraction of the steps that AdamW takes (docs/base_model.md). Its updates
are scaled to the size of AdamW's, so one learning rate serves both.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from visionr1.training.distributed import full_tensor, shard_for_rank
from visionr1.training.recipe import OptimizerSection

NOT_IN_TOWERS = ("embed", "lm_head")  # embeddings and the output layer: tables, not maps


class Optimizer:
    """Several optimizers of disjoint parameters, used as one.

    A weight below float32 would lose a step of 1e-6: those in `masters` are trained as the float32 copies there, and
    rounded after each step.
    """

    def __init__(
        self, *parts: torch.optim.Optimizer, masters: Sequence[tuple[nn.Parameter, nn.Parameter]] = ()
    ) -> None:
        self.parts = list(parts)
        self.masters = masters

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of all parts."""
        return list(chain.from_iterable(part.param_groups for part in self.parts))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parts."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)
        for weight, _ in self.masters:
            weight.grad = None

    def clip(self, trained: nn.Module, accelerator: Accelerator, limit: float) -> Tensor:
        """Scale the gradient of `trained` down to norm `limit`; its norm before."""
        return full_tensor(accelerator.clip_grad_norm_(trained.parameters(), limit))

    @torch.no_grad()
    def step(self) -> None:
        """One step of each part."""
        for weight, master in self.masters:
            master.grad, weight.grad = None if weight.grad is None else weight.grad.float(), None
        for part in self.parts:
            part.step()
        for weight, master in self.masters:
            weight.copy_(master)
            master.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The parts' states, in order, and the float32 copies."""
        masters = [master.detach() for _, master in self.masters]
        return {"parts": [part.state_dict() for part in self.parts], "masters": masters}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`, whole; where processes hold shards of the parameters, each takes its own."""
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(shard_for_rank(own, [p for group in part.param_groups for p in group["params"]]))
        for (weight, master), own in zip(self.masters, state["masters"], strict=True):
            master.copy_(own)
            weight.copy_(master)


def make_optimizer(model: nn.Module, settings: OptimizerSection) -> Optimizer:
    """The optimizer that a recipe asks for; weight decay on matrices only."""
    weights = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    masters = {name: nn.Parameter(p.detach().float()) for name, p in weights.items() if p.dtype != torch.float32}
    pairs = [(weights[name], master) for name, master in masters.items()]
    named = list({**weights, **masters}.items())
    orthogonal = [p for name, p in named if settings.name == "muon" and _is_inner_matrix(name, p)]
    chosen = set(map(id, orthogonal))
    rest = [p for _, p in named if id(p) not in chosen]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(
        [group for group in groups if group["params"]],  # adapters are matrices all
        lr=0.0,
        betas=settings.betas,
        fused=True,
    )
    if not orthogonal:
        return Optimizer(adamw, masters=pairs)
    muon = torch.optim.Muon(orthogonal, lr=0.0, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw")
    return Optimizer(muon, adamw, masters=pairs)


def _is_inner_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and not any(part in name for part in NOT_IN_TOWERS)
