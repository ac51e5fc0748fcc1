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

from collections.abc import Sequence
from dataclasses import dataclass

from visionr1.boxes import rescale_xyxy
from visionr1.dialects.base import round_to_grid
from visionr1.dialects.json_list import parse_json_list, render_json_list
from visionr1.samples import Boxes, Reply, Size


@dataclass(frozen=True, slots=True)
class Qwen25:
    """Qwen2.5-VL: JSON, coordinates in model pixels."""

    name: str = "qwen25"
    prompt_family: str = "qwen"
    in_model_px: bool = True

    def grid_wh(self, input_size_wh: Size) -> tuple[float, float]:
        """See `Dialect.grid_wh`: pixels of the model's input."""
        return input_size_wh

    def render(self, boxes: Boxes, *, size_wh: Size, input_size_wh: Size) -> str:
        """See `Dialect.render`; labels must not be blank (ValueError): the dialect cannot write such a one."""
        model_px = round_to_grid(rescale_xyxy(boxes.xyxy, size_wh, input_size_wh))
        return render_json_list(model_px.astype(int).tolist(), boxes.labels)

    def parse(self, text: str, *, size_wh: Size, input_size_wh: Size, categories: Sequence[str] = ()) -> Reply:
        """See `Dialect.parse`."""
        return parse_json_list(text, grid_wh=self.grid_wh(input_size_wh), size_wh=size_wh, categories=categories)
