"""What ends a run before its end: signals, worker processes that are killed, weights that are not finite."""

import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from visionr1.errors import CheckpointError, TrainingError
from visionr1.models.weights import find_not_finite, name_tensors
from visionr1.training.distributed import gather

STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Signals after which a run stops with a checkpoint; SIGHUP comes when a terminal or an ssh connection is lost."""


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yield a list that is empty until the process is asked to stop; asked twice, it stops at once.

    Python delivers signals to the main thread alone: in another thread nothing changes.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def receive(number: int, frame: FrameType | None) -> None:
        # A lost terminal sends SIGHUP more than once, and each is the same request.
        if number in received and number == getattr(signal, "SIGHUP", None):
            return
        if received:
            raise KeyboardInterrupt
        received.append(number)

    handlers = {}
    for name in STOPPING:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        # Under nohup SIGHUP is ignored, and stays so.
        if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
            continue
        handlers[number] = signal.signal(number, receive)
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def is_lost_worker(error: BaseException) -> bool:
    """Return True for torch's error for a DataLoader worker that has died.

    It is raised by a signal handler, wherever the process is at that moment.
    """
    return isinstance(error, RuntimeError) and "DataLoader worker" in str(error)


@contextmanager
def explain_lost_workers() -> Iterator[None]:
    """Turn the error of a DataLoader worker that has died into a TrainingError."""
    try:
        yield
    except RuntimeError as error:
        if not is_lost_worker(error):
            raise
        reason = re.sub(r"\s+", " ", str(error)).strip()
        raise TrainingError(
            f"a worker process that prepares images was killed, perhaps for memory ({reason}); continue with --resume, "
            "and with fewer `workers` if it happens again (docs/faq.md#a-worker-was-killed)"
        ) from error


@contextmanager
def explain_unfit_state(checkpoint: Path) -> Iterator[None]:
    """Turn the errors of loading the state in `checkpoint` into CheckpointError: it is of another model or version."""
    try:
        yield
    except CheckpointError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{checkpoint / 'trainer_state.pt'} does not fit the model and recipe of this run "
            f"({type(error).__name__}: {reason:.300}): it is of another run or version; put back the file that belongs "
            f"to it, or delete {checkpoint}, and --resume goes on from the one before"
        ) from error


def find_not_finite_weights(model: nn.Module) -> list[str]:
    """Return the names of the parameters with a value that is not finite, of all ranks' shards, on each rank."""
    names = find_not_finite(_local_shards(model))
    return list(dict.fromkeys(gather(names)))  # each once: a weight may have shards on several ranks


def _local_shards(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter by its name, of a sharded one the part that this rank holds."""
    for name, parameter in model.named_parameters():
        yield name, parameter.to_local() if isinstance(parameter, DTensor) else parameter


def check_weights(model: nn.Module, step: int, checkpoint: Path | None) -> None:
    """Raise TrainingError, on all ranks, if a weight of `model` is not finite after `step`.

    `checkpoint` is the newest one, of which the message says that it is kept. All ranks must call it.
    """
    names = find_not_finite_weights(model)
    if names:
        raise TrainingError(
            f"step {step}: {name_tensors(names)} not finite (NaN or infinite), so nothing is written of this model; "
            f"last checkpoint: {checkpoint or 'none'}. --resume repeats the steps after it; start a new run with a "
            "lower learning rate, from a checkpoint by --model (docs/faq.md#weights-are-not-finite)"
        )


def explain_not_finite(
    metrics: Mapping[str, Any], updates_done: int, step: int, samples: Sequence[str], checkpoint: Path | None
) -> str:
    """Return the error message for a loss or gradient that is not finite, after `updates_done` updates of `step`.

    The weights are not kept: they may be the cause, and a checkpoint of them would take the place of a good one.
    """
    changed = "changed no weight"
    if updates_done:
        plural = "s" if updates_done > 1 else ""
        changed = f"made {updates_done} update{plural} before"
    return (
        f"step {step}: loss {metrics['loss']}, gradient norm {metrics['grad_norm']}; "
        f"samples: {', '.join(samples)}. The step {changed}; last checkpoint: {checkpoint or 'none'}. "
        "--resume repeats these steps; start a new run with a lower learning rate, from a checkpoint by --model"
    )
