"""The dialect of InternVL: `<ref>label</ref><box>[[x1, y1, x2, y2], ...]</box>`, integers 0 to 1000.

One reference names all boxes in the list behind it; references follow each other with white space or nothing between.
The empty reply is `None`. A label holds no tag of the dialect and no line break.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from visionr1.boxes import rescale_xyxy
from visionr1.dialects.base import NORM1000_WH, round_to_grid
from visionr1.dialects.reading.brackets import BRACKETS, EMPTY, check_labels, split_boxes
from visionr1.dialects.reading.fallback import read_other
from visionr1.dialects.reading.items import Items, skip_thought
from visionr1.dialects.reading.key_lines import read_key_lines
from visionr1.dialects.reading.labelled import read_labelled
from visionr1.dialects.reading.other_forms import holds_json
from visionr1.dialects.reading.tags import TAGS, read_tags, with_plain_tags
from visionr1.samples import Boxes, FaultKind, Reply, Size, Task, compose_text

TEMPLATES: dict[Task, str] = {
    "detection": "Please detect and label all objects in the following image and mark their positions. "
    "The category set includes {}.",
    "grounding": "Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>",
    "referring": "Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>",
}
"""InternVL's documentation (internvl.readthedocs.io, "Grounding/Detection Data"), for detection with the sentence for
the category set of Vision-R1, which does not cover InternVL."""


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
        check_labels(boxes.labels, TAGS)
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
        items = Items(tuple(categories))
        answer = with_plain_tags(split_boxes(skip_thought(text)))
        if "<box>" in answer:
            read_tags(answer, items)
        elif holds_json(answer) or not BRACKETS.search(answer):
            read_other(answer, items, reads_norm1000=True)
        else:
            read_key_lines(answer, items)
            if not items.count:
                read_labelled(answer, items)
            items.fault(FaultKind.OTHER_SYNTAX, f"no <ref> and <box> around label and boxes: {text[:60]!r}")
        if items.count and answer != text:
            items.fault(FaultKind.OTHER_SYNTAX, f"tags of another family, or a thought: {text[:60]!r}")
        return items.reply(NORM1000_WH, size_wh)


DIALECT = InternVL()
