"""Optimizers by name: AdamW, AdamW with moments of 8 bits, or Muon for the matrices inside the towers with AdamW for
the rest.

Muon (Jordan et al., 2024; torch.optim.Muon) makes each update of a matrix orthogonal. A small VLM that is trained from
random weights with it learns to localise in a fraction of the steps that AdamW takes (docs/base_model.md). Its updates
are scaled to the size of AdamW's, so one learning rate serves both.

8-bit AdamW (Dettmers et al., 2021; bitsandbytes) rounds the moments in blocks of 256. As its authors advise, moments of
embeddings stay float32, and so do those of weights below 4096 elements.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from visionr1.models.memory.bnb import import_bitsandbytes
from visionr1.models.weights import full_tensor
from visionr1.training.distributed import shard_for_rank
from visionr1.training.recipe import OptimizerSection

NOT_IN_TOWERS = ("embed", "lm_head")  # embeddings and the output layer: tables, not maps
ROUNDED = ("state1", "state2")
"""The moments in the state of bitsandbytes, which have the shape of their weight."""


class Optimizer:
    """Several optimizers of disjoint parameters, used as one.

    A weight below float32 would lose a step of 1e-6: those in `masters` are trained as the float32 copies there, and
    rounded after each step. Copies may lie on the CPU, where their moments then are too, and the step is done.
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
                master.grad = weight.grad.to(master.device, torch.float32)
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
        for value in _find_moments(values):
            check_shape(value, parameters[index])


def _find_moments(values: Mapping[str, Any]) -> Iterator[Tensor]:
    """Yield the tensors of a weight's state that have its shape."""
    for value in values.values():
        if isinstance(value, Mapping):  # of bitsandbytes, beside the tables and scales of the rounding
            yield from (value[name] for name in ROUNDED)
        elif isinstance(value, Tensor) and value.ndim:
            yield value


def check_shape(value: Tensor, parameter: Tensor) -> None:
    """Raise ValueError if `value`, of a saved state, has not the shape of its parameter."""
    if value.shape != parameter.shape:
        raise ValueError(
            f"expected the state of a weight of shape {tuple(parameter.shape)}, found {tuple(value.shape)}"
        )


@dataclass(slots=True)
class _Sorted:
    """The parameters that train, by how they are updated."""

    orthogonal: list[nn.Parameter] = field(default_factory=list)
    """Those of Muon."""
    tables: list[nn.Parameter] = field(default_factory=list)
    """Embeddings, where the moments of other weights are rounded."""
    matrices: list[nn.Parameter] = field(default_factory=list)
    vectors: list[nn.Parameter] = field(default_factory=list)


def make_optimizer(model: nn.Module, settings: OptimizerSection) -> Optimizer:
    """Return the optimizer that a recipe asks for; weight decay on matrices only."""
    parameters, masters = _sort_parameters(model, settings)

    # A group may be empty: adapters, for one, are all matrices. The schedule sets the rate before each step.
    groups: list[dict[str, Any]] = []
    if parameters.matrices:
        groups.append({"params": parameters.matrices, "weight_decay": settings.weight_decay})
    if parameters.vectors:
        groups.append({"params": parameters.vectors, "weight_decay": 0.0})
    parts: list[torch.optim.Optimizer] = []
    if settings.name == "adamw_8bit":
        adamw_8bit = import_bitsandbytes().optim.AdamW8bit
        if parameters.tables:
            tables = {"params": parameters.tables, "weight_decay": settings.weight_decay}
            parts.append(torch.optim.AdamW([tables], lr=0.0, betas=settings.betas, fused=True))
        if groups:
            parts.append(adamw_8bit(groups, lr=0.0, betas=settings.betas))
        return Optimizer(*parts, masters=masters)

    if parameters.orthogonal:
        decay = settings.weight_decay
        muon = torch.optim.Muon(parameters.orthogonal, lr=0.0, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        parts.append(muon)
    parts.append(torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, fused=True))
    return Optimizer(*parts, masters=masters)


def _sort_parameters(
    model: nn.Module, settings: OptimizerSection
) -> tuple[_Sorted, list[tuple[nn.Parameter, nn.Parameter]]]:
    """Sort what trains by how it is updated; return it with the weights that have a float32 copy in their place."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    masters: list[tuple[nn.Parameter, nn.Parameter]] = []
    parameters = _Sorted()
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        parameter = weight
        if weight.dtype != torch.float32 or settings.offload:
            device = torch.device("cpu") if settings.offload else weight.device
            parameter = nn.Parameter(weight.detach().to(device, torch.float32, copy=True))
            masters.append((weight, parameter))

        if settings.name == "muon" and _is_inner_matrix(name, parameter):
            parameters.orthogonal.append(parameter)
        elif settings.name == "adamw_8bit" and id(weight) in embeddings:
            parameters.tables.append(parameter)
        elif parameter.ndim >= 2:
            parameters.matrices.append(parameter)
        else:
            parameters.vectors.append(parameter)
    return parameters, masters


def _is_inner_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and not any(part in name for part in NOT_IN_TOWERS)
