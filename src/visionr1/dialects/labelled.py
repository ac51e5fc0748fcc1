"""Boxes in brackets behind their labels, `cat[[x1, y1, x2, y2], ...]` or `cat: [x1, y1, x2, y2]`, in other text.

InternVL's replies look so where its tags, which are special tokens, are left out.
"""

from __future__ import annotations

import re

from visionr1.dialects.base import MAX_BOXES
from visionr1.dialects.brackets import BRACKETS, add_bracketed
from visionr1.dialects.items import Items
from visionr1.dialects.tags import INTEGER
from visionr1.samples import FaultKind, normalize_label, normalized_labels

_BULLET = re.compile(r"\A(?:[-*•&,;.]|and\b|[0-9]{1,3}[.)])\s*", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_MARKS = " -:=([*\"'`"
_LONGEST_LINE = 200
_MOST_WORDS = 8
"""Of a label that was not asked for; a longer text before a box is prose."""


def read_labelled(text: str, items: Items) -> None:
    """Read `label[[x1, y1, x2, y2], ...]`, with any text around; other brackets than of four or in a list are none."""
    label = ""
    end = 0
    for box in BRACKETS.finditer(text):
        # Between the boxes of one list stands no label.
        if items.count < MAX_BOXES:
            before = text[end : box.start()]
            label = label_before(before, items.categories) if before.strip("[], \t\r\n") else label
        is_nested = text[box.start() - 1 : box.start()] == "["
        if is_nested or box[0].count(",") == 3:
            add_bracketed(items, box[0][1:-1], label, INTEGER)
        end = box.end()

    # It was cut off if the text ends in a bracket that opened before.
    rest = text[end:].strip()
    if rest.strip("] ,;"):
        kind = FaultKind.TRUNCATED if "[" in rest else FaultKind.SURROUNDING_TEXT
        items.fault(kind, f"after the last box: {rest[:60]!r}")
    elif text.count("[") > text.count("]"):
        items.fault(FaultKind.TRUNCATED, "the list does not end")


def label_before(text: str, categories: tuple[str, ...]) -> str:
    """Return the label in the text before a box, without its marks; empty if there is only prose or nothing.

    It is the last line, `cat:` or `, dog`, if that was asked for, or the one category asked for that the line names,
    or the line itself if it is as short as a label.
    """
    lines = text.strip(" \t\r\n[],;&").splitlines()
    if not lines:
        return ""
    label = _BULLET.sub("", lines[-1][-_LONGEST_LINE:].strip(), count=1).strip(_MARKS)
    if not categories or normalize_label(label) in normalized_labels(categories):
        return label

    words = f" {' '.join(re.findall(_WORD, label))} ".casefold()
    named = [category for category in categories if f" {normalize_label(category)} " in words]
    if len(named) == 1:
        return named[0]
    if len(categories) == 1 or len(label.split()) > _MOST_WORDS:
        return ""
    return label
