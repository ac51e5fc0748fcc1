"""Boxes as text in brackets, `[x1, y1, x2, y2]`, and their labels: shared by the dialects that are no JSON."""

from __future__ import annotations

import math
import re

from visionr1.dialects.base import check_encodable
from visionr1.dialects.reading.items import Items
from visionr1.samples import FaultKind

EMPTY = "None"
"""The reply of these dialects where there is no object."""
BRACKETS = re.compile(r"\[[^\[\]]*+\]")
"""A complete box: brackets without a bracket inside."""

_SEMICOLONS = re.compile(r"(?<=\d)\s?;\s?(?=\d)")
_BOX_AND_SEMICOLON = re.compile(r"\[\[\s?\d{1,4}(?:,\s?\d{1,4}){3}\s?;")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?", re.ASCII)


def split_boxes(text: str) -> str:
    """Return `text` with CogVLM's boxes of one list, `[[x1,y1,x2,y2;x1,y1,x2,y2]]`, in brackets of their own."""
    if ";" in text and _BOX_AND_SEMICOLON.search(text):
        return _SEMICOLONS.sub("],[", text)
    return text


def add_bracketed(items: Items, box: str, label: str, form: re.Pattern[str]) -> None:
    """Add one complete item: `box` is the text in the brackets, `form` that of a number in the dialect."""
    numbers = _read_numbers(items, box.split(","), form)
    items.add(numbers, label.strip())


def _read_numbers(items: Items, parts: list[str], form: re.Pattern[str]) -> list[float] | None:
    """Return four numbers, None with a fault if they are no such; another form of a number is a fault alone."""
    texts = [part.strip() for part in parts]
    numbers = [float(text) for text in texts if _NUMBER.fullmatch(text)]

    # A large exponent reads as infinite, and an infinite box could not be clipped.
    if len(numbers) != 4 or len(texts) != 4 or not all(map(math.isfinite, numbers)):
        detail = f"expected four numbers, found {','.join(parts)[:60]!r}"
        items.fault(FaultKind.NOT_FOUR_NUMBERS, detail, items.count)
        return None
    if not all(map(form.fullmatch, texts)):
        detail = f"expected {form.pattern}, found {texts}"
        items.fault(FaultKind.WRONG_NUMBER_FORM, detail[:200], items.count)
    return numbers


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
