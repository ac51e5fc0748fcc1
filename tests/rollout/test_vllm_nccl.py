"""Weights on their way to a vLLM server by NCCL: the trainer's side of vLLM's own transfer, without NCCL itself.

vLLM's classes are replaced by ones with their calls, and used themselves where vLLM is installed; what they would put
on the wire is handed to a stand-in for the server. With GPUs this has not run yet.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from support.random_models import build_qwen25, sharpen
from support.vllm_server import Refused, StandInServer, serving
from support.vllm_stand_in import load_by_names_of_folder
from visionr1.errors import MissingDependency, TrainingError
from visionr1.models.adapters import attach
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.settings import LoRASection
from visionr1.rollout.vllm.server import Server
from visionr1.rollout.vllm.transfer import NCCLTransfer, Weights

Pairs = Iterator[tuple[str, torch.Tensor]]
PACKAGE = "vllm.distributed.weight_transfer"


class Wire:
    """What rank 0 broadcasts."""

    def __init__(self) -> None:
        self.sent: dict[str, torch.Tensor] = {}

    def broadcast(self, pairs: Pairs) -> None:
        for name, tensor in pairs:
            assert name not in self.sent
            self.sent[name] = tensor.clone()


class ReceivingServer(StandInServer):
    """The server's side: workers that join once, and receive what they were told to expect."""

    def __init__(self, folder: Path, wire: Wire) -> None:
        super().__init__(folder)
        self.wire = wire
        self.joined: dict[str, Any] = {}
        self.is_updating = False
        self.expected: dict[str, Any] = {}

    def get_get_world_size(self, query: str) -> Any:
        return {"world_size": 2}

    def post_init_weight_transfer_engine(self, body: Any) -> Any:
        assert not self.joined
        self.joined = body["init_info"]
        return {"message": "Weight transfer initialized"}

    def post_start_weight_update(self, body: Any) -> Any:
        assert self.joined
        self.is_updating = True
        return {"message": "Weight update started"}

    def post_update_weights(self, body: Any) -> Any:
        assert self.is_updating
        info = body["update_info"]
        self.expected = dict(zip(info["names"], zip(info["dtype_names"], info["shapes"], strict=True), strict=True))
        return {"message": "Weights updated"}

    def post_finish_weight_update(self, body: Any) -> Any:
        for name, (dtype, shape) in self.expected.items():
            weight = self.wire.sent[name]
            assert (str(weight.dtype), list(weight.shape)) == (f"torch.{dtype}", shape)
        load_by_names_of_folder(self.policy, self.wire.sent)
        self.is_updating = False
        return {"message": "Weight update finished"}


@dataclass
class ParamMeta:
    """vLLM's record of a weight."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class StandInTrainer:
    """vLLM's trainer engine by NCCL, as far as it does anything but NCCL's calls."""

    def __init__(self, wire: Wire, client: Any, source: Any) -> None:
        self.wire = wire
        self.client = client
        self.source = source

    def send_weights(self) -> None:
        meta = self.source.metadata()
        info = {
            "names": [one.name for one in meta],
            "dtype_names": [str(one.dtype).split(".")[-1] for one in meta],
            "shapes": [list(one.shape) for one in meta],
        }
        self.client.start_weight_update()
        self.client.update_weights(info)
        self.wire.broadcast(iter(self.source))
        assert list(self.wire.sent) == info["names"]  # both enumerate the same weights in the same order
        self.client.finish_weight_update()


def install_stand_in(monkeypatch: pytest.MonkeyPatch, wire: Wire) -> None:
    """vLLM's modules, with what is imported of them."""

    @dataclass(kw_only=True)
    class NCCLTrainerInitInfo:
        rank: int
        master_address: str
        master_port: int
        world_size: int

    def trainer_init(init_info: NCCLTrainerInitInfo, *, client: Any, source: Any) -> StandInTrainer:
        client.init_weight_transfer_engine({"rank_offset": 1, "world_size": init_info.world_size})
        return StandInTrainer(wire, client, source)

    contents: dict[str, dict[str, Any]] = {
        f"{PACKAGE}.base": {"ParamMeta": ParamMeta},
        f"{PACKAGE}.factory": {"WeightTransferTrainerFactory": SimpleNamespace(trainer_init=trainer_init)},
        f"{PACKAGE}.nccl_engine": {"NCCLTrainerInitInfo": NCCLTrainerInitInfo},
        "vllm.utils.network_utils": {"get_ip": lambda: "10.0.0.1", "get_open_port": lambda: 29501},
        "vllm": {},
        "vllm.distributed": {},
        "vllm.utils": {},
        PACKAGE: {},
    }
    for name, content in contents.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)


