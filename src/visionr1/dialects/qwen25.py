"""The dialect of Qwen2.5-VL: a JSON list, integers in pixels of the model's input (the resized image).

```json
[
        {"bbox_2d": [x1, y1, x2, y2], "label": "name"}
]
```

The numbers run from 0 to the width and height of what the processor feeds to the model, both inclusive. The list may
stand bare or in one ```json fence; the empty reply is `[]`.
"""

from __future__ import annotations

from visionr1.dialects.json_dialect import TEMPLATES, JsonDialect

DIALECT = JsonDialect("qwen25", TEMPLATES, grid="input")
