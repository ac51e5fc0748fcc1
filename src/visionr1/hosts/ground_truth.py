"""One self-contained JSON text per row: all that a reward needs, in the one column that every host hands through.

    {"version": 1, "preset": "paper", "dialect": "qwen25",
     "boxes": [[x1, y1, x2, y2], ...], "labels": ["cat", ...], "categories": ["cat", "dog"],
     "width": 640, "height": 480, "input_width": 644, "input_height": 476}

Boxes are xyxy pixels of the original image of `width` x `height`; `input_width` x `input_height` is what the processor
feeds to the model (grid x patch size). `progress`, optional, is the share of training done when the row is reached, for
hosts that tell a reward no step. The names of the fields are those of `visionr1 score`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from visionr1.dialects import DIALECTS
from visionr1.errors import DataError
from visionr1.samples import Boxes, GroundTruth

VERSION = 1
PRESETS = ("paper",)
_FIELDS = (
    "version",
    "preset",
    "dialect",
    "boxes",
    "labels",
    "categories",
    "width",
    "height",
    "input_width",
    "input_height",
)


@dataclass(frozen=True, slots=True)
class HostTruth:
    """A ground truth with what else a row must say: which reward, which dialect, and maybe how far training is."""

    truth: GroundTruth
    dialect: str = "qwen25"
    preset: str = "paper"
    progress: float | None = None


def to_json(
    truth: GroundTruth,
    *,
    dialect: str = "qwen25",
    preset: str = "paper",
    progress: float | None = None,
) -> str:
    """The JSON text for a row. Raises DataError for what `from_json` would not read."""
    fields: dict[str, Any] = {
        "version": VERSION,
        "preset": preset,
        "dialect": dialect,
        "boxes": truth.boxes.xyxy.tolist(),
        "labels": list(truth.boxes.labels),
        "categories": list(truth.categories),
        "width": truth.size_wh[0],
        "height": truth.size_wh[1],
        "input_width": truth.input_size_wh[0],
        "input_height": truth.input_size_wh[1],
    }
    if progress is not None:
        fields["progress"] = progress
    text = json.dumps(fields, ensure_ascii=False)
    from_json(text)
    return text


def from_json(text: str) -> HostTruth:
    """Read a row's ground truth.

    Raises DataError that names the field, what was expected and what was found.
    """
    fields = _load(text)
    for name in _FIELDS:
        _check(name in fields, name, "to be there", "nothing")
    for name in fields:
        _check(name in (*_FIELDS, "progress"), name, "no such field", repr(fields[name]))
    _check(
        fields["version"] == VERSION,
        "version",
        f"{VERSION}, the one this visionr1 reads (write the rows again with its to_json)",
        repr(fields["version"]),
    )
    _one_of(fields, "preset", PRESETS)
    _one_of(fields, "dialect", tuple(sorted(DIALECTS)))
    progress = fields.get("progress")
    if progress is not None:
        _check(_is_number(progress) and 0 <= progress <= 1, "progress", "a number in [0, 1]", repr(progress))
    width, height, input_width, input_height = (
        _positive(fields, name) for name in ("width", "height", "input_width", "input_height")
    )
    boxes = _boxes(fields["boxes"], width, height)
    labels = _names(fields, "labels")
    _check(len(labels) == len(boxes), "labels", f"one for each of {len(boxes)} boxes", str(len(labels)))
    truth = GroundTruth(
        Boxes.of(boxes, labels), _names(fields, "categories"), (width, height), (input_width, input_height)
    )
    return HostTruth(truth, fields["dialect"], fields["preset"], progress)


def _load(text: str) -> dict[str, Any]:
    if not isinstance(text, str):
        raise DataError(
            f"ground truth: expected the JSON text that visionr1.hosts.to_json writes, found {type(text).__name__}"
        )
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"ground truth: expected the JSON text that visionr1.hosts.to_json writes, found {text[:80]!r} ({error})"
        ) from error
    if not isinstance(fields, dict):
        raise DataError(f"ground truth: expected a JSON object, found {text[:80]!r}")
    return fields


def _boxes(value: Any, width: int, height: int) -> list[list[float]]:
    _check(isinstance(value, list), "boxes", "a list of [x1, y1, x2, y2]", repr(value)[:80])
    for index, box in enumerate(value):
        name = f"boxes[{index}]"
        four = isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))
        _check(four, name, "four finite numbers x1, y1, x2, y2", repr(box)[:80])
        x1, y1, x2, y2 = box
        _check(x1 < x2 and y1 < y2, name, "x1 < x2 and y1 < y2", repr(box))
        inside = x1 >= -1 and y1 >= -1 and x2 <= width + 1 and y2 <= height + 1
        _check(inside, name, f"pixels of the original image of {width} x {height}", repr(box))
    return list(value)


def _names(fields: dict[str, Any], name: str) -> tuple[str, ...]:
    value = fields[name]
    named = isinstance(value, list) and all(isinstance(entry, str) and entry.strip() for entry in value)
    _check(named, name, "a list of non-empty texts", repr(value)[:80])
    return tuple(value)


def _positive(fields: dict[str, Any], name: str) -> int:
    value = fields[name]
    _check(type(value) is int and value > 0, name, "a positive whole number", repr(value))
    return int(value)


def _one_of(fields: dict[str, Any], name: str, known: tuple[str, ...]) -> None:
    _check(fields[name] in known, name, f"one of {', '.join(known)}", repr(fields[name]))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _check(holds: bool, name: str, expected: str, found: str) -> None:
    if not holds:
        raise DataError(f"ground truth, field {name}: expected {expected}, found {found}")
