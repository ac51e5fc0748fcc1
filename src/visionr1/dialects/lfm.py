"""The dialect of LFM2.5-VL: a JSON list of `{"label": "name", "bbox": [x1, y1, x2, y2]}`, coordinates from 0 to 1.

The numbers are relative to the image; any number of decimals is read, three are written. The empty reply is `[]`.
Liquid AI's model card names boxes and detection; the form and the prompt are those of public code that runs the model.
"""

from __future__ import annotations

from visionr1.dialects.json_dialect import JsonDialect
from visionr1.dialects.reading.json_form import JsonForm
from visionr1.samples import Task

_TEMPLATE = (
    'Detect all instances of: {}. Response must be a JSON array: [{"label": ..., "bbox": [x1, y1, x2, y2]}, ...]. '
    "Coordinates are normalized to [0,1]."
)
TEMPLATES: dict[Task, str] = {"detection": _TEMPLATE, "grounding": _TEMPLATE, "referring": _TEMPLATE}
"""The prompt of public code that runs LFM2.5-VL; its authors state none."""

DIALECT = JsonDialect("lfm", TEMPLATES, JsonForm("bbox", has_integers=False), grid="1", label_first=True)
