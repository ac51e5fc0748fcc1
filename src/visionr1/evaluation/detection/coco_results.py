"""COCO results: reading the rows of a file as detections, and writing detections as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np

from visionr1.boxes import Array, is_box, is_number
from visionr1.data.ids import Id, IdIndex
from visionr1.data.table import BoxTable, Index, map_positions
from visionr1.errors import DataError, short_repr
from visionr1.evaluation.detection.coco import Detections
from visionr1.evaluation.predictions import JsonRows


def coco_results(table: BoxTable, detections: Detections) -> list[dict[str, Any]]:
    """Return the detections as rows of a COCO results file, with the ids of the table's file, in emission order."""
    rows = []
    for image, category, xywh, score in zip(
        detections.image.tolist(),
        detections.category.tolist(),
        detections.xywh.tolist(),
        detections.score.tolist(),
        strict=True,
    ):
        rows.append(
            {
                "image_id": table.image_ids[image],
                "category_id": table.category_ids[category],
                "bbox": xywh,
                "score": score,
            }
        )
    return rows


def merge_detections(files: Mapping[Path, JsonRows], table: BoxTable) -> tuple[Detections, int]:
    """Read the COCO results of all files, as `read_detections`.

    Raises DataError if two files have boxes of one category in one image, or if no row is of a category of the table.
    """
    parts: dict[Path, Detections] = {}
    num_unknown = 0
    for path, rows in files.items():
        parts[path], num_unknown_in_file = read_detections(rows, table, path)
        num_unknown += num_unknown_in_file
    _check_disjoint(parts, table)

    merged = Detections(
        image=np.concatenate([part.image for part in parts.values()]),
        category=np.concatenate([part.category for part in parts.values()]),
        xywh=np.concatenate([part.xywh for part in parts.values()]),
        score=np.concatenate([part.score for part in parts.values()]),
    )
    if num_unknown and not len(merged):
        path, first_row = next((path, rows[0]) for path, rows in files.items() if rows)
        raise DataError(
            f"{path}: category_id: expected the id of a category, such as {table.category_ids[0]!r} for "
            f"{table.categories[0]!r}, in any row, found none in {num_unknown}, but "
            f"{short_repr(first_row.get('category_id'))}; correct them"
        )
    return merged, num_unknown


def _check_disjoint(parts: Mapping[Path, Detections], table: BoxTable) -> None:
    """Raise DataError if two files have boxes of one category in one image."""
    num_categories = len(table.categories)
    for (path, part), (other_path, other) in combinations(parts.items(), 2):
        # One number for each pair of an image and a category.
        cells = part.image * num_categories + part.category
        other_cells = other.image * num_categories + other.category
        shared = np.intersect1d(cells, other_cells)
        if len(shared):
            image, category = divmod(int(shared[0]), num_categories)
            raise DataError(
                f"{path} and {other_path} both have boxes of {table.categories[category]!r} in image "
                f"{table.image_ids[image]!r}; files of one evaluation share none, so leave one out, or score them apart"
            )


def read_detections(rows: JsonRows, table: BoxTable, path: Path) -> tuple[Detections, int]:
    """Return COCO results as detections, and the number of rows left out, of a category that the set does not have.

    Raises DataError for an unknown image id, a box that is not four finite numbers, or a score that is no finite one.
    """
    image_ids = IdIndex(table.image_ids)

    # A column is checked as a whole; only where one is bad are rows looked at, to name the first that is.
    try:
        image = _look_up_places([row["image_id"] for row in rows], table.image_ids)
        xywh = _read_boxes([row["bbox"] for row in rows])
        score = _read_numbers([row["score"] for row in rows])
    except KeyError:
        raise _find_fault(rows, image_ids, path, table.path) from None
    if xywh is None or score is None or (image < 0).any():
        raise _find_fault(rows, image_ids, path, table.path)

    category = _look_up_places([row.get("category_id") for row in rows], table.category_ids)
    is_known = category >= 0
    detections = Detections(image, category, xywh, score).keep(is_known)
    return detections, int((~is_known).sum())


def _look_up_places(values: list[Any], ids: Sequence[Id]) -> Index:
    """Return the place of each value among `ids`, -1 for one that is none of them."""
    index = IdIndex(ids)
    places: dict[Id | None, int] = {None: -1}
    places.update(map_positions(ids))
    return np.array([places[index.find(value)] for value in values], dtype=np.intp)


def _read_numbers(values: list[Any]) -> Array | None:
    """Return finite numbers (N,); None if one is not."""
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        numbers = np.fromiter(values, np.float64, len(values))
    except OverflowError:
        return None
    if not (np.abs(numbers) < 1e300).all():
        return None
    return numbers


def _read_boxes(values: list[Any]) -> Array | None:
    """Return boxes (N, 4) of finite numbers; None if one is not a list of four."""
    if not (set(map(type, values)) <= {list} and set(map(len, values)) <= {4}):
        return None
    numbers = _read_numbers(list(chain.from_iterable(values)))
    if numbers is None:
        return None
    return numbers.reshape(-1, 4)


def _find_fault(rows: JsonRows, images: IdIndex, path: Path, data: Path) -> DataError:
    """Return the error that names the first bad row."""
    for index, row in enumerate(rows):
        fault = _describe_fault(row, images, data)
        if fault:
            return DataError(f"{path}: row {index}: {fault}; correct it")
    raise AssertionError("no row is at fault")


def _describe_fault(row: Mapping[str, Any], images: IdIndex, data: Path) -> str:
    """Say in words why a row is bad; empty if it is not."""
    if row.get("image_id") not in images:
        return f"image_id: expected the id of an image of {data}, found {short_repr(row.get('image_id'))}"
    if "bbox" not in row:
        return f"expected a bbox (COCO results) or a text (replies), found only {', '.join(map(repr, row))}"
    box, score = row["bbox"], row.get("score")
    if not is_box(box):
        return f"bbox: expected four finite numbers [x, y, width, height], found {short_repr(box)}"
    if not is_number(score):
        return f"score: expected a finite number, found {short_repr(score)}"
    return ""
