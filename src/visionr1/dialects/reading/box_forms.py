"""Read what stands for a box in JSON: four numbers, or another form that a person would take for a box.

Numbers as text, two corners as pairs, the four corners of a rectangle, sides by name, a score behind the numbers, lists
of several boxes. Nothing raises.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from visionr1.dialects.reading.loose_json import Object, Word, read_number

_CORNER_NAMES = (
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
    ("topleftx", "toplefty", "bottomrightx", "bottomrighty"),
)
_POINT_NAMES = (("topleft", "bottomright"), ("upperleft", "lowerright"), ("lefttop", "rightbottom"))
_SIDE_NAMES = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))
CORNER_KEYS = frozenset(name for names in (*_CORNER_NAMES, *_SIDE_NAMES) for name in names)
"""Keys of a side or a corner, without case and punctuation."""
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_ONLY_NUMBERS = re.compile(r"[\s\d.,;:()\[\]{}<>eE+-]+", re.ASCII)
_PLACEHOLDER = re.compile(
    r"[<\[({]*(?:[xy]_?(?:[0-9]|min|max|left|right|top|bottom|center)?|left|top|right|bottom|width|height|w|h|int|float"
    r"|number|\.\.\.|…)[>\])}]*|<[a-z][\w -]{0,30}>",
    re.IGNORECASE,
)

_LONGEST_KEY = 60

Box = list[float]


@dataclass(frozen=True, slots=True)
class BoxValue:
    """What the value of a box's key is: boxes, none that can be read, or a template that the model repeats."""

    boxes: list[Box]
    form: str = ""
    """In words, if it is another than four numbers."""
    has_names: bool = False
    """Each number has the name of its side, so that their order is known."""
    is_template: bool = False
    unread: object = None
    """The value, if it holds no box that can be read."""


def read_box(value: object) -> BoxValue:
    """Return the boxes that the value of a box's key means, with the form if it is not four numbers."""
    if isinstance(value, list) and len(value) == 4 and all(map(is_number, value)):
        return BoxValue([value])
    if _is_template(value):
        return BoxValue([], is_template=True)
    has_names = isinstance(value, Object)
    if isinstance(value, Object):
        corners = read_corners(value)
        boxes = [] if corners is None else [corners]
        form = "corners as keys"
    elif isinstance(value, str):
        boxes = _read_text(value)
        form = "a box as text"
    elif isinstance(value, list):
        boxes = _read_box_list(value)
        form = "a box in another form"
    else:
        boxes = []
        form = ""
    if not boxes:
        return BoxValue([], unread=value)
    return BoxValue(boxes, form, has_names)


def _is_template(value: object) -> bool:
    """Say if the value of a box's key holds names of coordinates, or a JSON schema, in place of numbers."""
    if isinstance(value, Object):
        return value.pairs[:1] == [("type", "array")]
    if isinstance(value, str):
        return is_placeholder(value, least_parts=1 if isinstance(value, Word) or value.startswith("<") else 2)
    if not isinstance(value, list) or not value:
        return False

    # Words without quotes or in braces are names, whichever they are; texts only if they are names of coordinates.
    if all(isinstance(part, Word) and not any(map(str.isdecimal, part)) for part in value):
        return True
    return all(_is_name(part) for part in value)


def _is_name(value: object) -> bool:
    """Say if a value names a coordinate, `"x1"` or `{x1}`."""
    if isinstance(value, Object):
        return not value.pairs and value.key is not None
    return isinstance(value, str) and is_placeholder(value)


def is_placeholder(text: str, least_parts: int = 1) -> bool:
    """Say if a text is names of coordinates, such as `x1` or `[x1, y1, x2, y2]`."""
    if len(text) > _LONGEST_KEY:
        return False
    names = unicodedata.normalize("NFKC", text).replace("$", "").strip("[]() ").split(",")
    return len(names) >= least_parts and all(_PLACEHOLDER.fullmatch(name.strip()) for name in names)


