"""The dialect of Gemini, in which Gemma 3 and 4 answer: a JSON list of `{"box_2d": [y1, x1, y2, x2], "label": "name"}`.

The numbers are integers from 0 to 1000, relative to the image, and y comes first. The empty reply is `[]`.
Google states the form for Gemini (ai.google.dev/gemini-api/docs/image-understanding); of Gemma 3 it says that nothing
is documented and that it is likely as Gemini's, of Gemma 4 it is what public fine-tunes and demos use.
"""

from __future__ import annotations

from visionr1.dialects.json_dialect import JsonDialect
from visionr1.dialects.reading.json_form import JsonForm
from visionr1.samples import Task

_FORM = " The box_2d should be [ymin, xmin, ymax, xmax] normalized to 0-1000."
TEMPLATES: dict[Task, str] = {
    "detection": "Detect all of these items in the image: {}. Output a JSON list with box_2d and label." + _FORM,
    "grounding": "Detect every {} in the image. Output a JSON list with box_2d and label." + _FORM,
    "referring": "Detect {} in the image. Output a JSON list with box_2d and label." + _FORM,
}
"""The last sentence is Google's, word for word ("Detect the all of the prominent items in the image. The box_2d ...",
ai.google.dev/gemini-api/docs/image-understanding). Google asks for no categories, and for JSON by a setting."""

DIALECT = JsonDialect("gemini", TEMPLATES, JsonForm("box_2d", y_first=True))
