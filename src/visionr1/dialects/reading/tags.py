"""Boxes in tags, `<ref>label</ref><box>...</box>`: which tags, and what stands in them, is the `TagForm` of a family.

Tags of other families are read as those of the dialect, and so are boxes in another form than the dialect's, each with
a fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from visionr1.dialects.reading.box_forms import is_placeholder
from visionr1.dialects.reading.brackets import BRACKETS, add_bracketed
from visionr1.dialects.reading.items import Items
from visionr1.dialects.reading.loose_json import read_number
from visionr1.samples import FaultKind

TAGS = ("<ref>", "</ref>", "<box>", "</box>")
"""Those of InternVL and MiniCPM-V, which stand for those of every family while a text is read."""
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
_COORDINATE_TOKEN = re.compile(r"<([0-9]{1,4})>")
"""One coordinate of Rex-Omni."""


def _read_four(numbers: Sequence[int]) -> list[float]:
    """Return the numbers of a box that is written as its four coordinates."""
    return [float(number) for number in numbers]


@dataclass(frozen=True, slots=True)
class TagForm:
    """How a family writes boxes in tags.

    `body` matches all that stands between the tags of boxes as it should, `box` one box in it, whose groups are
    numbers; without a `body` it is a list of lists, `[[x1, y1, x2, y2], ...]`.
    """

    tags: tuple[str, str, str, str] = TAGS
    """Of a reference and of its boxes, each the opening and the closing one."""
    body: re.Pattern[str] | None = None
    box: re.Pattern[str] = BRACKETS
    read_numbers: Callable[[Sequence[int]], list[float]] = _read_four
    """Return x1, y1, x2, y2 of the numbers of one box."""
    between: str = ""
    """A mark that may stand between references, beside white space."""
    may_repeat: bool = False
    """Several pairs of tags may stand behind one reference."""
    needs_reference: bool = True
    """If not, boxes alone are of the one category that was asked for."""
    ends_with_tag: bool = False
    """A box is complete only with its closing tag: its last number may have been cut off."""


LISTS = TagForm()
"""The form of InternVL."""


def with_plain_tags(text: str) -> str:
    """Return `text` with the box tags of other families as those of InternVL."""
    if "<|" in text:
        for tag, plain in _TAG_NAMES:
            text = text.replace(tag, plain)
    return text


def read_tags(text: str, items: Items, form: TagForm = LISTS) -> None:
    """Read boxes in plain tags (TAGS), each behind its reference, in the `form` of a dialect."""
    # Before each pair of tags stands its label; behind the last one there should be nothing.
    before, *bodies = text.split("<box>")
    label = ""
    for body_and_rest in bodies:
        label = _read_label(before, label, items, form)
        body, closing, before = body_and_rest.partition("</box>")
        _read_boxes(body, label, items, bool(closing), form)
    rest = before.strip()
    if rest:
        # It ends in the middle of a tag, of a reference, or between two.
        last_tag = rest[rest.rfind("<") :]
        is_cut_off = rest.startswith("<ref>") or any(tag.startswith(last_tag) for tag in (*TAGS, *form.tags))
        is_cut_off = is_cut_off or rest == form.between or rest.strip(form.between).strip().startswith("<ref>")
        kind = FaultKind.TRUNCATED if is_cut_off else FaultKind.SURROUNDING_TEXT
        items.fault(kind, f"after the last box: {rest[:60]!r}")


def _read_label(before: str, label_before: str, items: Items, form: TagForm) -> str:
    """Return the label in the text before boxes: `<ref>label</ref>` and nothing else; else that of those before."""
    if form.may_repeat and label_before and not before.strip():
        return label_before
    if not form.needs_reference and not before.strip() and len(items.categories) == 1:
        return items.categories[0]

    prose, opening, reference = before.rpartition("<ref>")
    label, closing, rest = reference.partition("</ref>")
    if prose.strip().strip(form.between) or rest.strip():
        detail = f"expected nothing but one reference, found {before[:60]!r}"
        items.fault(FaultKind.SURROUNDING_TEXT, detail)
    if not (opening and closing):
        detail = f"expected <ref>label</ref> before <box>, found {before[:60]!r}"
        items.fault(FaultKind.WRONG_KEYS, detail, items.count)
        return label.strip() if opening else ""
    return label


def _read_boxes(body: str, label: str, items: Items, closed: bool, form: TagForm) -> None:
    """Read the boxes between two tags; `closed` if the closing tag is there."""
    if form.body is not None and _read_own(body, label, items, closed, form):
        return
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
    if form.body is not None:
        items.fault(FaultKind.OTHER_BOX_FORM, f"boxes in another form than the dialect's: {body[:60]!r}")
    elif num_boxes == 0 or frame != "[" + ",".join("#" * num_boxes) + "]":
        items.fault(FaultKind.NOT_A_LIST, f"expected [[x1, y1, x2, y2], ...], found {body[:60]!r}")


def _read_own(body: str, label: str, items: Items, closed: bool, form: TagForm) -> bool:
    """Read boxes in the dialect's own form, and of a body that was cut off those that are complete; say if it is one.

    Raises nothing; the form has a `body`.
    """
    assert form.body is not None
    is_whole = closed and form.body.fullmatch(body) is not None
    if closed and not is_whole:
        return False
    boxes = list(form.box.finditer(body))
    if not closed and (form.ends_with_tag or not boxes):
        return False
    for box in boxes:
        items.add(form.read_numbers([int(number) for number in box.groups()]), label.strip())
    if not closed:
        items.fault(FaultKind.TRUNCATED, "the boxes do not end")
    return True


def read_pairs(body: str) -> list[list[float]]:
    """Return the boxes in a body of numbers without their own brackets, `10, 20, 110, 220` or `(10,20),(110,220)`.

    The coordinate tokens of Rex-Omni, `<10><20><110><220>`, are such numbers too.
    """
    body = _COORDINATE_TOKEN.sub(r" \1 ", body)
    if re.search(r"[^\s0-9.,;()\-]", body):
        return []
    texts = re.findall(r"-?[0-9]+(?:\.[0-9]+)?", body)
    numbers = [number for number in map(read_number, texts) if number is not None]
    if not numbers or len(numbers) % 4:
        return []
    return [numbers[start : start + 4] for start in range(0, len(numbers), 4)]
