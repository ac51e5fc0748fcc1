"""Boxes in tags, `<ref>label</ref><box>[[x1, y1, x2, y2], ...]</box>`: several families write them, from 0 to 1000."""

from __future__ import annotations

import re

from visionr1.dialects.reading.box_forms import is_placeholder
from visionr1.dialects.reading.brackets import BRACKETS, add_bracketed
from visionr1.dialects.reading.items import Items
from visionr1.dialects.reading.loose_json import read_number
from visionr1.samples import FaultKind

TAGS = ("<ref>", "</ref>", "<box>", "</box>")
INTEGER = re.compile(r"-?[0-9]+", re.ASCII)
_TAG_NAMES = (
    ("<|object_ref_start|>", "<ref>"),
    ("<|object_ref_end|>", "</ref>"),
    ("<|box_start|>", "<box>"),
    ("<|box_end|>", "</box>"),
    ("<|ref|>", "<ref>"),
    ("<|/ref|>", "</ref>"),
    ("<|det|>", "<box>"),
    ("<|/det|>", "</box>"),
)
"""Tags of Qwen2-VL and DeepSeek-VL2, and those of InternVL that mean the same."""


def with_plain_tags(text: str) -> str:
    """Return `text` with the box tags of other families as those of InternVL."""
    if "<|" in text:
        for tag, plain in _TAG_NAMES:
            text = text.replace(tag, plain)
    return text


def read_tags(text: str, items: Items) -> None:
    """Read lists of boxes, each behind its reference."""
    # Before each list stands its label; behind the last one there should be nothing.
    before, *lists = text.split("<box>")
    for boxes in lists:
        label = _read_label(before, items)
        body, closing, before = boxes.partition("</box>")
        _read_boxes(body, label, items, bool(closing))
    rest = before.strip()
    if rest:
        # It ends in the middle of a tag, or of a reference.
        last_tag = rest[rest.rfind("<") :]
        is_cut_off = rest.startswith("<ref>") or any(tag.startswith(last_tag) for tag in TAGS)
        kind = FaultKind.TRUNCATED if is_cut_off else FaultKind.SURROUNDING_TEXT
        items.fault(kind, f"after the last box: {rest[:60]!r}")


def _read_label(before: str, items: Items) -> str:
    """Return the label in the text before a list of boxes: `<ref>label</ref>` and nothing else."""
    prose, opening, reference = before.rpartition("<ref>")
    label, closing, rest = reference.partition("</ref>")
    if prose.strip() or rest.strip():
        detail = f"expected nothing but one reference, found {before[:60]!r}"
        items.fault(FaultKind.SURROUNDING_TEXT, detail)
    if not (opening and closing):
        detail = f"expected <ref>label</ref> before <box>, found {before[:60]!r}"
        items.fault(FaultKind.WRONG_KEYS, detail, items.count)
        return label.strip() if opening else ""
    return label


def _read_boxes(body: str, label: str, items: Items, closed: bool) -> None:
    """Read the boxes of one list, `[[x1, y1, x2, y2], ...]`; `closed` if its end tag is there."""
    first = items.count
    for box in BRACKETS.finditer(body):
        if not is_placeholder(box[0]):
            add_bracketed(items, box[0][1:-1], label, INTEGER)
    if not closed:
        items.fault(FaultKind.TRUNCATED, "the list does not end")
        return

    # Numbers without brackets are boxes too; anything else is one that cannot be read, except a template.
    num_boxes = items.count - first
    if num_boxes == 0 and body.strip() and not is_placeholder(body):
        boxes = read_pairs(body)
        for numbers in boxes:
            items.fault(FaultKind.OTHER_BOX_FORM, f"numbers without brackets: {body[:60]!r}", items.count)
            items.add(numbers, label)
        if not boxes:
            items.fault(FaultKind.NOT_FOUR_NUMBERS, f"expected four numbers, found {body[:60]!r}", items.count)
            items.add(None, label)

    # Without its boxes the list must be brackets and commas alone.
    frame = "".join(BRACKETS.sub("#", body).split())
    if num_boxes == 0 or frame != "[" + ",".join("#" * num_boxes) + "]":
        items.fault(FaultKind.NOT_A_LIST, f"expected [[x1, y1, x2, y2], ...], found {body[:60]!r}")


def read_pairs(body: str) -> list[list[float]]:
    """Return the boxes in a body of numbers without their own brackets, `10, 20, 110, 220` or `(10,20),(110,220)`."""
    if re.search(r"[^\s0-9.,;()\-]", body):
        return []
    texts = re.findall(r"-?[0-9]+(?:\.[0-9]+)?", body)
    numbers = [number for number in map(read_number, texts) if number is not None]
    if not numbers or len(numbers) % 4:
        return []
    return [numbers[start : start + 4] for start in range(0, len(numbers), 4)]
