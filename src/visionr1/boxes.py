"""Boxes as arrays: overlap, clipping, rescaling, one-to-one matching. Everything is `xyxy` in one coordinate space."""

from __future__ import annotations

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
    intersection, union = _intersection_union(a, b)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


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
    width, height = size_wh
    return np.clip(xyxy, 0.0, (width, height, width, height))


def rescale_xyxy(xyxy: Array, from_wh: tuple[float, float], to_wh: tuple[float, float]) -> Array:
    """Boxes (N, 4) of an image of size `from_wh` in the coordinates of the same image at size `to_wh`."""
    if from_wh == to_wh:
        return xyxy
    x, y = to_wh[0] / from_wh[0], to_wh[1] / from_wh[1]
    return xyxy * (x, y, x, y)


def match_values(value: Array) -> NDArray[np.intp]:
    """The one-to-one assignment with the largest total of `value` (P, K) >= 0; pairs of value 0 are never matched.

    Returns (M, 2) row and column indices, by row. Only rows and columns that can match enter the assignment, so what
    matches nothing changes nothing.
    """
    candidates = value > 0.0
    rows, columns = np.flatnonzero(candidates.any(axis=1)), np.flatnonzero(candidates.any(axis=0))
    if not len(rows):
        return np.zeros((0, 2), dtype=np.intp)
    possible = value[np.ix_(rows, columns)]
    row, column = linear_sum_assignment(possible, maximize=True)
    taken = possible[row, column] > 0.0
    return np.stack([rows[row[taken]], columns[column[taken]]], axis=1)


def match_iou(iou: Array, threshold: float) -> NDArray[np.intp]:
    """One-to-one match of predicted and true boxes by largest total IoU over the pairs with IoU >= `threshold`.

    `iou` is (P, K), `threshold` > 0; returns (M, 2) indices of predicted and true boxes, by predicted box.
    """
    return match_values(np.where(iou >= threshold, iou, 0.0))
