"""Shared by every reader: rows, errors that name file, row and field, and the count of what was skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, Literal, TypeGuard

from visionr1.data.ids import Id
from visionr1.errors import DataError

OnBad = Literal["raise", "skip"]


@dataclass(frozen=True, slots=True)
class ReadReport:
    """Counts by reason of what a reader left out (`skipped`) or changed (`adjusted`), with the first case of each."""

    skipped: Mapping[str, int] = field(default_factory=dict)
    adjusted: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)
    images_left_out: Mapping[Id, str] = field(default_factory=dict)
    """The images that are not used, by id, each with the reason that its first bad row was skipped for."""
    samples_left_out: frozenset[str] = frozenset()
    """The ids of samples that bad rows cost, where a row is a sample of its own."""
    notes: tuple[str, ...] = ()
    """Choices of the reader that a user should know, such as the list that the classes come from."""

    def lines(self) -> list[str]:
        """Return the notes, one line for each reason, and one for the images that are left out."""
        lines = list(self.notes)
        for kind, counts in (("skipped", self.skipped), ("adjusted", self.adjusted)):
            for reason, count in counts.items():
                words = reason.replace("_", " ")
                lines.append(f"{kind} {count} {words}, first: {self.examples[reason]}")

        # Rows and images are counted apart: one image may have several bad boxes.
        if self.images_left_out:
            counts = Counter(self.images_left_out.values())
            reasons = ", ".join(f"{count} for {reason.replace('_', ' ')}" for reason, count in counts.items())
            lines.append(f"images left out: {len(self.images_left_out)} ({reasons})")
        return lines


class RowLog:
    """Collect the report of one reading; in mode `raise` the first bad row is an error.

    An image with a row that cannot be used is left out as a whole: what is left of its truth would teach, and count,
    that nothing is where the lost box was.
    """

    def __init__(self, path: Path, on_bad: OnBad, report: ReadReport | None = None) -> None:
        """Start with nothing, or go on from the `report` of what was read before, such as the table of the samples."""
        report = report or ReadReport()
        self.path = path
        self.on_bad = on_bad
        self.images_left_out: dict[Id, str] = dict(report.images_left_out)
        self.samples_left_out: set[str] = set(report.samples_left_out)
        self._skipped: Counter[str] = Counter(report.skipped)
        self._adjusted: Counter[str] = Counter(report.adjusted)
        self._examples: dict[str, str] = dict(report.examples)
        self._notes: list[str] = list(report.notes)

    def bad(self, reason: str, where: str, message: str, *, image: Id | None = None) -> None:
        """Raise DataError for a row that cannot be used, or count it as skipped.

        `image` is the id of the image that the row belongs to, or is: it is left out. None: no image loses anything.
        """
        if self.on_bad == "raise":
            raise DataError(
                f"{self.path}: {where}: {message}; correct it, or skip such rows "
                "(--on-bad skip, in a recipe data.on_bad)"
            )
        self._skipped[reason] += 1
        self._examples.setdefault(reason, f"{where}: {message}")
        if image is not None:
            self.images_left_out.setdefault(image, reason)

    def adjust(self, reason: str, where: str, message: str) -> None:
        """Count something that a stated rule put right."""
        self._adjusted[reason] += 1
        self._examples.setdefault(reason, f"{where}: {message}")

    def note(self, line: str) -> None:
        """Keep a line about a choice that the reader made."""
        self._notes.append(line)

    def report(self) -> ReadReport:
        """Return what was collected so far."""
        return ReadReport(
            skipped=dict(self._skipped),
            adjusted=dict(self._adjusted),
            examples=dict(self._examples),
            images_left_out=dict(self.images_left_out),
            samples_left_out=frozenset(self.samples_left_out),
            notes=tuple(self._notes),
        )


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
        if is_file(place):
            return place
    return None


def is_file(path: Path) -> bool:
    """Return True for a regular file, also behind a link; False for what cannot be asked, such as too long a name."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_safe_name(name: str) -> bool:
    """Return True if a file name from an annotation file stays below its image folder on every system."""
    # Windows' rules are the stricter ones: / and \ both separate, and drive letters count.
    path = PureWindowsPath(name)
    return bool(name) and "\0" not in name and not path.anchor and ".." not in path.parts
