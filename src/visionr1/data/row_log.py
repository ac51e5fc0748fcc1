"""Shared by every reader: rows and ids, errors that name file, row and field, and the count of what was skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, Literal, TypeGuard

from visionr1.errors import DataError

OnBad = Literal["raise", "skip"]
Id = int | str


@dataclass(frozen=True, slots=True)
class ReadReport:
    """Counts by reason of what a reader left out (`skipped`) or changed (`adjusted`), with the first case of each."""

    skipped: Mapping[str, int] = field(default_factory=dict)
    adjusted: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return one line for each reason."""
        lines = []
        for kind, counts in (("skipped", self.skipped), ("adjusted", self.adjusted)):
            for reason, count in counts.items():
                words = reason.replace("_", " ")
                lines.append(f"{kind} {count} {words}, first: {self.examples[reason]}")
        return lines


class RowLog:
    """Collect the report of one reading; in mode `raise` the first bad row is an error."""

    def __init__(self, path: Path, on_bad: OnBad) -> None:
        self.path = path
        self.on_bad = on_bad
        self._skipped: Counter[str] = Counter()
        self._adjusted: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def bad(self, reason: str, where: str, message: str) -> None:
        """Raise DataError for a row that cannot be used, or count it as skipped."""
        if self.on_bad == "raise":
            raise DataError(f"{self.path}: {where}: {message}; correct it, or skip such rows (--on-bad skip)")
        self._skipped[reason] += 1
        self._examples.setdefault(reason, f"{where}: {message}")

    def adjust(self, reason: str, where: str, message: str) -> None:
        """Count something that a stated rule put right."""
        self._adjusted[reason] += 1
        self._examples.setdefault(reason, f"{where}: {message}")

    def report(self) -> ReadReport:
        """Return what was collected so far."""
        return ReadReport(dict(self._skipped), dict(self._adjusted), dict(self._examples))


def read_id(value: object) -> Id | None:
    """Read an id as COCO's users write it: 7, 7.0 and "7" are the integer 7, other strings stay; None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)

    # isdecimal alone would also take the digits of other scripts.
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    if isinstance(value, str) and value:
        return value
    return None


def get_field(row: object, key: str) -> Any:
    """Return the value under `key` in a row; None if the row lacks it, or is no object."""
    if isinstance(row, dict):
        return row.get(key)
    return None


def is_object_list(value: object) -> TypeGuard[list[dict[str, Any]]]:
    """Return True for a list that holds nothing but objects, and for an empty list."""
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def is_name_list(value: object) -> TypeGuard[list[str]]:
    """Return True for a list that holds nothing but texts that are not blank, and for an empty list."""
    return isinstance(value, list) and all(isinstance(item, str) and item.strip() for item in value)


def first_file(places: Iterable[Path]) -> Path | None:
    """Return the first of `places` where there is a file; None if there is none."""
    for place in places:
        if place.is_file():
            return place
    return None


def is_safe_name(name: str) -> bool:
    """Return True if a file name from an annotation file stays below its image folder on every system."""
    # Windows' rules are the stricter ones: / and \ both separate, and drive letters count.
    path = PureWindowsPath(name)
    return bool(name) and "\0" not in name and not path.anchor and ".." not in path.parts
