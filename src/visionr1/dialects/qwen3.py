"""The dialect of Qwen3-VL: the JSON list of Qwen2.5-VL, with coordinates relative to the image, 0 to 1000.

The numbers are integers from 0 to 1000, both inclusive, whatever the size of the image or of the model's input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from visionr1.boxes import rescale_xyxy
from visionr1.dialects.base import NORM1000_WH, round_to_grid
from visionr1.dialects.json_list import parse_json_list, render_json_list
from visionr1.dialects.qwen25 import TEMPLATES
from visionr1.samples import Boxes, Reply, Size, Task


@dataclass(frozen=True, slots=True)
class Qwen3:
    """Qwen3-VL: JSON, coordinates 0 to 1000."""

    name: str = "qwen3"
    in_model_px: bool = False
    templates: ClassVar[Mapping[Task, str]] = TEMPLATES

    def grid_wh(self, input_size_wh: Size) -> tuple[float, float]:
        """See `Dialect.grid_wh`: 0 to 1000."""
        return NORM1000_WH

    def render(self, boxes: Boxes, *, size_wh: Size, input_size_wh: Size) -> str:
        """See `Dialect.render`; labels must not be blank (ValueError): the dialect cannot write such a one."""
        norm1000 = round_to_grid(rescale_xyxy(boxes.xyxy, size_wh, NORM1000_WH))
        return render_json_list(norm1000.astype(int).tolist(), boxes.labels)

    def parse(self, text: str, *, size_wh: Size, input_size_wh: Size, categories: Sequence[str] = ()) -> Reply:
        """See `Dialect.parse`."""
        return parse_json_list(text, grid_wh=NORM1000_WH, size_wh=size_wh, categories=categories)


DIALECT = Qwen3()
