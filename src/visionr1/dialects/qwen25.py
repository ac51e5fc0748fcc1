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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from visionr1.boxes import rescale_xyxy
from visionr1.dialects.base import round_to_grid
from visionr1.dialects.json_list import parse_json_list, render_json_list
from visionr1.samples import Boxes, Reply, Size, Task

TEMPLATES: dict[Task, str] = {
    "detection": "Locate every item from the category list in the image and output the coordinates in JSON format. "
    "The category set includes {}.",
    "grounding": "Locate every {} in the image and output the coordinates in JSON format.",
    "referring": "Locate every {} in the image and output the coordinates in JSON format.",
}
"""Vision-R1 (arXiv 2503.18013), Table 8, word for word."""


@dataclass(frozen=True, slots=True)
class Qwen25:
    """Qwen2.5-VL: JSON, coordinates in model pixels."""

    name: str = "qwen25"
    in_model_px: bool = True
    templates: ClassVar[Mapping[Task, str]] = TEMPLATES

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


DIALECT = Qwen25()
