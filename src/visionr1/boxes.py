"""Boxes as arrays: overlap, clipping, rescaling, one-to-one matching. Everything is `xyxy` in one coordinate space.

Files that give `xywh` are converted as they are read, and results that want it as they are written.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Array = NDArray[np.float64]

MAX_COORDINATE = 1e9
"""More pixels than any image has in a row: such a number in an annotation is a mistake."""


def is_number(value: object, below: float = 1e300) -> TypeGuard[float]:
    """Return True for a finite JSON number whose size is less than `below`; true and false are none."""
    return type(value) in (int, float) and -below < value < below  # type: ignore[operator]


def is_box(value: object, below: float = 1e300) -> TypeGuard[list[float]]:
    """Return True for a list of four finite JSON numbers, whatever their order."""
    if not isinstance(value, list) or len(value) != 4:
        return False
    return all(is_number(number, below) for number in value)


def xywh_to_xyxy(xywh: Array) -> Array:
    """Return the corners of boxes (N, 4) given by their top left corner, width and height."""
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def xyxy_to_xywh(xyxy: Array) -> Array:
    """Return the top left corner, width and height of boxes (N, 4) given by their corners."""
    return np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)


def box_area(xyxy: Array) -> Array:
    """Return the areas (N,) of boxes (N, 4)."""
    return (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])


def _intersection_union(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the areas that boxes (P, 4) and (K, 4) share and that they cover together: (P, K) each."""
    overlap_end = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = overlap_end - np.maximum(a[:, None, :2], b[None, :, :2])

    # Boxes that do not touch overlap by less than nothing.
    np.maximum(overlap, 0.0, out=overlap)
    intersection = overlap[..., 0] * overlap[..., 1]
    return intersection, box_area(a)[:, None] + box_area(b)[None, :] - intersection


def iou_matrix(a: Array, b: Array) -> Array:
    """Return the intersection over union of boxes (P, 4) and (K, 4): (P, K) in [0, 1]; 0 where the union is empty."""
    if len(a) == len(b) == 1:
        return np.array([[_compute_iou(a[0].tolist(), b[0].tolist())]])
    intersection, union = _intersection_union(a, b)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def _compute_iou(a: list[float], b: list[float]) -> float:
    """Return the IoU of two boxes, with the arithmetic of `iou_matrix`: numpy's calls would cost more."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0

    # In the order of `_intersection_union`, so that the last bit agrees.
    intersection = width * height
    area_a = (a[2] - a[0]) * (a[3] - a[1])
    area_b = (b[2] - b[0]) * (b[3] - b[1])
    return intersection / (area_a + area_b - intersection)


def giou_matrix(a: Array, b: Array) -> Array:
    """Return the generalised IoU (Rezatofighi et al., 2019) of boxes (P, 4) and (K, 4): (P, K) in (-1, 1]."""
    intersection, union = _intersection_union(a, b)
    iou = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)

    # The share of the smallest box around both that neither covers lowers the IoU.
    hull = np.maximum(a[:, None, 2:], b[None, :, 2:]) - np.minimum(a[:, None, :2], b[None, :, :2])
    hull_area = hull[..., 0] * hull[..., 1]
    iou -= np.divide(hull_area - union, hull_area, out=np.zeros_like(iou), where=hull_area > 0)
    return iou


def clip_xyxy(xyxy: Array, size_wh: tuple[int, int]) -> Array:
    """Cut boxes (N, 4) off at the image of `size_wh`."""
    clipped: Array = np.maximum(np.minimum(xyxy, _repeat_xy(*size_wh)), 0.0)
    return clipped


def rescale_xyxy(xyxy: Array, from_wh: tuple[float, float], to_wh: tuple[float, float]) -> Array:
    """Scale boxes (N, 4) of an image of size `from_wh` to the coordinates of the same image at size `to_wh`."""
    if from_wh == to_wh:
        return xyxy
    return xyxy * _repeat_xy(to_wh[0] / from_wh[0], to_wh[1] / from_wh[1])


@lru_cache(maxsize=4096)
def _repeat_xy(x: float, y: float) -> Array:
    """Return (x, y, x, y), one number for each coordinate of a box; cached because the same sizes come again."""
    return np.array([x, y, x, y], dtype=np.float64)


def match_values(value: Array) -> NDArray[np.intp]:
    """Return the one-to-one assignment with the largest total of `value` (P, K) >= 0, as (M, 2) indices, by row.

    Pairs of value 0 are never matched. Only rows and columns that can match enter the assignment, so what matches
    nothing changes nothing.
    """
    pairs = np.argwhere(value > 0.0)
    if is_one_to_one(pairs):
        return pairs

    rows, columns = np.unique(pairs[:, 0]), np.unique(pairs[:, 1])
    candidates = value[rows[:, None], columns]
    row, column = linear_sum_assignment(candidates, maximize=True)

    # The assignment covers every row or every column: drop the pairs that it had to fill up with.
    positive = candidates[row, column] > 0.0
    return np.stack([rows[row[positive]], columns[column[positive]]], axis=1)


def is_one_to_one(pairs: NDArray[np.intp]) -> bool:
    """Return True if no row and no column is in two of the pairs (M, 2): then there is nothing to choose between."""
    rows, columns = pairs.T.tolist()
    return len(set(rows)) == len(set(columns)) == len(pairs)
