"""The dialect of InternVL: `<ref>label</ref><box>[[x1, y1, x2, y2], ...]</box>`, integers 0 to 1000.

One reference names all boxes in the list behind it; references follow each other with white space or nothing between.
The empty reply is `None`. A label holds no tag of the dialect and no line break.
"""

from __future__ import annotations

from visionr1.dialects.tagged import TaggedDialect
from visionr1.samples import Task

TEMPLATES: dict[Task, str] = {
    "detection": "Please detect and label all objects in the following image and mark their positions. "
    "The category set includes {}.",
    "grounding": "Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>",
    "referring": "Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>",
}
"""InternVL's documentation (internvl.readthedocs.io, "Grounding/Detection Data"), for detection with the sentence for
the category set of Vision-R1, which does not cover InternVL."""

DIALECT = TaggedDialect("internvl", TEMPLATES, write_boxes=str, joiner="\n")
