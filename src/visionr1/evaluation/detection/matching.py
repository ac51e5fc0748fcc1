"""Match predicted and true boxes of a whole set at once: one-to-one by largest total IoU, labels equal.

Axis letters: D predicted boxes, A true ones (crowd regions among them), M pairs of the two in one image.
"""

from __future__ import annotations

from collections.abc import Iterator
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
class BoxPairs:
    """M pairs of a predicted and a true box of one image, by predicted box.

    `overlap` is their IoU, unless a function says that it is something else.
    """

    predicted: Index
    true: Index
    overlap: Array

    def __len__(self) -> int:
        return len(self.predicted)

    def keep(self, rows: NDArray[np.bool_]) -> BoxPairs:
        """Return the pairs where `rows` (M,) is true."""
        return BoxPairs(self.predicted[rows], self.true[rows], self.overlap[rows])


@dataclass(frozen=True, slots=True, eq=False)
class BoxMatching:
    """A one-to-one matching of D predicted and A true boxes."""

    true_of_predicted: Index
    """(D,) the true box of each predicted one; -1 for none."""
    predicted_of_true: Index
    """(A,) the predicted box of each true one; -1 for none."""
    excused: NDArray[np.bool_]
    """(D,) without a true box, but for the most part in a crowd region of the category: neither right nor false."""

    def counts(self, table: BoxTable, detections: Detections) -> NDArray[np.int64]:
        """Count right, predicted and true boxes (N, 3) of each image; excused ones are no predictions."""
        num_images = len(table)
        num_right = np.bincount(detections.image[self.true_of_predicted >= 0], minlength=num_images)
        num_predicted = np.bincount(detections.image[~self.excused], minlength=num_images)
        num_true = np.bincount(table.image[~table.iscrowd], minlength=num_images)
        return np.stack([num_right, num_predicted, num_true], axis=1)


def match_boxes(table: BoxTable, detections: Detections, pairs: BoxPairs, threshold: float) -> BoxMatching:
    """Match the boxes of one category with IoU >= `threshold`, in every image.

    `pairs` are the overlaps of the two down to `threshold` or below.
    """
    same_category = detections.category[pairs.predicted] == table.category[pairs.true]
    candidates = pairs.keep(same_category & (pairs.overlap >= threshold))
    matched = _assign(candidates, len(detections), len(table.image))

    true_of_predicted = np.full(len(detections), -1, dtype=np.intp)
    predicted_of_true = np.full(len(table.image), -1, dtype=np.intp)
    true_of_predicted[matched.predicted] = matched.true
    predicted_of_true[matched.true] = matched.predicted

    # A box without a match is excused where a crowd region of its category covers enough of it.
    excused = np.zeros(len(detections), dtype=bool)
    if table.iscrowd.any():
        in_crowd = overlapping_pairs(table, detections, threshold, crowds=True)
        same_category = detections.category[in_crowd.predicted] == table.category[in_crowd.true]
        excused[in_crowd.predicted[same_category]] = True
    return BoxMatching(true_of_predicted, predicted_of_true, excused & (true_of_predicted < 0))


def overlapping_pairs(table: BoxTable, detections: Detections, least: float, *, crowds: bool = False) -> BoxPairs:
    """Return the pairs of a predicted and a true box of one image, of any categories, with IoU >= `least` > 0.

    With `crowds` the pairs with crowd regions instead, and of each the share of the predicted box inside the region.
    """
    # True boxes sorted by image; for each predicted box the place of its image's first one, and their number.
    true_boxes = np.flatnonzero(table.iscrowd == crowds)
    true_boxes = true_boxes[np.argsort(table.image[true_boxes], kind="stable")]
    true_images = table.image[true_boxes]
    first = np.searchsorted(true_images, detections.image, side="left")
    number = np.searchsorted(true_images, detections.image, side="right") - first

    # In blocks, to bound the memory; the empty one stands for sets without pairs.
    blocks = [BoxPairs(np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp), np.zeros(0))]
    for block in _blocks_of_pairs(number):
        start, stop = block.start, block.stop
        predicted = np.repeat(np.arange(start, stop), number[block])
        # Within the run of one predicted box, its true boxes count up from `first`.
        run_starts = np.cumsum(number[block]) - number[block]
        place = np.arange(len(predicted)) + np.repeat(first[block] - run_starts, number[block])
        true = true_boxes[place]
        blocks.append(_keep_overlapping(detections.xywh, table.xywh, predicted, true, least, of_predicted=crowds))
    return BoxPairs(
        np.concatenate([block.predicted for block in blocks]),
        np.concatenate([block.true for block in blocks]),
        np.concatenate([block.overlap for block in blocks]),
    )


