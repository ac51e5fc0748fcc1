"""Write and read one self-contained JSON text per row: all that a reward needs, in a column that every host passes on.

    {"version": 1, "preset": "paper", "dialect": "qwen25",
     "boxes": [[x1, y1, x2, y2], ...], "labels": ["cat", ...], "categories": ["cat", "dog"],
     "width": 640, "height": 480, "input_width": 644, "input_height": 476}

The fields from `boxes` on are those of a row of `visionr1.completions`. `progress`, optional, is the share of training
done when the row is reached, for hosts that tell a reward no step.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from visionr1.completions import TRUTH_FIELDS, read_truth, truth_to_json
from visionr1.dialects import describe_dialects, get_dialect
from visionr1.errors import DataError, RecipeError
from visionr1.files import parse_json
from visionr1.rewards import PRESETS
from visionr1.samples import Boxes, GroundTruth, Size

VERSION = 1
_FIELDS = ("version", "preset", "dialect", "progress", "num_instances", *TRUTH_FIELDS)


@dataclass(frozen=True, slots=True)
class HostTruth:
    """A ground truth with its reward and dialect, and the share of training done where the host does not know it."""

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
    """Return the JSON text for a row. Raises DataError for what `from_json` would not read."""
    fields: dict[str, Any] = {
        "version": VERSION,
        "preset": preset,
        "dialect": dialect,
        **truth_to_json(truth),
    }
    if progress is not None:
        fields["progress"] = progress

    # Reading it back checks it, so that a mistake shows before training.
    text = json.dumps(fields, ensure_ascii=False)
    from_json(text)
    return text


def from_json(text: str) -> HostTruth:
    """Read a row's ground truth.

    Raises DataError that names the field, what was expected and what was found.
    """
    fields = _load(text)
    for name in fields:
        _check(name in _FIELDS, name, "no such field", fields[name])

    version = fields.get("version")
    _check(version == VERSION, "version", f"{VERSION}, the one this visionr1 reads and its to_json writes", version)
    preset = fields.get("preset")
    is_preset = isinstance(preset, str) and preset in PRESETS
    _check(is_preset, "preset", f"one of {', '.join(PRESETS)}", preset)
    dialect = fields.get("dialect")
    _check_dialect(dialect, str(preset))

    # JSON's true is a number to Python, so the type is compared.
    progress = fields.get("progress")
    is_share = progress is None or (type(progress) in (int, float) and 0 <= progress <= 1)
    _check(is_share, "progress", "a number in [0, 1]", progress)

    try:
        truth = read_truth(fields)
    except DataError as error:
        raise DataError(f"ground truth, {error}") from error

    _check_boxes(truth.boxes, truth.size_wh)
    return HostTruth(truth, str(dialect), str(preset), progress)


def _check_dialect(dialect: object, preset: str) -> None:
    """Raise DataError if a row's `dialect` is none that the `preset` reads."""
    read_names = PRESETS.known(preset).dialects
    is_read = isinstance(dialect, str)
    if read_names:
        is_read = dialect in read_names
    elif isinstance(dialect, str):
        try:
            get_dialect(dialect)
        except RecipeError:
            is_read = False
    choices = ", ".join(read_names) or describe_dialects()
    _check(is_read, "dialect", f"one that preset {preset} reads, {choices}", dialect)


def _load(text: str) -> dict[str, Any]:
    """Return the fields of a row's JSON; DataError if it is no JSON object in a text."""
    expected = "ground truth: expected the JSON object that visionr1.integrations.to_json writes, as text, found"
    if not isinstance(text, str):
        raise DataError(f"{expected} {type(text).__name__}")
    try:
        fields = parse_json(text)
    except ValueError as error:
        raise DataError(f"{expected} {text[:80]!r} ({error})") from error
    if not isinstance(fields, dict):
        raise DataError(f"{expected} {text[:80]!r}")
    return fields


def _check_boxes(boxes: Boxes, size_wh: Size) -> None:
    """Raise DataError for an inverted box, one without label, or one that is not in pixels of the original image.

    Boxes in another coordinate space would spoil a training run without a word.
    """
    width, height = size_wh
    for index, (x1, y1, x2, y2) in enumerate(boxes.xyxy.tolist()):
        name = f"boxes[{index}]"
        box = [x1, y1, x2, y2]
        _check(x1 < x2 and y1 < y2, name, "x1 < x2 and y1 < y2", box)

        # Annotations may lie over the edge by a rounding.
        inside = x1 >= -1 and y1 >= -1 and x2 <= width + 1 and y2 <= height + 1
        _check(inside, name, f"pixels of the original image of {width} x {height}", box)
        _check(bool(boxes.labels[index].strip()), f"labels[{index}]", "a name", boxes.labels[index])


def _check(holds: bool, name: str, expected: str, value: object) -> None:
    if not holds:
        raise DataError(f"ground truth, field {name}: expected {expected}, found {str(value)[:80]!r}")
