import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from visionr1.errors import TrainingError
from visionr1.training.faults import check_weights, explain_lost_workers, stop_signals


def test_a_run_in_another_thread_leaves_signals_alone() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def elsewhere() -> None:
        with stop_signals() as stopped:
            seen.append((list(stopped), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [([], before)]


def test_hangup_stops_a_run_like_sigterm_however_often_it_comes() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with stop_signals() as stopped:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert stopped == [signal.SIGHUP]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGHUP) is before


def test_hangup_stays_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stopped:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stopped == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_dead_worker_is_no_full_disk() -> None:
    message = "DataLoader worker (pid 7) is killed by signal: Killed. "
    expected = r"a worker .*killed, perhaps for memory .*pid 7.*--resume.*`workers`"
    with pytest.raises(TrainingError, match=expected), explain_lost_workers():
        raise RuntimeError(message)
    with pytest.raises(RuntimeError, match=r"^other$"), explain_lost_workers():
        raise RuntimeError("other")


def test_weights_that_are_not_finite_are_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    check_weights(model, 1, None)
    with torch.no_grad():
        model[1].weight[0, 0] = float("inf")
    with pytest.raises(TrainingError, match=r"step 3: 1 weight \(1\.weight\) is not finite .*last checkpoint: none"):
        check_weights(model, 3, None)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    message = r"6 weights \(0\.weight, 0\.bias, 1\.weight, \.\.\.\) are not finite .*last checkpoint: step_2"
    with pytest.raises(TrainingError, match=message):
        check_weights(model, 3, Path("step_2"))
