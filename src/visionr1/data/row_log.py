"""Shared by every reader: ids, errors that name file, row and field, and the count of what was skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Literal

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
        kinds = (("skipped", self.skipped), ("adjusted", self.adjusted))
        return [
            f"{kind} {count} {reason.replace('_', ' ')}, first: {self.examples[reason]}"
            for kind, counts in kinds
            for reason, count in counts.items()
        ]


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
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and value:
        return int(value) if value.isascii() and value.isdecimal() else value
    return None


def is_safe_name(name: str) -> bool:
    """Return True if a file name from an annotation file stays below its image folder on every system."""
    path = PureWindowsPath(name)  # reads both / and \ as separators, and knows drive letters
    return bool(name) and "\0" not in name and not path.anchor and ".." not in path.parts
