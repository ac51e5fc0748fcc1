"""The lock of a run's folder: one process at a time writes it."""

import errno
import fcntl
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from visionr1.errors import TrainingError
from visionr1.training.run_lock import LOCK_FILE, lock_run

HOLD = """
import sys
from pathlib import Path
from visionr1.training.run_lock import lock_run
with lock_run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        message = rf"run is in use: process {holder.pid} on .*another --run-dir"
        with pytest.raises(TrainingError, match=message), lock_run(folder):
            raise AssertionError("two processes hold one lock")

        # However it ends, the system gives the lock back.
        holder.kill()
        holder.wait()
    with lock_run(folder):
        assert (folder / LOCK_FILE).read_text().startswith(f"process {os.getpid()} on ")


def test_two_runs_of_one_process_cannot_share_a_folder(tmp_path: Path) -> None:
    with lock_run(tmp_path), pytest.raises(TrainingError, match="is in use"), lock_run(tmp_path):
        raise AssertionError("one lock is held twice")
    with lock_run(tmp_path):
        pass


def test_a_worker_that_outlives_a_run_does_not_hold_its_lock(tmp_path: Path) -> None:
    begun, begins = os.pipe()
    ended, ends = os.pipe()
    with lock_run(tmp_path):
        child = os.fork()
        if child == 0:
            os.close(ends)
            os.write(begins, b".")
            os.read(ended, 1)  # until the test closes its end
            os._exit(0)
        os.read(begun, 1)
    try:
        with lock_run(tmp_path):
            pass
    finally:
        os.close(ends)
        os.waitpid(child, 0)
        for descriptor in (begun, begins, ended):
            os.close(descriptor)


def test_ranks_that_write_nothing_need_no_lock(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with lock_run(folder, writes=False):
        assert not folder.exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL])
def test_a_file_system_without_locks_is_named_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING), lock_run(tmp_path):
        pass
    assert f"the file system of {tmp_path} has no locks" in caplog.text


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = r"cannot write into .*file/run: .*choose another --run-dir"
    with pytest.raises(TrainingError, match=message), lock_run(tmp_path / "file/run"):
        raise AssertionError("there is no such folder")
