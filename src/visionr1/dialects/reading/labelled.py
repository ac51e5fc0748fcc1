"""Boxes in brackets behind their labels, `cat[[x1, y1, x2, y2], ...]` or `cat: [x1, y1, x2, y2]`, in other text.

InternVL's replies look so where its tags, which are special tokens, are left out.
"""

from __future__ import annotations

import re

from visionr1.dialects.base import MAX_BOXES
from visionr1.dialects.reading.box_forms import is_placeholder
from visionr1.dialects.reading.brackets import BRACKETS, add_bracketed
from visionr1.dialects.reading.items import Items
from visionr1.dialects.reading.tags import INTEGER, TagForm
from visionr1.samples import FaultKind, normalize_label, normalized_labels

_BULLET = re.compile(r"\A(?:[-*•&,;.]|#{1,6}|and\b|[0-9]{1,3}[.)])\s*", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_OPEN_BOX = re.compile(r"[(<][^()<>]{0,20}\Z|>\Z")
_MARKS = " \t-–—:：=→|([*\"'`"
_MOST_LINES = 3
_LONGEST_LINE = 200
_MOST_WORDS = 8
"""Of a label that was not asked for; a longer text before a box is prose."""


def read_labelled(text: str, items: Items) -> None:
    """Read `label[[x1, y1, x2, y2], ...]`, with any text around; other brackets than of four or in a list are none."""
    label = ""
    end = 0
    labels_follow = _labels_follow(text, items.categories)
    for box in BRACKETS.finditer(text):
        # Between the boxes of one list stands no label.
        if labels_follow:
            label = _label_after(text, box.end())
        elif items.count < MAX_BOXES:
            before = text[end : box.start()]
            label = label_before(before, items.categories) if before.strip("[], \t\r\n") else label
        is_nested = text[box.start() - 1 : box.start()] == "["
        if (is_nested or box[0].count(",") == 3) and not is_placeholder(box[0]):
            add_bracketed(items, box[0][1:-1], label, INTEGER)
        end = box.end()

    # It was cut off if the text ends in a bracket that opened before.
    rest = text[end:].strip()
    if rest.strip("] ,;"):
        kind = FaultKind.TRUNCATED if "[" in rest else FaultKind.SURROUNDING_TEXT
        items.fault(kind, f"after the last box: {rest[:60]!r}")
    elif text.count("[") > text.count("]"):
        items.fault(FaultKind.TRUNCATED, "the list does not end")


def read_untagged(text: str, items: Items, form: TagForm) -> None:
    """Read boxes of a tagged form behind their labels where the tags, which are special tokens, were left out."""
    label = ""
    end = 0
    for box in form.box.finditer(text):
        # Between the boxes of one label stands no other.
        before = text[end : box.start()]
        if items.count < MAX_BOXES and before.strip(", \t\r\n"):
            label = label_before(before, items.categories)
        items.add(form.read_numbers([int(number) for number in box.groups()]), label)
        end = box.end()
    rest = text[end:].strip(", \t\r\n")
    if rest:
        kind = FaultKind.TRUNCATED if _OPEN_BOX.search(rest) else FaultKind.SURROUNDING_TEXT
        items.fault(kind, f"after the last box: {rest[:60]!r}")


def label_before(text: str, categories: tuple[str, ...]) -> str:
    """Return the label in the text before a box, without its marks; empty if there is only prose or nothing.

    It is the last line, `cat:` or `, dog`, if that was asked for, or the one category asked for that the line names,
    or the line itself if it is as short as a label; of a table's row the last cell, of tags the last.
    """
    label = ""
    for line in reversed(text.strip(" \t\r\n[],;&")[-_MOST_LINES * _LONGEST_LINE :].splitlines()[-_MOST_LINES:]):
        label = _BULLET.sub("", line[-_LONGEST_LINE:].strip(_MARKS), count=1).strip(_MARKS)
        label = label.replace("><", "|").rpartition("|")[2].strip(_MARKS)
        if label:
            break
    if not label or not categories or normalize_label(label) in normalized_labels(categories):
        return label

    words = f" {' '.join(re.findall(_WORD, label))} ".casefold()
    named = [category for category in categories if f" {normalize_label(category)} " in words]
    if len(named) == 1:
        return named[0]
    if len(categories) == 1 or len(label.split()) > _MOST_WORDS or label.startswith("<"):
        return ""
    return label


def _labels_follow(text: str, categories: tuple[str, ...]) -> bool:
    """Say if the first box has its label behind it, `[x1, y1, x2, y2] cat`, and none before."""
    first = BRACKETS.search(text)
    if first is None or not categories:
        return False
    known = normalized_labels(categories)
    before = label_before(text[: first.start()], categories)
    return normalize_label(before) not in known and normalize_label(_label_after(text, first.end())) in known


def _label_after(text: str, end: int) -> str:
    """Return the label in the line behind a box that ends at `end`, up to the next box."""
    line = text[end : end + _LONGEST_LINE].lstrip("]").partition("\n")[0]
    return line.partition("[")[0].strip(_MARKS + "],;.")
