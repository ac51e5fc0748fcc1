"""Handing the policy's weights to a vLLM server: through a folder that both can read, or by NCCL.

Weights are gathered one by one, on all ranks together; rank 0 sends them. A failure of rank 0 must not leave the others
in a collective that it never joins, so it goes through the rest of the weights before it says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from visionr1.errors import TrainingError, needs_extra
from visionr1.models.adapters import gathered_weights, weight_shapes
from visionr1.models.folder.weight_names import as_in_folder
from visionr1.models.policy import Policy
from visionr1.rollout.vllm.server import Server

Shared = TypeVar("Shared")
BYTES_PER_FILE = 1 << 30
"""Weights that rank 0 holds in memory at once: files of a model are about this large."""


class Weights:
    """The policy's weights, one by one: an iterator of which the rest can be gone through when sending has failed.

    It is what vLLM calls a WeightSource: `metadata` says what an iteration yields, without gathering.
    """

    def __init__(self, policy: Policy) -> None:
        self._model = policy.model
        self._rest: Iterator[tuple[str, Tensor]] | None = None

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        self._rest = as_in_folder(self._model, gathered_weights(self._model))
        return self._rest

    def metadata(self) -> list[Any]:
        """Return vLLM's record of name, dtype and shape of each weight."""
        from vllm.distributed.weight_transfer.base import ParamMeta

        records = []
        for name, weight in as_in_folder(self._model, weight_shapes(self._model)):
            records.append(ParamMeta(name, weight.dtype, tuple(weight.shape)))
        return records

    def exhaust(self) -> None:
        """Gather what is left, which the other ranks wait for."""
        for _ in self if self._rest is None else self._rest:
            pass


class WorldSize(BaseModel):
    """The answer of /get_world_size: the server's own workers."""

    world_size: int


class Transfer(Protocol):
    """A way for weights to reach the server."""

    def send(self, weights: Weights) -> None:
        """Put the weights into the server's model; all ranks must call it, and rank 0 sends."""


class FolderTransfer:
    """Rank 0 writes safetensors files into a folder and has the server load them from there."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder

    def send(self, weights: Weights) -> None:
        """As in `Transfer`; the files are deleted once the server has read them."""
        if not is_sender():
            for _ in weights:
                pass
            return
        folder = self.folder / f"weights-{uuid4().hex[:8]}"
        try:
            folder.mkdir(parents=True)
            for number, part in enumerate(_parts(weights)):
                path = folder / f"model-{number:05}.safetensors"
                save_file(part, path, metadata={"format": "pt"})
                path.chmod(folder.stat().st_mode & 0o666)  # safetensors writes files that their owner alone can read
            body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
            self.server.post("/collective_rpc", body)
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"rollout.server_weights: cannot write weights to {folder}: {error}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class NCCLTransfer:
    """Rank 0 broadcasts weights to the server's GPUs, by the trainer's side of vLLM's own weight transfer."""

    def __init__(self, server: Server, policy: Policy) -> None:
        """Prepare to join the server's workers as one more rank, from the policy's GPU."""
        with needs_extra("vllm"):
            from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
            from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
            from vllm.utils.network_utils import get_ip, get_open_port

        self._factory = WeightTransferTrainerFactory
        self._client = UpdateClient(server)
        self._engine: Any = None
        torch.cuda.set_device(policy.device)  # NCCL's communicator opens on the current device
        path = "/get_world_size"
        world_size = server.read(server.get(path), WorldSize, path).world_size + 1
        self._info = NCCLTrainerInitInfo(
            rank=_rank(), master_address=get_ip(), master_port=get_open_port(), world_size=world_size
        )

    def send(self, weights: Weights) -> None:
        """As in `Transfer`."""
        if self._engine is None:
            self._engine = self._factory.trainer_init(self._info, client=self._client, source=weights)
        self._engine.source = weights
        try:
            self._engine.send_weights()
        except RuntimeError as error:  # NCCL's
            raise TrainingError(f"the policy's weights did not reach the vLLM server by NCCL: {error}") from error


class UpdateClient:
    """vLLM's protocol between its trainer engine and its server's control plane, with our errors and key."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Have the server's workers join the trainer's group."""
        self.server.post("/init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        """Begin an update."""
        self.server.post("/start_weight_update", {})

    def update_weights(self, update_info: Any) -> None:
        """Have the workers receive the weights that are described."""
        self.server.post("/update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """End an update."""
        self.server.post("/finish_weight_update", {} if weight_version is None else {"weight_version": weight_version})


def is_sender() -> bool:
    """Return True on the rank that talks to the server about weights."""
    return _rank() == 0


def share(value: Shared, device: torch.device) -> Shared:
    """Return rank 0's `value` on all ranks."""
    if not dist.is_initialized():
        return value
    values: list[Any] = [value]
    dist.broadcast_object_list(values, src=0, device=device)
    shared: Shared = values[0]
    return shared


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _parts(weights: Weights) -> Iterator[dict[str, Tensor]]:
    """Yield the weights on the CPU, as many at a time as a file holds."""
    part: dict[str, Tensor] = {}
    num_bytes = 0
    for name, weight in weights:
        part[name] = weight.cpu().contiguous()
        num_bytes += weight.nbytes
        if num_bytes >= BYTES_PER_FILE:
            yield part
            part = {}
            num_bytes = 0
    if part:
        yield part
