"""Which predicted box is which true one, for a whole set at once: one-to-one by largest total IoU, labels equal.

Axis letters: D predicted boxes, A true ones (crowd regions among them), M pairs of the two in one image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from visionr1.boxes import Array, match_values
from visionr1.data.table import BoxTable, Index
from visionr1.evaluation.detection.coco import Detections

PAIRS_AT_ONCE = 1 << 21
"""Pairs whose overlap is computed together: what bounds the memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """M pairs of a predicted and a true box of one image, by predicted box; `overlap` is their IoU unless said."""

    found: Index
    true: Index
    overlap: Array

    def keep(self, rows: NDArray[np.bool_]) -> Pairs:
        """The pairs where `rows` (M,) is true."""
        return Pairs(self.found[rows], self.true[rows], self.overlap[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """`of_found` (D,) is the true box of each predicted one and `of_true` (A,) the reverse, -1 for none.

    `excused` (D,): no true box, but for the most part in a crowd region of its category: neither right nor false.
    """

    of_found: Index
    of_true: Index
    excused: NDArray[np.bool_]

    def counts(self, table: BoxTable, detections: Detections) -> NDArray[np.int64]:
        """Right, predicted and true boxes (N, 3) of each image; excused ones are no predictions."""
        right = detections.image[self.of_found >= 0]
        parts = right, detections.image[~self.excused], table.image[~table.iscrowd]
        return np.stack([np.bincount(part, minlength=len(table)) for part in parts], axis=1)


def match_boxes(table: BoxTable, detections: Detections, pairs: Pairs, threshold: float) -> Matching:
    """The matching of boxes of one category with IoU >= `threshold`, in every image.

    `pairs` are the overlaps of the two down to `threshold` or below.
    """
    same = detections.category[pairs.found] == table.category[pairs.true]
    own = pairs.keep(same & (pairs.overlap >= threshold))
    chosen = _assign(own, len(detections), len(table.image))
    of_found = np.full(len(detections), -1, dtype=np.intp)
    of_true = np.full(len(table.image), -1, dtype=np.intp)
    of_found[chosen.found], of_true[chosen.true] = chosen.true, chosen.found
    excused = np.zeros(len(detections), dtype=bool)
    if table.iscrowd.any():
        inside = overlaps(table, detections, threshold, crowds=True)
        excused[inside.found[detections.category[inside.found] == table.category[inside.true]]] = True
    return Matching(of_found, of_true, excused & (of_found < 0))


def overlaps(table: BoxTable, detections: Detections, least: float, *, crowds: bool = False) -> Pairs:
    """The pairs of a predicted and a true box of one image, of any categories, whose IoU is at least `least` > 0.

    With `crowds` the pairs with crowd regions instead, and of each the share of the predicted box inside the region.
    """
    found_key, true_key = detections.image, table.image
    rows = np.flatnonzero(table.iscrowd == crowds)
    rows = rows[np.argsort(true_key[rows], kind="stable")]
    first = np.searchsorted(true_key[rows], found_key, side="left")
    number = np.searchsorted(true_key[rows], found_key, side="right") - first
    ends = np.cumsum(number)
    parts = [Pairs(np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp), np.zeros(0))]
    start = 0
    while start < len(found_key):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, side="right")))
        own = number[start:stop]
        found = np.repeat(np.arange(start, stop), own)
        skip = np.repeat(first[start:stop] - (ends[start:stop] - own - done), own)
        true = rows[np.arange(len(found)) + skip]
        parts.append(_overlapping(detections.xywh, table.xywh, found, true, least, of_found=crowds))
        start = stop
    return Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in Pairs.__slots__))


def _overlapping(a: Array, b: Array, found: Index, true: Index, least: float, *, of_found: bool) -> Pairs:
    """The pairs of boxes xywh `a[found]` and `b[true]` of overlap >= `least`: IoU, or `of_found` the share of a."""
    shared = np.ones(0)
    for axis in (0, 1):  # most pairs end at the first
        low, high = np.ascontiguousarray(a[:, axis]), np.ascontiguousarray(b[:, axis])
        a_end, b_end = low + a[:, axis + 2], high + b[:, axis + 2]
        side = np.minimum(a_end[found], b_end[true]) - np.maximum(low[found], high[true])
        near = np.flatnonzero(side > 0)
        found, true, side = found[near], true[near], side[near]
        shared = shared[near] * side if axis else side
    whole = a[found, 2] * a[found, 3]
    if not of_found:
        whole = whole + b[true, 2] * b[true, 3] - shared
    overlap = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    return Pairs(found, true, overlap).keep(overlap >= least)


def _assign(pairs: Pairs, num_found: int, num_true: int) -> Pairs:
    """The one-to-one pairs of largest total overlap: part by part of what hangs together.

    A part with one true box, or with one predicted one, takes its best pair; only the others need an assignment.
    """
    if not len(pairs.found):
        return pairs
    nodes = num_found + num_true
    graph = coo_array((np.ones(len(pairs.found), dtype=bool), (pairs.found, num_found + pairs.true)), (nodes, nodes))
    _, part_of = connected_components(graph, directed=False)
    part = part_of[pairs.found]
    num_parts = int(part_of.max()) + 1
    founds = np.bincount(part_of[np.unique(pairs.found)], minlength=num_parts)
    trues = np.bincount(part_of[num_found + np.unique(pairs.true)], minlength=num_parts)
    star = np.minimum(founds, trues)[part] == 1
    order = np.lexsort((-pairs.overlap, part))  # within a part: best first, then as they were
    best = np.zeros(len(order), dtype=bool)
    best[order[np.unique(part[order], return_index=True)[1]]] = True
    chosen = best & star
    rest = np.flatnonzero(~star)
    rest = rest[np.argsort(part[rest], kind="stable")]
    for own in np.split(rest, np.flatnonzero(np.diff(part[rest])) + 1) if len(rest) else ():
        found, row = np.unique(pairs.found[own], return_inverse=True)
        true, column = np.unique(pairs.true[own], return_inverse=True)
        value = np.zeros((len(found), len(true)))
        value[row, column] = pairs.overlap[own]
        place = np.full(value.shape, -1, dtype=np.intp)
        place[row, column] = own
        taken = match_values(value)
        chosen[place[taken[:, 0], taken[:, 1]]] = True
    return pairs.keep(chosen)