def _read_box_list(values: Sequence[object]) -> list[Box]:
    """Return the boxes in a list that is not four numbers: with a score, four corners, as texts, or nested."""
    # Lists around one value mean nothing.
    while len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if len(values) == 1 and isinstance(values[0], Object):
        corners = read_corners(values[0])
        return [corners] if corners else []
    one = _read_numbers(values)
    if one:
        return [one]

    # Two pairs are corners, four a polygon; else each is a box.
    if len(values) in (2, 4) and all(isinstance(pair, list) and len(pair) == 2 for pair in values):
        flat = [number for pair in values if isinstance(pair, list) for number in pair]
        box = _read_numbers(flat)
        return [box] if box else []

    boxes = []
    for value in values:
        box = None
        if isinstance(value, list):
            box = _read_numbers(value)
        elif isinstance(value, str):
            box = next(iter(_read_text(value)), None)
        if box is None:
            return []
        boxes.append(box)
    return boxes


def _read_numbers(values: Sequence[object]) -> Box | None:
    """Return the box of a flat list: four numbers, a score behind them, or the four corners of a rectangle."""
    numbers = []
    for value in values:
        number = _read_number_text(value) if isinstance(value, str) else value
        if not is_number(number):
            return None
        numbers.append(number)
    if len(numbers) == 4:
        return numbers  # type: ignore[return-value]
    if len(numbers) == 5 and 0 <= numbers[4] <= 1:  # type: ignore[operator]
        return numbers[:4]  # type: ignore[return-value]
    if len(numbers) == 8:
        xs = sorted(set(numbers[0::2]))  # type: ignore[type-var]
        ys = sorted(set(numbers[1::2]))  # type: ignore[type-var]
        if len(xs) == len(ys) == 2:
            return [xs[0], ys[0], xs[1], ys[1]]  # type: ignore[list-item]
    return None


def _read_number_text(text: str) -> int | float | None:
    """Return the number in a text, in any script's digits and perhaps in pixels; None if it is none."""
    if len(text) > _LONGEST_KEY:
        return None
    return read_number(unicodedata.normalize("NFKC", text).strip().removesuffix("px").rstrip())


def _read_text(text: str) -> list[Box]:
    """Return the box in a text of numbers, such as "10, 20, 110, 220" or "(10,20),(110,220)"; empty if it is none."""
    if len(text) > 200 or not _ONLY_NUMBERS.fullmatch(text):
        return []
    box = _read_numbers([read_number(number) for number in _NUMBER.findall(text)])
    return [box] if box else []


def read_corners(item: Object) -> Box | None:
    """Return the box of an object with a number for each side; None if it has none."""
    numbers: dict[str, float] = {}
    for key, value in item.pairs:
        number = read_number(value.strip()) if isinstance(value, str) else value
        if isinstance(number, int | float) and is_number(number):
            numbers[normalize_key(key)] = number
    if len(numbers) < 4:
        return _read_points(item)
    for names in _CORNER_NAMES:
        if all(name in numbers for name in names):
            return [numbers[name] for name in names]
    for names in _SIDE_NAMES:
        if all(name in numbers for name in names):
            x, y, width, height = (numbers[name] for name in names)
            return [x, y, x + width, y + height]
    return None


def _read_points(item: Object) -> Box | None:
    """Return the box of an object with two corners by name, each a list or an object of two numbers; else None."""
    points: dict[str, list[object]] = {}
    for key, value in item.pairs:
        if isinstance(value, Object):
            value = [coordinate for _, coordinate in value.pairs]
        if isinstance(value, list) and len(value) == 2:
            points[normalize_key(key)] = value
    for first, last in _POINT_NAMES:
        if first in points and last in points:
            return _read_numbers([*points[first], *points[last]])
    return None


def is_number(value: object) -> bool:
    """Say if a value is a finite number; true and false are none."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def normalize_key(key: str) -> str:
    """Return a key without case and punctuation; nothing for one that is too long to be that of a box or a label."""
    if len(key) > _LONGEST_KEY:
        return ""
    return _normalize(key)


@lru_cache(maxsize=1024)
def _normalize(key: str) -> str:
    return "".join(filter(str.isalnum, key)).lower()
