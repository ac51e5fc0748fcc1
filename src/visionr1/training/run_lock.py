"""One process at a time writes a run's folder: an exclusive flock on RUN/.lock, held as long as the process writes.

The system gives the lock back when the process ends, however it ends, so nobody has to remove the file. Commands that
only add files of their own beside a run's (`eval --out`, `vqa`, `report`) need no lock: they write them whole.
"""

import errno
import fcntl
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visionr1.errors import TrainingError

LOCK_FILE = ".lock"
_NOT_SUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What a file system answers that has no locks."""

_held: set[int] = set()
"""Descriptors of the lock files that this process holds."""

_log = logging.getLogger(__name__)


@contextmanager
def lock_run(folder: Path, *, writes: bool = True) -> Iterator[None]:
    """Hold the lock of a run's folder, which is made if needed; ranks that write nothing do not ask for it.

    Raises TrainingError, which names the folder and the process, if another one holds it. On a file system that has no
    locks a warning says so, and the run goes on.
    """
    if not writes:
        yield
        return

    path = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise TrainingError(f"cannot write into {folder}: {error}; choose another --run-dir") from error

    _held.add(descriptor)
    try:
        if _take(descriptor, folder):
            _write_holder(descriptor, path)
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> bool:
    """Lock the open file; return False where the file system cannot, TrainingError if another process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 300, 0).decode(errors="replace").strip() or "another process"
        raise TrainingError(
            f"{folder} is in use: {holder} writes this run; wait until it has ended, or choose another --run-dir "
            "(docs/faq.md#a-run-folder-is-in-use)"
        ) from error
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise TrainingError(f"cannot lock {folder / LOCK_FILE}: {error.strerror}") from error
        _log.warning(
            "the file system of %s has no locks (%s): take care that no second process writes this run",
            *(folder, error.strerror),
        )
        return False
    return True


def _write_holder(descriptor: int, path: Path) -> None:
    """Write into the lock file which process holds it, for the message that another one gets."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error.strerror}; make room, or choose another --run-dir") from error


def _forget_in_child() -> None:
    """Close the lock files in a forked process: a worker that outlives a killed run would go on holding its lock."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
