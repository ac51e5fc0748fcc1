"""The dialect of Rex-Omni: coordinates are tokens, `<0>` to `<999>`, in the tags of Qwen2-VL.

    <|object_ref_start|>label<|object_ref_end|><|box_start|><x1><y1><x2><y2>, <x1><y1><x2><y2><|box_end|>, ...

Token 0 is the left or upper edge of the image, 999 the right or lower one. A category without an object is followed by
`<|box_start|>None<|box_end|>`; the empty reply as a whole is `None`. Form and prompt are those of its authors' code
(IDEA-Research/Rex-Omni, rex_omni/tasks.py and parser.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from visionr1.dialects.reading.tags import TagForm
from visionr1.dialects.tagged import TaggedDialect
from visionr1.dialects.tokens.qwen2vl import TAGS
from visionr1.samples import Task

_TEMPLATE = "Detect {}. Output the bounding box coordinates in [x0, y0, x1, y1] format."
TEMPLATES: dict[Task, str] = {"detection": _TEMPLATE, "grounding": _TEMPLATE, "referring": _TEMPLATE}
"""rex_omni/tasks.py, word for word, for detection and for referring expressions alike."""

_COORDINATES = r"\s*+".join([r"<([0-9]{1,9})>"] * 4)
_BOX = re.compile(_COORDINATES, re.ASCII)
_ONE = _COORDINATES.replace("(", "(?:")
_BODY = re.compile(rf"\s*+(?:None|{_ONE}(?:\s*+,?+\s*+{_ONE})*+)\s*+", re.ASCII)


def _write(boxes: Sequence[Sequence[int]]) -> str:
    """Return boxes as tokens."""
    texts = ["".join(f"<{number}>" for number in box) for box in boxes]
    return ", ".join(texts)


DIALECT = TaggedDialect(
    "rex",
    TEMPLATES,
    write_boxes=_write,
    form=TagForm(TAGS, body=_BODY, box=_BOX, between=","),
    joiner=", ",
    span_wh=(999.0, 999.0),
    more_tokens=tuple(f"<{number}>" for number in range(1000)),
)
