"""Reading `[x1, y1, x2, y2]` from text that is no JSON: shared by the dialects that write boxes in brackets."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from visionr1.dialects.base import MAX_BOXES, check_encodable, read_reply
from visionr1.samples import Boxes, Fault, FaultKind, Reply, Size

BRACKETS = re.compile(r"\[[^\[\]]*+\]")
"""A complete box: brackets without a bracket inside."""

EMPTY = "None"
"""The reply of these dialects where there is no object."""

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?", re.ASCII)


def check_labels(labels: tuple[str, ...], marks: tuple[str, ...]) -> None:
    """Raise ValueError for a label that would not be read back: blank, of two lines, or holding one of the `marks`."""
    for index, label in enumerate(labels):
        if not label.strip():
            raise ValueError(f"box {index} has a blank label; every box needs a name to be written")
        check_encodable(label)
        problem = _find_problem(label, marks)
        if problem is not None:
            raise ValueError(f"box {index} is labelled {label!r}, but this dialect cannot write {problem}")


def _find_problem(label: str, marks: tuple[str, ...]) -> str | None:
    """Return the words for what keeps a label from being read back; None if nothing does."""
    for mark in marks:
        if mark in label:
            return f"one with {mark!r}"
    if label.splitlines() != [label]:
        return "more than one line"
    return None


@dataclass(slots=True)
class Items:
    """The items of a reply as they are read, one after the other, with their faults."""

    form: re.Pattern[str]
    """The form of a number in the dialect."""
    faults: list[Fault] = field(default_factory=list)
    numbers: list[list[float]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    count: int = 0
    known_faults: set[tuple[FaultKind, int | None]] = field(default_factory=set)

    def fault(self, kind: FaultKind, detail: str, item: int | None = None) -> None:
        """Note what is wrong with the text or with one item, once for each kind of fault."""
        if (kind, item) not in self.known_faults and (item or 0) <= MAX_BOXES:
            self.known_faults.add((kind, item))
            self.faults.append(Fault(kind, item, detail))

    def add(self, box: str, label: str) -> None:
        """Read one complete item: `box` is the text in the brackets."""
        position = self.count
        self.count += 1
        if position >= MAX_BOXES:
            return  # it counts as a prediction that matches nothing
        numbers = self._read_numbers(box.split(","), position)
        if numbers is None:
            return

        if not label.strip():
            self.fault(FaultKind.WRONG_KEYS, "a box without a label", position)
        self.numbers.append(numbers)
        self.labels.append(label.strip())
        self.positions.append(position)

    def reply(self, grid_wh: tuple[float, float], size_wh: Size, categories: tuple[str, ...]) -> Reply:
        """Return what was read, in original pixels."""
        if self.count > MAX_BOXES:
            detail = f"{self.count} items; {MAX_BOXES} are read"
            self.fault(FaultKind.TOO_MANY_BOXES, detail, MAX_BOXES)
        return read_reply(
            self.numbers,
            self.labels,
            self.positions,
            num_malformed=self.count - len(self.numbers),
            faults=self.faults,
            grid_wh=grid_wh,
            size_wh=size_wh,
            categories=categories,
        )

    def _read_numbers(self, parts: list[str], position: int) -> list[float] | None:
        """Return four numbers, None with a fault if they are no such; another form of a number is a fault alone."""
        texts = [part.strip() for part in parts]
        numbers = [float(text) for text in texts if _NUMBER.fullmatch(text)]

        # A large exponent reads as infinite, and an infinite box could not be clipped.
        if len(numbers) != 4 or len(texts) != 4 or not all(map(math.isfinite, numbers)):
            detail = f"expected four numbers, found {','.join(parts)[:60]!r}"
            self.fault(FaultKind.NOT_FOUR_NUMBERS, detail, position)
            return None
        if not all(map(self.form.fullmatch, texts)):
            detail = f"expected {self.form.pattern}, found {texts}"
            self.fault(FaultKind.WRONG_NUMBER_FORM, detail[:200], position)
        return numbers


def empty_or_unread(text: str) -> Reply:
    """Return the reply of a text without any item: the empty one, or one that cannot be read."""
    if text.strip() == EMPTY:
        return Reply(Boxes.empty())

    # A box without its end, or the beginning of the empty reply, was cut off.
    is_cut_off = "[" in text or (bool(text.strip()) and EMPTY.startswith(text.strip()))
    kind = FaultKind.TRUNCATED if is_cut_off else FaultKind.UNREADABLE
    fault = Fault(kind, None, f"no box and not {EMPTY!r}: {text[:60]!r}")
    return Reply(Boxes.empty(), faults=(fault,))
