"""Boxes as arrays: overlap, clipping, rescaling, one-to-one matching. Everything is `xyxy` in one coordinate space."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Array = NDArray[np.float64]


def box_area(xyxy: Array) -> Array:
    """Areas (N,) of boxes (N, 4)."""
    return (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])


def _intersection_union(a: Array, b: Array) -> tuple[Array, Array]:
    overlap = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    np.maximum(overlap, 0.0, out=overlap)
    intersection = overlap[..., 0] * overlap[..., 1]
    return intersection, box_area(a)[:, None] + box_area(b)[None, :] - intersection


def iou_matrix(a: Array, b: Array) -> Array:
    """Intersection over union of boxes (P, 4) and (K, 4): (P, K) in [0, 1]; 0 where the union is empty."""
    if len(a) == len(b) == 1:
        return np.array([[_iou(a[0].tolist(), b[0].tolist())]])
    intersection, union = _intersection_union(a, b)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def _iou(a: list[float], b: list[float]) -> float:
    """IoU of two boxes, with the arithmetic of `iou_matrix`: numpy's calls would cost more than the numbers."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    return intersection / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection)


def giou_matrix(a: Array, b: Array) -> Array:
    """Generalised IoU (Rezatofighi et al., 2019) of boxes (P, 4) and (K, 4): (P, K) in (-1, 1]."""
    intersection, union = _intersection_union(a, b)
    hull = np.maximum(a[:, None, 2:], b[None, :, 2:]) - np.minimum(a[:, None, :2], b[None, :, :2])
    hull_area = hull[..., 0] * hull[..., 1]
    iou = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    iou -= np.divide(hull_area - union, hull_area, out=np.zeros_like(iou), where=hull_area > 0)
    return iou


def clip_xyxy(xyxy: Array, size_wh: tuple[int, int]) -> Array:
    """Boxes (N, 4) cut off at the image of `size_wh`."""
    clipped: Array = np.maximum(np.minimum(xyxy, _twice(*size_wh)), 0.0)
    return clipped


def rescale_xyxy(xyxy: Array, from_wh: tuple[float, float], to_wh: tuple[float, float]) -> Array:
    """Boxes (N, 4) of an image of size `from_wh` in the coordinates of the same image at size `to_wh`."""
    if from_wh == to_wh:
        return xyxy
    return xyxy * _twice(to_wh[0] / from_wh[0], to_wh[1] / from_wh[1])


@lru_cache(maxsize=4096)
def _twice(x: float, y: float) -> Array:
    """(x, y, x, y), kept because the same sizes come again."""
    return np.array([x, y, x, y], dtype=np.float64)


def match_values(value: Array) -> NDArray[np.intp]:
    """The one-to-one assignment with the largest total of `value` (P, K) >= 0; pairs of value 0 are never matched.

    Returns (M, 2) row and column indices, by row. Only rows and columns that can match enter the assignment, so what
    matches nothing changes nothing.
    """
    pairs = np.argwhere(value > 0.0)
    if is_one_to_one(pairs):
        return pairs
    rows, columns = np.unique(pairs[:, 0]), np.unique(pairs[:, 1])
    possible = value[rows[:, None], columns]
    row, column = linear_sum_assignment(possible, maximize=True)
    taken = possible[row, column] > 0.0
    return np.stack([rows[row[taken]], columns[column[taken]]], axis=1)


def is_one_to_one(pairs: NDArray[np.intp]) -> bool:
    """Whether no row and no column stands in two of the pairs (M, 2): then there is nothing to choose between."""
    rows, columns = pairs.T.tolist()
    return len(set(rows)) == len(set(columns)) == len(pairs)


def match_iou(iou: Array, threshold: float) -> NDArray[np.intp]:
    """One-to-one match of predicted and true boxes by largest total IoU over the pairs with IoU >= `threshold`.

    `iou` is (P, K), `threshold` > 0; returns (M, 2) indices of predicted and true boxes, by predicted box.
    """
    return match_values(np.where(iou >= threshold, iou, 0.0))
