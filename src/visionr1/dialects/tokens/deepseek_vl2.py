"""The dialect of DeepSeek-VL2: `<|ref|>label<|/ref|><|det|>[[x1, y1, x2, y2], ...]<|/det|>`, integers 0 to 999.

One reference names all boxes in the list behind it; 999 is the right or lower edge of the image, as its authors' code
draws it (deepseek-ai/DeepSeek-VL2, `parse_ref_bbox`). The empty reply is `None`.
"""

from __future__ import annotations

from visionr1.dialects.reading.tags import TagForm
from visionr1.dialects.tagged import TaggedDialect
from visionr1.samples import Task

TAGS = ("<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>")
TEMPLATES: dict[Task, str] = {
    "detection": "Find all the <|ref|>{}<|/ref|>",
    "grounding": "Locate <|ref|>{}<|/ref|> in the given image.",
    "referring": "Locate <|ref|>{}<|/ref|> in the given image.",
}
"""The authors' words: for one category or expression those of their paper (arXiv 2412.10302, visual grounding data),
for several those of an example of their demo (web_demo.py)."""

DIALECT = TaggedDialect(
    "deepseek_vl2", TEMPLATES, write_boxes=str, form=TagForm(TAGS), joiner="", span_wh=(999.0, 999.0)
)
