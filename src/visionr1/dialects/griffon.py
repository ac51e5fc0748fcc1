"""The dialect of Griffon: `label-[0.123,0.456,0.789,0.999]&label-[...]`, unit coordinates with three decimals.

The numbers run from 0.000 to 1.000 of the image's width and height; the empty reply is `None`. A label holds no bracket
and no line break.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from visionr1.boxes import rescale_xyxy
from visionr1.dialects.base import MAX_BOXES, NORM1000_WH, round_to_grid
from visionr1.dialects.reading.brackets import BRACKETS, EMPTY, add_bracketed, check_labels
from visionr1.dialects.reading.fallback import read_other
from visionr1.dialects.reading.items import Items, skip_thought
from visionr1.dialects.reading.labelled import label_before
from visionr1.dialects.reading.other_forms import holds_json
from visionr1.samples import Boxes, FaultKind, Reply, Size, Task, compose_text

TEMPLATES: dict[Task, str] = {
    "detection": "Examine the image for any objects from the category set. Report the coordinates of each detected "
    "object. The category set includes {}.",
    "grounding": "Locate the exact position of {} in the picture, if you can.",
    "referring": "Can you point out {} in the image and provide the coordinates of its location?",
}
"""Vision-R1 (arXiv 2503.18013), Table 8, word for word."""

UNIT_WH = (1.0, 1.0)
_THREE_DECIMALS = re.compile(r"[0-9]\.[0-9]{3}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Griffon:
    """Griffon and Griffon-G: plain text, unit coordinates."""

    name: str = "griffon"
    in_model_px: bool = False
    templates: ClassVar[Mapping[Task, str]] = TEMPLATES

    def grid_wh(self, *, size_wh: Size, input_size_wh: Size) -> tuple[float, float]:
        """See `Dialect.grid_wh`: 0 to 1."""
        return UNIT_WH

    def render(self, boxes: Boxes, *, size_wh: Size, input_size_wh: Size) -> str:
        """See `Dialect.render`; ValueError for a label that is blank or holds a bracket or a line break."""
        check_labels(boxes.labels, ("[", "]"))

        # Three decimals are thousandths, so the grid is that of 0 to 1000.
        thousandths = round_to_grid(rescale_xyxy(boxes.xyxy, size_wh, NORM1000_WH)).astype(int)
        items = []
        for box, label in zip(thousandths.tolist(), boxes.labels, strict=True):
            numbers = ",".join(f"{number // 1000}.{number % 1000:03d}" for number in box)
            items.append(f"{compose_text(label)}-[{numbers}]")
        return "&".join(items) or EMPTY

    def parse(self, text: str, *, size_wh: Size, input_size_wh: Size, categories: Sequence[str] = ()) -> Reply:
        """See `Dialect.parse`."""
        # The label of a box is the text between the box before it and its own.
        answer = skip_thought(text)
        items = Items(tuple(categories))
        if answer != text:
            items.fault(FaultKind.SURROUNDING_TEXT, f"a thought before the answer: {text[:60]!r}")
        end = 0
        if not holds_json(answer):
            for box in BRACKETS.finditer(answer):
                label = ""
                if items.count < MAX_BOXES:
                    label = _read_label(answer[end : box.start()], items)
                add_bracketed(items, box[0][1:-1], label, _THREE_DECIMALS)
                end = box.end()
        if not items.count:
            read_other(answer, items, reads_norm1000=False)
            return items.reply(UNIT_WH, size_wh)

        # Behind the last box there should be nothing.
        rest = answer[end:].strip()
        if rest:
            is_cut_off = rest.startswith("&") or "[" in rest
            kind = FaultKind.TRUNCATED if is_cut_off else FaultKind.SURROUNDING_TEXT
            items.fault(kind, f"after the last box: {rest[:60]!r}")
        return items.reply(UNIT_WH, size_wh)


def _read_label(before: str, items: Items) -> str:
    """Return the label in the text between two boxes: `&label-`, or `label-` before the first."""
    before = before.strip()
    if items.count and not before.startswith("&"):
        detail = f"expected & between two boxes, found {before[:60]!r}"
        items.fault(FaultKind.SURROUNDING_TEXT, detail)

    # The label is the last line; what stands before it is prose.
    label = before.removeprefix("&") if items.count else before
    *prose, label = label.splitlines() or [""]
    if prose or "]" in label or "[" in label:
        items.fault(FaultKind.SURROUNDING_TEXT, f"before a box: {before[:60]!r}")
    if not label.endswith("-"):
        detail = f"expected a label and - before the box, found {label[:60]!r}"
        items.fault(FaultKind.WRONG_KEYS, detail, items.count)
        return label_before(before, items.categories)

    # Behind another mark than & the label has that mark before it.
    if items.count and not before.startswith("&"):
        return label_before(before, items.categories)
    return label[:-1]


DIALECT = Griffon()
