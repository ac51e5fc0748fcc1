"""Optimizers by name: AdamW, or Muon for the matrices inside the towers with AdamW for the rest.

Muon (Jordan et al., 2024; torch.optim.Muon) makes each update of a matrix orthogonal. A small VLM that is trained from
random weights with it learns to localise in a fraction of the steps that AdamW takes (docs/base_model.md). Its updates
are scaled to the size of AdamW's, so one learning rate serves both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from visionr1.models.weights import full_tensor
from visionr1.training.distributed import shard_for_rank
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
        """The parameter groups of all parts, in order."""
        groups: list[dict[str, Any]] = []
        for part in self.parts:
            groups.extend(part.param_groups)
        return groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parts."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)
        for weight, _ in self.masters:
            weight.grad = None

    def clip(self, trained: nn.Module, accelerator: Accelerator, limit: float) -> Tensor:
        """Scale the gradient of `trained` down to norm `limit`; return its norm before."""
        return full_tensor(accelerator.clip_grad_norm_(trained.parameters(), limit))

    @torch.no_grad()
    def step(self) -> None:
        """Do one step of each part."""
        # The parts hold the float32 copies, so these need the gradients.
        for weight, master in self.masters:
            if weight.grad is None:
                master.grad = None
            else:
                master.grad = weight.grad.float()
            weight.grad = None

        for part in self.parts:
            part.step()

        # The model computes with the rounded weights.
        for weight, master in self.masters:
            weight.copy_(master)
            master.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the parts' states, in order, and the float32 copies."""
        parts = [part.state_dict() for part in self.parts]
        masters = [master.detach() for _, master in self.masters]
        return {"parts": parts, "masters": masters}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a full `state_dict`; where ranks hold shards of the parameters, each takes its own."""
        for part, full_state in zip(self.parts, state["parts"], strict=True):
            # torch numbers the parameters of a state over all groups.
            parameters: list[nn.Parameter] = []
            for group in part.param_groups:
                parameters.extend(group["params"])
            check_state(full_state, parameters)
            part.load_state_dict(shard_for_rank(full_state, parameters))

        for (weight, master), saved_master in zip(self.masters, state["masters"], strict=True):
            check_shape(saved_master, master)
            master.copy_(saved_master)
            weight.copy_(master)


def check_state(state: Mapping[str, Any], parameters: Sequence[Tensor]) -> None:
    """Raise ValueError if a part's full state is not of `parameters`: torch itself looks at their number alone."""
    for index, values in state["state"].items():
        if not 0 <= index < len(parameters):
            raise ValueError(f"expected the state of {len(parameters)} weights, found one of number {index}")
        for value in values.values():
            if isinstance(value, Tensor) and value.ndim:
                check_shape(value, parameters[index])


def check_shape(value: Tensor, parameter: Tensor) -> None:
    """Raise ValueError if `value`, of a saved state, has not the shape of its parameter."""
    if value.shape != parameter.shape:
        raise ValueError(
            f"expected the state of a weight of shape {tuple(parameter.shape)}, found {tuple(value.shape)}"
        )


def make_optimizer(model: nn.Module, settings: OptimizerSection) -> Optimizer:
    """Return the optimizer that a recipe asks for; weight decay on matrices only."""
    # Sort what trains by how it is updated; a float32 copy takes the place of a weight of lower precision.
    masters: list[tuple[nn.Parameter, nn.Parameter]] = []
    orthogonal: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        parameter = weight
        if weight.dtype != torch.float32:
            parameter = nn.Parameter(weight.detach().float())
            masters.append((weight, parameter))

        if settings.name == "muon" and _is_inner_matrix(name, parameter):
            orthogonal.append(parameter)
        elif parameter.ndim >= 2:
            matrices.append(parameter)
        else:
            vectors.append(parameter)

    # A group may be empty: adapters, for one, are all matrices.
    groups: list[dict[str, Any]] = []
    if matrices:
        groups.append({"params": matrices, "weight_decay": settings.weight_decay})
    if vectors:
        groups.append({"params": vectors, "weight_decay": 0.0})

    # The schedule sets the learning rate before each step.
    adamw = torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, fused=True)
    if not orthogonal:
        return Optimizer(adamw, masters=masters)
    muon = torch.optim.Muon(orthogonal, lr=0.0, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw")
    return Optimizer(muon, adamw, masters=masters)


def _is_inner_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and not any(part in name for part in NOT_IN_TOWERS)
