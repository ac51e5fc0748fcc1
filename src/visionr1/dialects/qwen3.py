"""The dialect of Qwen3-VL: the JSON list of Qwen2.5-VL, with coordinates relative to the image, 0 to 1000.

The numbers are integers from 0 to 1000, both inclusive, whatever the size of the image or of the model's input.
"""

from __future__ import annotations

from visionr1.dialects.json_dialect import TEMPLATES, JsonDialect

DIALECT = JsonDialect("qwen3", TEMPLATES, grid="1000")