def patch_vllm(monkeypatch: pytest.MonkeyPatch, wire: Wire) -> None:
    """vLLM itself, but for the calls of NCCL."""
    module = f"{PACKAGE}.nccl_engine"
    monkeypatch.setattr(f"{module}.open_trainer_endpoint", lambda info: object())
    monkeypatch.setattr(f"{module}.packed_nccl_broadcast_producer", lambda iterator, **_: wire.broadcast(iterator))


INSTALL: dict[str, Callable[[pytest.MonkeyPatch, Wire], None]] = {"stand-in": install_stand_in, "vllm": patch_vllm}


@pytest.fixture(params=INSTALL)
def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Wire:
    if request.param == "vllm" and importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: make test-vllm")
    wire = Wire()
    INSTALL[request.param](monkeypatch, wire)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    return wire


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, qwen3_folder: Path) -> Path:
    return build_qwen25(tmp_path_factory.mktemp("nccl") / "qwen25", qwen3_folder, layers=1)


@pytest.fixture
def policy(folder: Path) -> Policy:
    policy = load_policy(folder)
    attach(policy.model, LoRASection(rank=2), seed=0, base="base")
    for name, parameter in policy.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.constant_(parameter, 0.01)
    return policy


def test_weights_reach_the_server_as_they_were_announced(folder: Path, policy: Policy, wire: Wire) -> None:
    """Before and after an update, with adapters merged in, by the names of the folder; the workers join once."""
    state = ReceivingServer(folder, wire)
    with serving(state) as url:
        transfer = NCCLTransfer(Server(url, 60.0), policy)
        for factor in (1.0, 2.0):
            sharpen(policy, factor)
            wire.sent.clear()
            transfer.send(Weights(policy))
            expected = dict(Weights(policy))
            assert wire.sent.keys() == expected.keys()
            for name, weight in expected.items():
                assert torch.equal(wire.sent[name], weight)
    assert state.joined["world_size"] == 3  # two workers, and rank 0 of the trainer
    assert state.joined["rank_offset"] == 1


def test_a_server_that_refuses_an_update_ends_the_run(folder: Path, policy: Policy, wire: Wire) -> None:
    state = ReceivingServer(folder, wire)
    with serving(state) as url:
        transfer = NCCLTransfer(Server(url, 60.0), policy)

        def refuse(body: Any) -> Any:
            raise Refused(500, "Worker failed")

        state.post_start_weight_update = refuse  # type: ignore[method-assign]
        weights = Weights(policy)
        with pytest.raises(TrainingError, match=r"refuses /start_weight_update \(500\): Worker failed"):
            transfer.send(weights)
        weights.exhaust()  # for the other ranks


def test_an_answer_without_the_number_of_workers_is_named(folder: Path, policy: Policy, wire: Wire) -> None:
    state = ReceivingServer(folder, wire)
    state.get_get_world_size = lambda query: {}  # type: ignore[method-assign]
    with serving(state) as url, pytest.raises(TrainingError, match="answers /get_world_size in another form"):
        NCCLTransfer(Server(url, 60.0), policy)


def test_the_trainer_needs_vllm_for_it(folder: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vllm", f"{PACKAGE}.factory"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=r'pip install "visionr1\[vllm\]"'):
        NCCLTransfer(Server("http://127.0.0.1:9", 1.0), policy)
