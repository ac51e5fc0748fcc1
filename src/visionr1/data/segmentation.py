"""The box around a COCO segmentation: polygons, or a mask in run lengths, as text in pycocotools' code (`maskApi.c`).

Only extents are computed; no mask is ever drawn, so a few bytes cannot ask for much memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from visionr1.boxes import MAX_COORDINATE, is_number


def segmentation_box(segmentation: object) -> list[float] | None:
    """Return the box [x, y, width, height] around a segmentation; None if it is none, or covers nothing."""
    if isinstance(segmentation, list):
        return _polygons_box(segmentation)
    if isinstance(segmentation, dict):
        return _mask_box(segmentation)
    return None


def rotated_box(box: Sequence[float], degrees: float) -> list[float]:
    """Return the box around [x, y, width, height] turned by `degrees` about its centre."""
    x, y, width, height = box
    turn = math.radians(degrees)
    cosine = abs(math.cos(turn))
    sine = abs(math.sin(turn))
    around_width = width * cosine + height * sine
    around_height = width * sine + height * cosine
    around = [x + (width - around_width) / 2, y + (height - around_height) / 2, around_width, around_height]

    # The cosine of a right angle is not quite 0.
    return [round(number, 6) for number in around]


def _polygons_box(polygons: list[Any]) -> list[float] | None:
    """Return the box around polygons, flat lists [x1, y1, x2, y2, ...] of three points or more; or around one such."""
    if polygons and all(is_number(number, MAX_COORDINATE) for number in polygons):
        polygons = [polygons]
    xs: list[float] = []
    ys: list[float] = []
    for polygon in polygons:
        is_flat = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
        if not is_flat or not all(is_number(number, MAX_COORDINATE) for number in polygon):
            return None
        xs += polygon[0::2]
        ys += polygon[1::2]
    if not xs:
        return None
    return [float(min(xs)), float(min(ys)), float(max(xs) - min(xs)), float(max(ys) - min(ys))]


def _mask_box(mask: dict[str, Any]) -> list[float] | None:
    """Return the box around a mask in run lengths: columns one after the other, first a run of nothing."""
    size = mask.get("size")
    if not isinstance(size, list) or len(size) != 2 or not all(is_number(side, MAX_COORDINATE) for side in size):
        return None
    height = int(size[0])
    num_pixels = height * int(size[1])
    counts = _read_counts(mask.get("counts"))
    if height <= 0 or counts is None:
        return None

    start = 0
    left = top = math.inf
    right = bottom = -math.inf
    for index, count in enumerate(counts):
        end = start + count
        if count < 0 or end > num_pixels:
            return None
        if index % 2 == 1 and count > 0:
            # The run goes from its first to its last pixel, both in it.
            first_column, first_row = divmod(start, height)
            last_column, last_row = divmod(end - 1, height)
            if first_column < last_column:
                first_row, last_row = 0, height - 1
            left, right = min(left, first_column), max(right, last_column)
            top, bottom = min(top, first_row), max(bottom, last_row)
        start = end
    if left > right:
        return None
    return [float(left), float(top), float(right - left + 1), float(bottom - top + 1)]


def _read_counts(counts: object) -> list[int] | None:
    """Return run lengths, given as numbers or as text; None if they are neither."""
    if isinstance(counts, str):
        return list(_decode_counts(counts))
    if not isinstance(counts, list):
        return None
    if not all(is_number(count, MAX_COORDINATE**2) and count == int(count) for count in counts):
        return None
    return list(map(int, counts))


def _decode_counts(text: str) -> Iterator[int]:
    """Yield the run lengths in pycocotools' text: five bits a character, from the fourth on differences to two before.

    A character that is none of the code ends the text with a length of -1, which no mask has.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            yield -1
            return
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue

        # The last group's highest bit is the sign.
        if code & 0x10:
            value |= -1 << shift
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
        yield value
        value = shift = 0
