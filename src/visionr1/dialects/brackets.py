"""Boxes as text in brackets, `[x1, y1, x2, y2]`: shared by the dialects that are no JSON."""

from __future__ import annotations

import math
import re

from visionr1.dialects.items import Items
from visionr1.samples import FaultKind

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
