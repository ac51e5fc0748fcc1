"""What is odd about the annotations of a data set as a whole, for `visionr1 data check`.

Faults make a set unfit to train on; notes are what a user should look at, because it is right only rarely.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visionr1.data.dataset import BoxDataset
from visionr1.data.ids import Id
from visionr1.data.table import BoxTable

AREA_TOLERANCE = 1.01
"""A mask has at most the area of its box, up to rounding: a hundredth, and one pixel."""


def find_faults(dataset: BoxDataset) -> list[str]:
    """Return why a data set as a whole cannot be trained on; none if it can."""
    table = dataset.table
    num_boxes = len(table.xywh)
    if num_boxes == 0:
        return ["no box to learn from: the annotations hold none"]
    if table.iscrowd.all():
        return [f"no box to learn from: iscrowd is 1 on all {num_boxes} annotations (CVAT writes this for masks)"]
    if not any(len(sample.truth) for sample in dataset.samples):
        return [f"no box to learn from: all {num_boxes} are empty, crowd regions or outside their image"]
    if _lie_in_unit_square(table).all():
        remedy = "multiply x and width by the width of the image, y and height by its height"
        return [f"all {num_boxes} boxes lie in 0 to 1, as fractions of the image do; {remedy}"]
    return []


def find_notes(dataset: BoxDataset) -> list[str]:
    """Return what should be looked at, with numbers and an example each."""
    table = dataset.table
    notes = list(_note_shared_pictures(dataset))
    notes += _note_equal_boxes(table)

    box_area = table.xywh[:, 2] * table.xywh[:, 3]
    is_in_unit_square = _lie_in_unit_square(table)
    if is_in_unit_square.all():
        is_in_unit_square[:] = False  # a fault, not a note
    for is_odd, problem in (
        (table.area <= 0, "have an area of 0 or less, which COCO's evaluation counts in none of its sizes"),
        (table.area > AREA_TOLERANCE * box_area + 1, "have a larger area than width x height"),
        (is_in_unit_square, "lie in 0 to 1, as fractions of the image do"),
        (
            _look_like_corners(table),
            "reach beyond the image, and would not as [x1, y1, x2, y2], which COCO does not write",
        ),
    ):
        if is_odd.any():
            first = int(np.flatnonzero(is_odd)[0])
            image_id = table.image_ids[table.image[first]]
            example = f"{table.xywh[first].tolist()}, area {table.area[first]:g}, in image {image_id!r}"
            notes.append(f"{int(is_odd.sum())} of {len(is_odd)} boxes {problem}; the first is {example}")
    return notes


def _note_shared_pictures(dataset: BoxDataset) -> Iterator[str]:
    """Yield a note if image files stand under more than one id."""
    ids_of_file: dict[object, list[Id]] = {}
    paths: dict[object, Path] = {}
    for sample in dataset.samples:
        if isinstance(sample.image, Path):
            file = _identify_file(sample.image)
            paths.setdefault(file, sample.image)
            ids = ids_of_file.setdefault(file, [])
            if sample.image_key not in ids[-1:]:
                ids.append(sample.image_key)

    shared = {file: ids for file, ids in ids_of_file.items() if len(set(ids)) > 1}
    if shared:
        file, ids = next(iter(shared.items()))
        path = paths[file]
        example = f"{path} under {', '.join(map(repr, ids[:4]))}"
        problem = "a right box counts as false where it is annotated under the other id"
        yield f"{len(shared)} pictures stand under several image ids ({problem}); the first is {example}"


def _identify_file(path: Path) -> object:
    """Return what is the same for all paths of one file, links among them; the path where it cannot be asked."""
    try:
        status = path.stat()
    except OSError:
        return path
    return status.st_dev, status.st_ino


def _note_equal_boxes(table: BoxTable) -> Iterator[str]:
    """Yield a note if a box is there twice: the same image, category and place."""
    if not len(table.xywh):
        return
    rows = np.column_stack([table.image, table.category, table.xywh])
    _, first_rows, counts = np.unique(rows, axis=0, return_index=True, return_counts=True)
    num_repeated = len(rows) - len(counts)
    if num_repeated:
        first = int(first_rows[counts > 1].min())
        image_id = table.image_ids[table.image[first]]
        example = f"{table.xywh[first].tolist()} in image {image_id!r}"
        yield f"{num_repeated} boxes are there twice (a right reply has to name them as often); the first is {example}"


def _lie_in_unit_square(table: BoxTable) -> NDArray[np.bool_]:
    """Return which boxes (A,) lie in 0 to 1 of an image that is larger than a pixel or two.

    They begin at -1 where a reader took off the pixel from which VOC counts.
    """
    ends = table.xywh[:, :2] + table.xywh[:, 2:]
    sizes = table.sizes_wh[table.image]
    is_image_tiny = ((sizes > 0) & (sizes <= 2)).any(axis=1)
    is_inside = (table.xywh[:, :2] >= -1).all(axis=1) & (table.xywh[:, 2:] >= 0).all(axis=1) & (ends <= 1).all(axis=1)
    return np.asarray(is_inside & ~is_image_tiny, dtype=bool)


def _look_like_corners(table: BoxTable) -> NDArray[np.bool_]:
    """Return which boxes (A,) reach beyond their image and would be right as corners; none unless most would."""
    sizes = table.sizes_wh[table.image]
    x, y, width, height = table.xywh.T
    is_beyond = ((x + width > sizes[:, 0] + 1) | (y + height > sizes[:, 1] + 1)) & (sizes > 0).all(axis=1)
    are_corners = (width > x) & (height > y) & (width <= sizes[:, 0]) & (height <= sizes[:, 1])

    # One box of many that is too large is a slip; corners, read as sizes, reach out in all but the left upper part.
    if not are_corners.all() or 3 * is_beyond.sum() < len(is_beyond):
        return np.zeros(len(is_beyond), dtype=bool)
    return np.asarray(is_beyond, dtype=bool)
