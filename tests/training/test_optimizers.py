"""Which parameters each optimizer moves, and that a checkpoint keeps all of its state."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from visionr1.training.optimizers import make_optimizer
from visionr1.training.recipe import OptimizerSection


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "embed_tokens": nn.Embedding(5, 4),
            "layer": nn.Linear(4, 4),
            "norm": nn.LayerNorm(4),
            "patch": nn.Conv3d(1, 2, 1),
            "lm_head": nn.Linear(4, 5, bias=False),
        }
    )


def step(network: nn.Module, optimizer: object, rate: float = 0.1) -> None:
    for index, parameter in enumerate(network.parameters()):
        parameter.grad = torch.full_like(parameter, 0.1 * (index + 1))
    for group in optimizer.param_groups:  # type: ignore[attr-defined]
        group["lr"] = rate
    optimizer.step()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_moves_and_only_matrices_decay(name: str) -> None:
    network = model()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = make_optimizer(network, OptimizerSection(name=name, weight_decay=0.1))  # type: ignore[arg-type]
    owned = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(owned) == sorted(map(id, network.parameters()))  # each in one group
    for group in optimizer.param_groups:
        assert all((p.ndim >= 2) == (group["weight_decay"] > 0) for p in group["params"])
    step(network, optimizer)
    assert all(not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_state_goes_on_as_if_it_had_not_stopped(name: str) -> None:
    settings = OptimizerSection(name=name)  # type: ignore[arg-type]
    straight, resumed = model(), model()
    first = make_optimizer(straight, settings)
    step(straight, first)
    resumed.load_state_dict(straight.state_dict())
    second = make_optimizer(resumed, settings)
    second.load_state_dict(deepcopy(first.state_dict()))  # as from a file
    step(straight, first)
    step(resumed, second)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def test_muon_takes_the_matrices_inside_only() -> None:
    network = model()
    plain = make_optimizer(network, OptimizerSection(name="adamw")).param_groups
    muon = make_optimizer(network, OptimizerSection(name="muon")).param_groups
    assert "momentum" not in plain[0]
    assert [[tuple(p.shape) for p in group["params"]] for group in muon if "momentum" in group] == [[(4, 4)]]


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_small_steps_add_up_in_bfloat16(name: str) -> None:
    """Each step is far below what bfloat16 tells apart; together they are what float32 makes of them."""
    settings, rate = OptimizerSection(name=name), 1e-5  # type: ignore[arg-type]
    exact, rounded = model().bfloat16().float(), model().bfloat16()
    start = [parameter.detach().clone() for parameter in rounded.parameters()]
    optimizers = make_optimizer(exact, settings), make_optimizer(rounded, settings)
    for count in range(400):
        step(exact, optimizers[0], rate)
        step(rounded, optimizers[1], rate)
        if not count:  # one step alone is lost in every weight that is not small
            assert torch.equal(rounded["norm"].weight, torch.ones(4, dtype=torch.bfloat16))
    assert not torch.equal(start[1], rounded["layer"].weight)
    masters = {id(weight): master for weight, master in optimizers[1].masters}
    for expected, weight in zip(exact.parameters(), rounded.parameters(), strict=True):
        torch.testing.assert_close(masters[id(weight)], expected, atol=1e-6, rtol=0)
        assert torch.equal(weight, masters[id(weight)].bfloat16())


def test_float32_copies_are_kept_in_checkpoints() -> None:
    straight, resumed = model().bfloat16(), model().bfloat16()
    first = make_optimizer(straight, OptimizerSection())
    step(straight, first, 1e-3)
    resumed.load_state_dict(straight.state_dict())
    second = make_optimizer(resumed, OptimizerSection())
    second.load_state_dict(deepcopy(first.state_dict()))
    step(straight, first, 1e-3)
    step(resumed, second, 1e-3)
    for (_, one), (_, other) in zip(first.masters, second.masters, strict=True):
        assert torch.equal(one, other)


def test_weights_that_do_not_train_have_no_state() -> None:
    network = model()
    network["embed_tokens"].requires_grad_(False)
    owned = {id(p) for group in make_optimizer(network, OptimizerSection()).param_groups for p in group["params"]}
    assert owned == {id(p) for p in network.parameters() if p.requires_grad}
    assert make_optimizer(network, OptimizerSection()).masters == []
