"""Write and read a completion with its truth: the one row format of runs, `visionr1 score` and `visionr1 eval`.

A row is a JSON object:

    {"sample_id": "12", "image_id": 12, "index": 0, "text": "[{...}]", "truncated": false,
     "boxes": [[x1, y1, x2, y2], ...], "labels": ["cat", ...], "categories": ["cat", "dog"],
     "width": 640, "height": 480, "input_width": 644, "input_height": 476}

- `text` is the completion; `index` counts the completions of one sample; `truncated` means that it reached the limit of
  new tokens.
- The other fields are its truth. Boxes are xyxy pixels of the original image of `width` x `height`; `input_width` x
  `input_height` is the size that the processor feeds to the model. `labels` has one entry for each box; `categories`
  are the names that were asked for. `num_instances` is optional: see `GroundTruth`.
- Only `text` and the truth are needed. A row may have other fields, such as the parts of its score. A row of older
  files has its text in `completion`, which is read where `text` is absent.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from visionr1.boxes import is_box
from visionr1.errors import DataError
from visionr1.files import parse_json
from visionr1.samples import Boxes, GroundTruth, normalize_label, normalized_labels

TRUTH_FIELDS = ("boxes", "labels", "categories", "width", "height", "input_width", "input_height")
"""The fields of a truth that every row needs."""
LARGEST_COORDINATE = 1e12
"""Coordinates are below this, so that areas can be computed."""
MOST_INSTANCES = 10**9
"""Numbers of instances are below this, so that they can be divided by."""
OTHER_FIELDS = (
    *("sample_id", "image_id", "index", "text", "truncated", "num_instances"),
    *("step", "total", "advantage", "num_tokens", "error"),
    *("stage", "plain_recall", "plain_precision", "num_predicted", "pairs", "faults"),
)
"""Other names that fields of a row, of a rollout or of a scored row have, and parts of a score cannot have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRow:
    """A completion and its truth. `image_id` is that of the annotation file, "" where it is unknown."""

    text: str
    truth: GroundTruth
    sample_id: str = ""
    image_id: int | str = ""
    index: int = 0
    truncated: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the row as JSON values; `read_completion` reads it back equal."""
        return {
            "sample_id": self.sample_id,
            "image_id": self.image_id,
            "index": self.index,
            "text": self.text,
            "truncated": self.truncated,
            **truth_to_json(self.truth),
        }


def read_completion(line: str | bytes) -> CompletionRow:
    """Return the row in a line of JSON.

    Raises DataError that names the field, what was expected and what was found.
    """
    try:
        fields = parse_json(line)
    except ValueError as error:
        raise DataError(f"expected a JSON object, found {_beginning(line)} ({error})") from error
    if not isinstance(fields, dict):
        raise DataError(f"expected a JSON object, found {_beginning(line)}")
    return completion_from_fields(fields)


def completion_from_fields(fields: Mapping[str, Any]) -> CompletionRow:
    """Return the row with these fields. Raises DataError as `read_completion` does."""
    # Rollouts of older runs have the text in `text` and a number in `completion`; older rows have only `completion`.
    text_field = "text"
    if "text" not in fields and "completion" in fields:
        text_field = "completion"
    text = _required(fields, text_field)
    if not isinstance(text, str):
        raise _unexpected(text_field, "a text", text)

    # The type is compared, because true and false are whole numbers to Python.
    sample_id = fields.get("sample_id", "")
    _check(isinstance(sample_id, str), "sample_id", "a text", sample_id)
    image_id = fields.get("image_id", "")
    _check(type(image_id) in (int, str), "image_id", "a whole number or a text", image_id)
    index = fields.get("index", 0)
    _check(type(index) is int and index >= 0, "index", "a whole number from 0", index)
    truncated = fields.get("truncated", False)
    _check(type(truncated) is bool, "truncated", "true or false", truncated)

    return CompletionRow(
        text=text,
        truth=read_truth(fields),
        sample_id=sample_id,
        image_id=image_id,
        index=index,
        truncated=truncated,
    )


def truth_to_json(truth: GroundTruth) -> dict[str, object]:
    """Return the fields of a row that hold its truth."""
    fields: dict[str, object] = {
        "boxes": truth.boxes.xyxy.tolist(),
        "labels": list(truth.boxes.labels),
        "categories": list(truth.categories),
        "width": truth.size_wh[0],
        "height": truth.size_wh[1],
        "input_width": truth.input_size_wh[0],
        "input_height": truth.input_size_wh[1],
    }
    if truth.num_instances is not None:
        fields["num_instances"] = truth.num_instances
    return fields


def read_truth(fields: Mapping[str, object]) -> GroundTruth:
    """Return the truth in the fields of a row. Raises DataError as `read_completion` does."""
    boxes = _read_boxes(_required(fields, "boxes"))
    labels = _read_texts(fields, "labels")
    categories = _read_texts(fields, "categories")
    _check(len(labels) == len(boxes), "labels", f"one for each of {len(boxes)} boxes", list(labels))

    # A reply can never match a misspelt true label, so refuse it. Without categories any label is right.
    known = normalized_labels(categories)
    if known:
        for index, label in enumerate(labels):
            is_known = normalize_label(label) in known
            _check(is_known, f"labels[{index}]", f"one of the {len(known)} categories", label)

    size_wh = _read_pixels(fields, "width"), _read_pixels(fields, "height")
    input_size_wh = _read_pixels(fields, "input_width"), _read_pixels(fields, "input_height")
    num_instances = fields.get("num_instances")
    if num_instances is not None and (type(num_instances) is not int or num_instances < 0):
        raise _unexpected("num_instances", "a whole number from 0", num_instances)
    if num_instances is not None and num_instances >= MOST_INSTANCES:
        raise _unexpected("num_instances", f"a whole number below {MOST_INSTANCES}", num_instances)
    return GroundTruth(Boxes.of(boxes, labels), categories, size_wh, input_size_wh, num_instances)


def check_box_order(boxes: Boxes) -> None:
    """Raise DataError, naming the box, if one is empty or inverted."""
    for index, (x1, y1, x2, y2) in enumerate(boxes.xyxy.tolist()):
        _check(x1 < x2 and y1 < y2, f"boxes[{index}]", "x1 < x2 and y1 < y2", [x1, y1, x2, y2])


def _required(fields: Mapping[str, object], name: str) -> object:
    if name not in fields:
        present = ", ".join(list(fields)[:12]) or "an empty object"
        raise DataError(f"field {name}: expected it, found only {present}")
    return fields[name]


def _read_boxes(value: object) -> list[list[float]]:
    if not isinstance(value, list):
        raise _unexpected("boxes", "a list of [x1, y1, x2, y2]", value)
    for index, box in enumerate(value):
        _check(is_box(box, below=LARGEST_COORDINATE), f"boxes[{index}]", "four numbers x1, y1, x2, y2 in pixels", box)
    return value


def _read_texts(fields: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = _required(fields, name)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _unexpected(name, "a list of texts", value)
    return tuple(value)


def _read_pixels(fields: Mapping[str, object], name: str) -> int:
    value = _required(fields, name)
    if type(value) is not int or not 0 < value < 10**9:
        raise _unexpected(name, "a positive whole number of pixels", value)
    return value


def _beginning(line: str | bytes) -> str:
    """Return how a line begins, for messages."""
    if isinstance(line, bytes):
        line = line.decode(errors="replace")
    return repr(line.strip()[:60])


def _check(holds: bool, name: str, expected: str, value: object) -> None:
    if not holds:
        raise _unexpected(name, expected, value)


def _unexpected(name: str, expected: str, value: object) -> DataError:
    return DataError(f"field {name}: expected {expected}, found {reprlib.repr(value)}")
