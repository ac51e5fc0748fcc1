"""COCO results: reading the rows of a file as detections, and writing detections as rows."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np

from visionr1.boxes import Array, is_box, is_number
from visionr1.data.row_log import Id, read_id
from visionr1.data.table import BoxTable, Index
from visionr1.errors import DataError
from visionr1.evaluation.detection.coco import Detections
from visionr1.evaluation.predictions import JsonRows


def coco_results(table: BoxTable, detections: Detections) -> list[dict[str, Any]]:
    """The detections as rows of a COCO results file, with the ids of the table's file, in emission order."""
    columns = (detections.image, detections.category, detections.xywh, detections.score)
    return [
        {
            "image_id": table.image_ids[image],
            "category_id": table.category_ids[category],
            "bbox": xywh,
            "score": score,
        }
        for image, category, xywh, score in zip(*(column.tolist() for column in columns), strict=True)
    ]


def merge_detections(files: Mapping[Path, JsonRows], table: BoxTable) -> tuple[Detections, int]:
    """The COCO results of all files, as `read_detections`; DataError if two have boxes of one category in one image."""
    parts = {path: read_detections(rows, table, path) for path, rows in files.items()}
    columns = [(found.image, found.category, found.xywh, found.score) for found, _ in parts.values()]
    size = len(table.categories)
    for (one, (first, _)), (other, (second, _)) in combinations(parts.items(), 2):
        shared = np.intersect1d(first.image * size + first.category, second.image * size + second.category)
        if len(shared):
            image, category = divmod(int(shared[0]), size)
            raise DataError(
                f"{one} and {other} both have boxes of {table.categories[category]!r} in image "
                f"{table.image_ids[image]!r}; files of one evaluation share none, so leave one out, or score them apart"
            )
    whole = Detections(*map(np.concatenate, zip(*columns, strict=True)))
    unknown = sum(number for _, number in parts.values())
    if unknown and not len(whole):
        path, found = next((path, rows[0].get("category_id")) for path, rows in files.items() if rows)
        raise DataError(
            f"{path}: category_id: expected the id of a category, such as {table.category_ids[0]!r} for "
            f"{table.categories[0]!r}, in any row, found none in {unknown}, but {found!r:.60}; correct them"
        )
    return whole, unknown


def read_detections(rows: JsonRows, table: BoxTable, path: Path) -> tuple[Detections, int]:
    """COCO results as detections, and how many are of a category that the set does not have (they are left out).

    Raises DataError for an unknown image id, a box that is not four finite numbers, or a score that is no finite one.
    """
    images = {identity: index for index, identity in enumerate(table.image_ids)}
    categories = {identity: index for index, identity in enumerate(table.category_ids)}
    try:
        image = _places([row["image_id"] for row in rows], images)
        xywh, score = _boxes([row["bbox"] for row in rows]), _numbers([row["score"] for row in rows])
    except KeyError:
        raise _first_fault(rows, images, path, table.path) from None
    if xywh is None or score is None or (image < 0).any():
        raise _first_fault(rows, images, path, table.path)
    category = _places([row.get("category_id") for row in rows], categories)
    known = category >= 0
    return Detections(image, category, xywh, score).keep(known), int((~known).sum())


def _places(values: list[object], places: Mapping[Id, int]) -> Index:
    """The place of each id as `read_id` reads it, -1 for one that has none."""
    if set(map(type, values)) <= {int}:
        return np.array([places.get(value, -1) for value in values], dtype=np.intp)  # type: ignore[call-overload]
    return np.array([places.get(read_id(value), -1) for value in values], dtype=np.intp)  # type: ignore[arg-type]


def _numbers(values: list[Any]) -> Array | None:
    """Finite numbers (N,), None if one is not."""
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        numbers = np.fromiter(values, np.float64, len(values))
    except OverflowError:
        return None
    return numbers if (np.abs(numbers) < 1e300).all() else None


def _boxes(values: list[Any]) -> Array | None:
    """Boxes (N, 4) of finite numbers, None if one is not a list of four."""
    if not (set(map(type, values)) <= {list} and set(map(len, values)) <= {4}):
        return None
    numbers = _numbers(list(chain.from_iterable(values)))
    return None if numbers is None else numbers.reshape(-1, 4)


def _first_fault(rows: JsonRows, images: Mapping[Id, int], path: Path, data: Path) -> DataError:
    for index, row in enumerate(rows):
        if fault := _fault(row, images, data):
            return DataError(f"{path}: row {index}: {fault}; correct it")
    raise AssertionError("no row is at fault")


def _fault(row: Mapping[str, Any], images: Mapping[Id, int], data: Path) -> str:
    """What is wrong with a row; empty if nothing."""
    if read_id(row.get("image_id")) not in images:
        return f"image_id: expected the id of an image of {data}, found {row.get('image_id')!r:.60}"
    if "bbox" not in row:
        return f"expected a bbox (COCO results) or a text (replies), found only {', '.join(map(repr, row))}"
    box, score = row["bbox"], row.get("score")
    if not is_box(box):
        return f"bbox: expected four finite numbers [x, y, width, height], found {box!r:.80}"
    return "" if is_number(score) else f"score: expected a finite number, found {score!r:.60}"
