"""Dialects of JSON: a list of items, one box each, which families write with other keys, orders and coordinates.

```json
[
        {"bbox_2d": [x1, y1, x2, y2], "label": "name"}
]
```

The list may stand bare or in one ```json fence; the empty reply is `[]`. A user names one by its form, without code:
`json:key=bbox,order=xyxy,grid=1`, of which every part may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from visionr1.boxes import Array, rescale_xyxy
from visionr1.dialects.base import NORM1000_WH, round_to_grid
from visionr1.dialects.json_list import parse_json_list, render_json_list
from visionr1.dialects.reading.json_form import QWEN_FORM, JsonForm
from visionr1.errors import RecipeError
from visionr1.samples import Boxes, Reply, Size, Task

JSON = "json:"
"""The beginning of the names of dialects that say their form."""
JSON_NAME = "json:key=bbox_2d,order=xyxy,grid=1000,label=label"
"""Such a name, with every part and what it is where it is left out."""

Grid = Literal["1000", "1", "input", "image"]
"""The coordinates: 0 to 1000, 0 to 1 with decimals, pixels of the model's input, pixels of the original image."""

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_ -]{0,39}")
_ORDERS = {"xyxy": "x1, y1, x2, y2", "yxyx": "y1, x1, y2, x2"}
_SPACES = {
    "1000": "integers from 0 to 1000, relative to the image",
    "1": "numbers from 0 to 1, relative to the image",
    "input": "integers in pixels of the image",
    "image": "integers in pixels of the image",
}
TEMPLATES: dict[Task, str] = {
    "detection": "Locate every item from the category list in the image and output the coordinates in JSON format. "
    "The category set includes {}.",
    "grounding": "Locate every {} in the image and output the coordinates in JSON format.",
    "referring": "Locate every {} in the image and output the coordinates in JSON format.",
}
"""Vision-R1 (arXiv 2503.18013), Table 8, word for word."""


@dataclass(frozen=True, slots=True)
class JsonDialect:
    """A list of JSON items in one form and one coordinate space."""

    name: str
    templates: Mapping[Task, str] = field(hash=False)
    form: JsonForm = QWEN_FORM
    grid: Grid = "1000"
    label_first: bool = False
    """The label is written before the box; in either order it is read."""

    @property
    def in_model_px(self) -> bool:
        """See `Dialect.in_model_px`."""
        return self.grid == "input"

    def grid_wh(self, *, size_wh: Size, input_size_wh: Size) -> tuple[float, float]:
        """See `Dialect.grid_wh`."""
        if self.grid == "1000":
            return NORM1000_WH
        if self.grid == "1":
            return (1.0, 1.0)
        return input_size_wh if self.grid == "input" else size_wh

    def render(self, boxes: Boxes, *, size_wh: Size, input_size_wh: Size) -> str:
        """See `Dialect.render`; labels must not be blank (ValueError): the dialect cannot write such a one."""
        # Coordinates from 0 to 1 are written as thousandths.
        is_unit = self.grid == "1"
        grid_wh = NORM1000_WH if is_unit else self.grid_wh(size_wh=size_wh, input_size_wh=input_size_wh)
        rounded = round_to_grid(rescale_xyxy(boxes.xyxy, size_wh, grid_wh))
        numbers: Array = rounded / 1000 if is_unit else rounded.astype(int)
        if self.form.y_first:
            numbers = numbers[:, [1, 0, 3, 2]]
        return render_json_list(numbers.tolist(), boxes.labels, self.form, label_first=self.label_first)

    def parse(self, text: str, *, size_wh: Size, input_size_wh: Size, categories: Sequence[str] = ()) -> Reply:
        """See `Dialect.parse`."""
        grid_wh = self.grid_wh(size_wh=size_wh, input_size_wh=input_size_wh)
        return parse_json_list(text, self.form, grid_wh=grid_wh, size_wh=size_wh, categories=categories)


def json_dialect(name: str) -> JsonDialect:
    """Return the dialect that `name` describes, `json:key=KEY,order=xyxy|yxyx,grid=1000|1|input|image,label=KEY|none`.

    Each part may be left out and stands for that of JSON_NAME then; the dialect's own name has all of them but a label
    key of that name. Raises RecipeError for a part that does not exist, stands twice or has another value.
    """
    parts = {"key": "bbox_2d", "order": "xyxy", "grid": "1000", "label": "label"}
    seen: set[str] = set()
    for part in filter(None, name.removeprefix(JSON).split(",")):
        key, equals, value = part.partition("=")
        if not equals or key not in parts:
            raise RecipeError(f"dialect {name!r}: expected parts as in {JSON_NAME!r}, found {part!r}")
        if key in seen:
            raise RecipeError(f"dialect {name!r}: {key} stands twice")
        seen.add(key)
        parts[key] = value

    # Keys go into the prompt and into every reply, so they are plain words.
    for part_name, choices in (("order", tuple(_ORDERS)), ("grid", tuple(_SPACES))):
        if parts[part_name] not in choices:
            found = parts[part_name]
            raise RecipeError(f"dialect {name!r}: {part_name}: expected one of {', '.join(choices)}, found {found!r}")
    for part_name in ("key", "label"):
        if not _KEY.fullmatch(parts[part_name]):
            found = parts[part_name]
            raise RecipeError(f"dialect {name!r}: {part_name}: expected a key such as bbox_2d, found {found!r}")
    if parts["key"] == parts["label"]:
        raise RecipeError(f"dialect {name!r}: key and label: expected two keys, found {parts['key']!r} for both")
    return _make(**parts)


def _make(key: str, order: str, grid: str, label: str) -> JsonDialect:
    """Return the dialect of checked parts, asked in the paper's words and told its form."""
    label_key = "" if label == "none" else label
    form = JsonForm(key, label_key, y_first=order == "yxyx", has_integers=grid != "1")
    item = f'{{"{key}": [{_ORDERS[order]}]'
    item += f', "{label_key}": "name"}}' if label_key else "}"
    sentence = f" Output a list of {item}, with coordinates as {_SPACES[grid]}."

    name = f"{JSON}key={key},order={order},grid={grid}"
    if label != "label":
        name += f",label={label}"
    templates = {task: template + sentence for task, template in TEMPLATES.items()}
    return JsonDialect(name, templates, form, grid)  # type: ignore[arg-type]
