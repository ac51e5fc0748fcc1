"""Data sets in, one file per format.

A new format is one file here that sets `READER`, an entry point `visionr1.reader` of an installed package, or an object
anywhere that a user names as `module:object` or `file.py:object` (docs/extending.md). The formats that only benchmarks
read set no READER, because their samples are more than boxes of categories: refer, grounding_files, d3, ovdeval, v3det.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visionr1.data.readers.base import Reader
from visionr1.errors import RecipeError
from visionr1.registry import Registry

__all__ = ["READERS", "Reader", "describe_readers", "find_reader", "resolve_reader"]


def _check_reader(value: Any) -> Reader:
    """Return what a user's `module:object` names; RecipeError if it is no reader."""
    if not isinstance(value, Reader):
        expected = "a visionr1.data.Reader (see docs/extending.md)"
        raise RecipeError(f"{value!r:.80} is no reader: expected {expected}")
    return value


READERS: Registry[Reader] = Registry(
    "reader", packages=("visionr1.data.readers",), attribute="READER", check=_check_reader
)


def resolve_reader(name: str | None) -> Reader | None:
    """Return the reader that a user's `name` means, `module:object` and `file.py:object` too; None for no name.

    The module is imported, so this is only for names that a user typed, in a recipe or on the command line.
    """
    return READERS.resolve(name) if name else None


def find_reader(path: Path) -> Reader:
    """Return the reader of the format that `path` looks like; COCO's, whose messages say what is missing, if none."""
    # The last come first, so that an installed package can take a format over.
    for name in reversed(READERS.names()):
        reader = READERS.known(name)
        if reader.sniff(path):
            return reader
    return READERS.known("coco")


def describe_readers() -> str:
    """Return what a data source may be, for messages and help texts."""
    *first, last = [READERS.known(name).description for name in READERS]
    return f"{', '.join(first)}, or {last}"
