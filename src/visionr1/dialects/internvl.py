"""The dialect of InternVL: `<ref>label</ref><box>[[x1, y1, x2, y2], ...]</box>`, integers 0 to 1000.

One reference names all boxes in the list behind it; references follow each other with white space or nothing between.
The empty reply is `None`. A label holds no tag of the dialect and no line break.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from visionr1.boxes import rescale_xyxy
from visionr1.dialects.base import NORM1000_WH, round_to_grid
from visionr1.dialects.bracketed import BRACKETS, EMPTY, Items, check_labels, empty_or_unread
from visionr1.samples import Boxes, FaultKind, Reply, Size, Task, compose_text

TEMPLATES: dict[Task, str] = {
    "detection": "Please detect and label all objects in the following image and mark their positions. "
    "The category set includes {}.",
    "grounding": "Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>",
    "referring": "Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>",
}
"""InternVL's documentation (internvl.readthedocs.io, "Grounding/Detection Data"), for detection with the sentence for
the category set of Vision-R1, which does not cover InternVL."""

_TAGS = ("<ref>", "</ref>", "<box>", "</box>")
_INTEGER = re.compile(r"-?[0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class InternVL:
    """InternVL 2, 2.5 and 3: tags, coordinates 0 to 1000."""

    name: str = "internvl"
    in_model_px: bool = False
    templates: ClassVar[Mapping[Task, str]] = TEMPLATES

    def grid_wh(self, input_size_wh: Size) -> tuple[float, float]:
        """See `Dialect.grid_wh`: 0 to 1000."""
        return NORM1000_WH

    def render(self, boxes: Boxes, *, size_wh: Size, input_size_wh: Size) -> str:
        """See `Dialect.render`: neighbours of one label share a reference.

        ValueError for a label that is blank or holds a tag of the dialect or a line break.
        """
        check_labels(boxes.labels, _TAGS)
        norm1000 = round_to_grid(rescale_xyxy(boxes.xyxy, size_wh, NORM1000_WH)).astype(int)

        # The labels as they follow each other, each with the boxes behind it.
        references: list[tuple[str, list[list[int]]]] = []
        for label, box in zip(boxes.labels, norm1000.tolist(), strict=True):
            if not references or references[-1][0] != label:
                references.append((label, []))
            references[-1][1].append(box)
        lines = [f"<ref>{compose_text(label)}</ref><box>{numbers}</box>" for label, numbers in references]
        return "\n".join(lines) or EMPTY

    def parse(self, text: str, *, size_wh: Size, input_size_wh: Size, categories: Sequence[str] = ()) -> Reply:
        """See `Dialect.parse`. Boxes whose list was cut off count as far as they are complete."""
        items = Items(_INTEGER)
        before, *lists = text.split("<box>")
        if not lists:
            return empty_or_unread(text)

        # Before each list stands its label; behind the last one there should be nothing.
        for boxes in lists:
            label = _read_label(before, items)
            body, closing, before = boxes.partition("</box>")
            _read_boxes(body, label, items, bool(closing))
        rest = before.strip()
        if rest:
            # It ends in the middle of a tag, or of a reference.
            last_tag = rest[rest.rfind("<") :]
            is_cut_off = rest.startswith("<ref>") or any(tag.startswith(last_tag) for tag in _TAGS)
            kind = FaultKind.TRUNCATED if is_cut_off else FaultKind.SURROUNDING_TEXT
            items.fault(kind, f"after the last box: {rest[:60]!r}")
        return items.reply(NORM1000_WH, size_wh, tuple(categories))


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
        return ""
    return label


def _read_boxes(body: str, label: str, items: Items, closed: bool) -> None:
    """Read the boxes of one list, `[[x1, y1, x2, y2], ...]`; `closed` if its end tag is there."""
    first = items.count
    for box in BRACKETS.finditer(body):
        items.add(box[0][1:-1], label)
    if not closed:
        items.fault(FaultKind.TRUNCATED, "the list does not end")
        return

    # Without its boxes the list must be brackets and commas alone.
    num_boxes = items.count - first
    frame = "".join(BRACKETS.sub("#", body).split())
    if num_boxes == 0 or frame != "[" + ",".join("#" * num_boxes) + "]":
        items.fault(FaultKind.NOT_A_LIST, f"expected [[x1, y1, x2, y2], ...], found {body[:60]!r}")


DIALECT = InternVL()