def _blocks_of_pairs(number: Index) -> Iterator[slice]:
    """Split predicted boxes with `number` (D,) pairs each into slices of about PAIRS_AT_ONCE pairs."""
    ends = np.cumsum(number)
    start = 0
    while start < len(number):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, side="right")))
        yield slice(start, stop)
        start = stop


def _keep_overlapping(
    predicted_xywh: Array, true_xywh: Array, predicted: Index, true: Index, least: float, *, of_predicted: bool
) -> BoxPairs:
    """Return the pairs (rows `predicted` and `true`) of overlap >= `least`.

    The overlap is the IoU or, `of_predicted`, the share of the predicted box.
    """
    # Most pairs end at the first axis, so that the second is computed for the others alone.
    width = _shared_length(predicted_xywh, true_xywh, predicted, true, axis=0)
    near = np.flatnonzero(width > 0)
    predicted = predicted[near]
    true = true[near]
    width = width[near]

    height = _shared_length(predicted_xywh, true_xywh, predicted, true, axis=1)
    near = np.flatnonzero(height > 0)
    predicted = predicted[near]
    true = true[near]
    intersection = width[near] * height[near]

    # The denominator is the union, or the predicted box alone.
    denominator = predicted_xywh[predicted, 2] * predicted_xywh[predicted, 3]
    if not of_predicted:
        denominator = denominator + true_xywh[true, 2] * true_xywh[true, 3] - intersection
    overlap = np.divide(intersection, denominator, out=np.zeros_like(intersection), where=denominator > 0)
    return BoxPairs(predicted, true, overlap).keep(overlap >= least)


def _shared_length(predicted_xywh: Array, true_xywh: Array, predicted: Index, true: Index, *, axis: int) -> Array:
    """Return how far the boxes of each pair overlap along one axis (0 x, 1 y), in pixels; 0 or less if not."""
    # Gathering rows from a contiguous column is faster than from a strided one.
    low = np.ascontiguousarray(predicted_xywh[:, axis])
    high = low + predicted_xywh[:, axis + 2]
    true_low = np.ascontiguousarray(true_xywh[:, axis])
    true_high = true_low + true_xywh[:, axis + 2]

    length: Array = np.minimum(high[predicted], true_high[true]) - np.maximum(low[predicted], true_low[true])
    return length


def _assign(pairs: BoxPairs, num_predicted: int, num_true: int) -> BoxPairs:
    """Return the one-to-one pairs of largest total overlap, component by component of what hangs together.

    A component with one true box, or with one predicted one, takes its best pair; only others need an assignment.
    """
    if not len(pairs):
        return pairs

    # Connected components of the graph whose nodes are the predicted boxes, then the true ones.
    num_nodes = num_predicted + num_true
    edges = (np.ones(len(pairs), dtype=bool), (pairs.predicted, num_predicted + pairs.true))
    _, component_of_node = connected_components(coo_array(edges, (num_nodes, num_nodes)), directed=False)
    component = component_of_node[pairs.predicted]
    num_components = int(component_of_node.max()) + 1

    # A star: a component with one box on one of its two sides.
    predicted_nodes = np.unique(pairs.predicted)
    true_nodes = num_predicted + np.unique(pairs.true)
    predicted_in_component = np.bincount(component_of_node[predicted_nodes], minlength=num_components)
    true_in_component = np.bincount(component_of_node[true_nodes], minlength=num_components)
    is_star = np.minimum(predicted_in_component, true_in_component)[component] == 1

    # Stars take the best pair of the component, the first of equal ones.
    order = np.lexsort((-pairs.overlap, component))
    _, first_in_component = np.unique(component[order], return_index=True)
    is_best = np.zeros(len(pairs), dtype=bool)
    is_best[order[first_in_component]] = True
    chosen = is_best & is_star

    # Each other component takes the best assignment.
    rest = np.flatnonzero(~is_star)
    if len(rest):
        rest = rest[np.argsort(component[rest], kind="stable")]
        borders = np.flatnonzero(np.diff(component[rest])) + 1
        for rows in np.split(rest, borders):
            chosen[_best_assignment(pairs, rows)] = True
    return pairs.keep(chosen)


def _best_assignment(pairs: BoxPairs, rows: Index) -> Index:
    """Return the rows of the pairs of one component that make the largest total overlap, one-to-one."""
    predicted, row = np.unique(pairs.predicted[rows], return_inverse=True)
    true, column = np.unique(pairs.true[rows], return_inverse=True)
    value = np.zeros((len(predicted), len(true)))
    value[row, column] = pairs.overlap[rows]
    pair_at = np.full(value.shape, -1, dtype=np.intp)
    pair_at[row, column] = rows

    matched = match_values(value)
    chosen: Index = pair_at[matched[:, 0], matched[:, 1]]
    return chosen
