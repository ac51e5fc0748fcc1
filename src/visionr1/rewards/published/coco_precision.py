"""COCO's average precision of one image whose predicted boxes all score alike, so that their order ranks them.

Equal to pycocotools, to the last bits, with areas "all" and maxDets 100. P predicted and K true boxes of one class.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from visionr1.boxes import Array, box_area
from visionr1.samples import Boxes

THRESHOLDS: list[float] = np.linspace(0.5, 0.95, 10).tolist()
_RECALLS = np.linspace(0.0, 1.0, 101)
_MAX_DETECTIONS = 100  # COCO's maxDets, per class
_LARGEST_AREA = 1e10  # COCO's areaRng "all"; an unmatched box outside of 0 to this is left out


def average_precisions(predicted: Boxes, true: Boxes) -> list[float]:
    """Return COCO's AP at IoU .5, .55, ... .95: the mean over the classes of the true boxes.

    Labels must be equal to the letter.
    """
    names = list(dict.fromkeys(true.labels))
    totals = [0.0] * len(THRESHOLDS)
    for name in names:
        predicted_xyxy = _boxes_of_class(predicted, name)[:_MAX_DETECTIONS]
        if not len(predicted_xyxy):
            continue
        precisions = _class_precisions(predicted_xyxy, _boxes_of_class(true, name))
        for index, precision in enumerate(precisions):
            totals[index] += precision
    return [total / len(names) for total in totals]


def _boxes_of_class(boxes: Boxes, name: str) -> Array:
    places = [place for place, label in enumerate(boxes.labels) if label == name]
    return boxes.xyxy[places]


def _class_precisions(predicted: Array, true: Array) -> Iterator[float]:
    """Yield AP at each threshold, of one class: greedy matching in the order of writing, to the best free true box."""
    area = box_area(predicted)
    counted = ((area >= 0) & (area <= _LARGEST_AREA)).tolist()

    # Keep the pairs that can match at the lowest threshold: most cannot.
    lowest = THRESHOLDS[0] - 1e-9
    near = []
    for row in _coco_iou(predicted, true).tolist():
        near.append([(column, iou) for column, iou in enumerate(row) if iou >= lowest])

    for threshold in THRESHOLDS:
        ranks = _ranks_of_hits(near, counted, min(threshold, 1 - 1e-10))
        yield _precision_over_recall(ranks, len(true))


def _ranks_of_hits(near: list[list[tuple[int, float]]], counted: list[bool], threshold: float) -> list[int]:
    """Return the rank, from 1, of each predicted box that gets a free true box of IoU >= `threshold`.

    Of equally good true boxes the last wins, as in pycocotools.
    """
    ranks: list[int] = []
    taken: set[int] = set()
    rank = 0
    for candidates, counts in zip(near, counted, strict=True):
        best = threshold
        match = -1
        for column, iou in candidates:
            if iou >= best and column not in taken:
                best = iou
                match = column

        rank += match >= 0 or counts
        if match >= 0:
            taken.add(match)
            ranks.append(rank)
    return ranks


def _precision_over_recall(ranks: list[int], num_true: int) -> float:
    """Return the mean, over 101 recalls, of the best precision at that recall or a higher one."""
    weights = _recalls_reached(num_true)
    total = best = 0.0
    for hits in range(len(ranks), 0, -1):
        best = max(best, hits / ranks[hits - 1])
        total += weights[hits - 1] * best
    return total / len(_RECALLS)


@lru_cache(maxsize=1024)
def _recalls_reached(num_true: int) -> list[int]:
    """Count the recalls, of COCO's 101, that are reached by the first hit, the second, ... the last."""
    reached = np.searchsorted(_RECALLS, np.arange(num_true + 1) / num_true, side="right")
    reached[0] = 0
    weights: list[int] = np.diff(reached).tolist()
    return weights


def _coco_iou(a: Array, b: Array) -> Array:
    """Return IoU (P, K) by COCO's arithmetic, which goes through width and height: equal to the last bit."""
    side_a = a[:, 2:] - a[:, :2]
    side_b = b[:, 2:] - b[:, :2]
    bottom_right = np.minimum((a[:, :2] + side_a)[:, None], b[:, :2] + side_b)
    top_left = np.maximum(a[:, None, :2], b[:, :2])
    intersection = np.maximum(bottom_right - top_left, 0.0).prod(axis=-1)
    union = side_a.prod(axis=-1)[:, None] + side_b.prod(axis=-1) - intersection
    iou: Array = np.divide(intersection, union, out=np.zeros_like(intersection), where=intersection > 0)
    return iou
