"""Which parameters each optimizer moves, and that a checkpoint keeps all of its state."""

import importlib.util
import sys
from copy import deepcopy

import pytest
import torch
from torch import nn

from visionr1.errors import MissingDependency
from visionr1.training.optimizers import make_optimizer
from visionr1.training.recipe import OptimizerSection


def bitsandbytes(name: str) -> object:
    """An optimizer of a test's table that needs bitsandbytes."""
    missing = importlib.util.find_spec("bitsandbytes") is None
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason="bitsandbytes is not installed"))


NAMES = ["adamw", "muon", bitsandbytes("adamw_8bit")]


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


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_an_offloaded_optimizer_makes_the_same_steps(name: str, dtype: torch.dtype) -> None:
    """Its copies lie on the CPU, here beside the weights: what is left to compare is how they are moved."""
    near, far = model().to(dtype), model().to(dtype)
    optimizers = [
        make_optimizer(near, OptimizerSection(name=name)),  # type: ignore[arg-type]
        make_optimizer(far, OptimizerSection(name=name, offload=True)),  # type: ignore[arg-type]
    ]
    assert len(optimizers[1].masters) == len(list(far.parameters()))
    for _ in range(3):
        step(near, optimizers[0], 1e-3)
        step(far, optimizers[1], 1e-3)
    assert all(torch.equal(a, b) for a, b in zip(near.parameters(), far.parameters(), strict=True))


class Wide(nn.Module):
    """Weights of enough elements for moments of 8 bits, an embedding among them, and a bias that is too small."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed_tokens = nn.Embedding(100, 64)
        self.layer = nn.Linear(64, 100)


def random_step(network: nn.Module, optimizer: object, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=random)
    for group in optimizer.param_groups:  # type: ignore[attr-defined]
        group["lr"] = 1e-3
    optimizer.step()  # type: ignore[attr-defined]


def test_moments_of_8_bits() -> None:
    pytest.importorskip("bitsandbytes")
    exact, rounded = Wide(), Wide()
    optimizers = make_optimizer(exact, OptimizerSection()), make_optimizer(rounded, OptimizerSection(name="adamw_8bit"))
    start = deepcopy(exact.layer.weight)
    for seed in range(20):
        random_step(exact, optimizers[0], seed)
        random_step(rounded, optimizers[1], seed)

    # Those of embeddings and of small weights are exact, the others near.
    assert torch.equal(exact.embed_tokens.weight, rounded.embed_tokens.weight)
    torch.testing.assert_close(exact.layer.bias, rounded.layer.bias, atol=1e-6, rtol=0)
    difference = (exact.layer.weight - rounded.layer.weight).norm()
    assert 0 < difference < 0.05 * (exact.layer.weight - start).norm()
    assert optimizers[1].parts[1].state[rounded.layer.weight]["state1"].dtype == torch.uint8


def test_moments_of_8_bits_go_on_bit_for_bit() -> None:
    pytest.importorskip("bitsandbytes")
    settings = OptimizerSection(name="adamw_8bit")
    straight, resumed = Wide(), Wide()
    first = make_optimizer(straight, settings)
    for seed in range(3):
        random_step(straight, first, seed)
    resumed.load_state_dict(straight.state_dict())
    second = make_optimizer(resumed, settings)
    second.load_state_dict(deepcopy(first.state_dict()))
    for seed in range(3, 6):
        random_step(straight, first, seed)
        random_step(resumed, second, seed)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def test_moments_of_8_bits_of_another_shape_are_refused() -> None:
    pytest.importorskip("bitsandbytes")
    optimizer = make_optimizer(network := Wide(), OptimizerSection(name="adamw_8bit"))
    random_step(network, optimizer, 0)
    other = Wide()
    other.layer.weight = nn.Parameter(torch.zeros(64, 100))
    with pytest.raises(ValueError, match=r"a weight of shape \(64, 100\), found \(100, 64\)"):
        make_optimizer(other, OptimizerSection(name="adamw_8bit")).load_state_dict(optimizer.state_dict())


def test_a_missing_bitsandbytes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingDependency, match=r'pip install "visionr1\[bitsandbytes\]"'):
        make_optimizer(model(), OptimizerSection(name="adamw_8bit"))
