"""The dialect of Qwen2-VL: `(x1,y1),(x2,y2)` in tags that are tokens, integers 0 to 1000.

    <|object_ref_start|>label<|object_ref_end|><|box_start|>(x1,y1),(x2,y2)<|box_end|>

Further boxes of the label follow in tags of their own, other references with white space or nothing between. Its
authors count to below 1000 (arXiv 2409.12191, section 2.2); 1000, which the right and lower edges of an image are, is
read and written as well. The empty reply is `None`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from visionr1.dialects.reading.tags import TagForm
from visionr1.dialects.tagged import TaggedDialect
from visionr1.samples import Task

TAGS = ("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>")
TEMPLATES: dict[Task, str] = {
    "detection": "Find and give the bounding box of every object of these categories: {}",
    "grounding": "Find and give the bounding box of <|object_ref_start|>{}<|object_ref_end|>",
    "referring": "Find and give the bounding box of <|object_ref_start|>{}<|object_ref_end|>",
}
"""The authors show answers and state no prompt; for one category this is what public code asks Qwen's models with."""

_POINT = r"\(\s*+(-?+[0-9]{1,9})\s*+,\s*+(-?+[0-9]{1,9})\s*+\)"
_CORNERS = rf"{_POINT}\s*+,\s*+{_POINT}"
_BOX, _BODY = re.compile(_CORNERS, re.ASCII), re.compile(rf"\s*+{_CORNERS}\s*+", re.ASCII)


def _write(boxes: Sequence[Sequence[int]]) -> str:
    """Return one box as two corners."""
    x1, y1, x2, y2 = boxes[0]
    return f"({x1},{y1}),({x2},{y2})"


DIALECT = TaggedDialect(
    "qwen2vl",
    TEMPLATES,
    write_boxes=_write,
    form=TagForm(TAGS, body=_BODY, box=_BOX, may_repeat=True, needs_reference=False),
    shares="reference",
)
