"""Pickles of annotations, read without running anything that is in them.

RefCOCO's `refs(...).p` and D3's `.pkl` are pickles, and an ordinary unpickler calls whatever a file names. This one
builds lists, tuples, dicts, sets, strings, bytes and numbers, and refuses a file that asks for more.
"""

from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

from visionr1.data.pickle_scan import check_pickle
from visionr1.errors import DataError, short_repr

MAX_BYTES = 1 << 30
"""The largest file that is read; the largest of these data sets is below 100 MB."""


def read_pickle(path: Path) -> Any:
    """Return the value in a pickle of plain containers, strings and numbers (Python 2's too, strings as UTF-8).

    Nothing in it is run. Raises DataError if it cannot be read, is larger than MAX_BYTES or names anything else.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(f"{path}: {size} bytes; pickles of more than {MAX_BYTES} are not read")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error

    # Python 2 wrote bytes for its strings: read them as UTF-8, as far as they are.
    try:
        check_pickle(content)
        return _Restricted(BytesIO(content), encoding="utf-8", errors="replace").load()
    except _Refused as error:
        raise DataError(
            f"{path}: this pickle asks for {error}, and only lists, dicts, sets, strings and numbers are read from "
            "pickles, for anything else could run code; get the file from its authors again, or convert it to JSON"
        ) from error
    except _BROKEN as error:
        raise DataError(f"{path} is not a pickle of plain data: {type(error).__name__}: {error!s:.200}") from error


class _Refused(pickle.UnpicklingError):
    """A name that is not on the list."""


class _Restricted(pickle.Unpickler):
    """An unpickler that gives out what `_ALLOWED` names, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Refused(f"{module}.{name}")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused(f"a persistent object {short_repr(pid)}")


class _Bytes:
    """How protocols below 3 write bytes, `bytes()` and `_codecs.encode(text, "latin1")`: no other size, no other codec.

    An object without attributes, for a pickle can set those of whatever it gets hold of.
    """

    __slots__ = ()

    def __call__(self, text: object = "", encoding: object = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise _Refused(f"bytes of {type(text).__name__} by {short_repr(encoding)}")
        return text.encode("latin-1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "bytes"): _Bytes(),
    # The same by Python 2's name of the module.
    ("__builtin__", "set"): set,
    ("__builtin__", "frozenset"): frozenset,
    ("__builtin__", "bytes"): _Bytes(),
    ("_codecs", "encode"): _Bytes(),
}
"""The names that a pickle may ask for, by module."""

_BROKEN = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What Python's unpickler raises on broken files."""
