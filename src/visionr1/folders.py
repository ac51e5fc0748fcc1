"""Folders are written whole or not at all: into a hidden folder beside, synced, then renamed.

A kill at whatever moment leaves the hidden folders `.NAME.partial` and `.NAME.old`; `recover` makes of them the folder
as it was before or as it was to be.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """Make a new folder to write into, which takes the place of `final` or, if this block raises, is removed."""
    partial, old = _partial(final), _old(final)
    recover(final)
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in (*partial.rglob("*"), partial):
            sync(path)
        if final.exists():
            final.rename(old)
        partial.rename(final)
        sync(final.parent)
    finally:
        recover(final)


def recover(final: Path) -> None:
    """Put back what a kill left set aside while `final` was replaced, and remove what it left half written."""
    partial, old = _partial(final), _old(final)
    if old.exists() and not final.exists():
        old.rename(final)
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def interrupted(parent: Path) -> list[Path]:
    """Return the folders in `parent` that were being written, replaced or removed when a kill came."""
    hidden = (re.fullmatch(r"\.(.+)\.(partial|old)", path.name) for path in parent.glob(".*"))
    return sorted({parent / match[1] for match in hidden if match})


def remove_folder(folder: Path) -> None:
    """Remove a folder: it is gone at once, and what a kill leaves of it is hidden and `interrupted`."""
    shutil.rmtree(folder.rename(_partial(folder)), ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file or a folder's entries are on the disk.

    Some file systems (over a network, FUSE) cannot do that for a folder: its entries are then theirs to keep.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise
    finally:
        os.close(descriptor)


def _partial(final: Path) -> Path:
    return final.with_name(f".{final.name}.partial")


def _old(final: Path) -> Path:
    return final.with_name(f".{final.name}.old")
