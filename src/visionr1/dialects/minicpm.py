"""The dialect of MiniCPM-V: `<ref>label</ref><box>x1 y1 x2 y2</box>`, integers 0 to 1000, a reference for each box.

References follow each other with white space or nothing between; further boxes of a label may do without one. Where
one category was asked for, a box may stand alone, `<box>x1 y1 x2 y2</box>`, as the released models answer. The empty
reply is `None`.
The form is its authors' (OpenBMB/MiniCPM-V issues 772 and 982, OpenSQZ/MiniCPM-V-CookBook issue 39).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from visionr1.dialects.reading.tags import TagForm
from visionr1.dialects.tagged import TaggedDialect
from visionr1.samples import Task

_ONE = "Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>"
TEMPLATES: dict[Task, str] = {
    "detection": "Please provide the bounding box coordinate of every object of these categories, each behind its "
    "<ref>name</ref>: {}",
    "grounding": _ONE,
    "referring": _ONE,
}
"""Its authors' answer in OpenBMB/MiniCPM-V issue 982, word for word; for a category set they state none."""

_BOX = re.compile(r"\s*+" + r"\s++".join([r"(-?+[0-9]{1,9})"] * 4) + r"\s*+", re.ASCII)


def _write(boxes: Sequence[Sequence[int]]) -> str:
    """Return the numbers of one box."""
    return " ".join(map(str, boxes[0]))


DIALECT = TaggedDialect(
    "minicpm",
    TEMPLATES,
    write_boxes=_write,
    form=TagForm(body=_BOX, box=_BOX, may_repeat=True, needs_reference=False, ends_with_tag=True),
    shares="nothing",
    joiner="\n",
)
