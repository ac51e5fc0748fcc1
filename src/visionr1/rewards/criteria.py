"""The criterion-driven reward of Vision-R1 (arXiv 2503.18013, sections 3.2 and 3.3), in the order of its equations.

P predicted boxes, K true boxes, M the number that precision is taken over; (xi0, xi1, xi2) the stage in force.
`score.py` puts the equations together for one completion.

Where the paper is silent or ambiguous, the choice is ours:
- Matching (Eq. 3) is the one-to-one assignment of largest total IoU over pairs with IoU >= xi0, labels left out
  (Table 3, "Box-only"), so that a box which overlaps nothing changes nothing. Option `detr` is the loss the paper
  builds on: Hungarian on 5 L1 (normalised cxcywh) + 2 (1 - GIoU). Boxes are matched in sorted order, so that a score
  never depends on the order in which equal assignments turn up.
- The labels' term (Table 3, "Box & Label") prefers pairs of equal labels by 1. Whether a wrong label voids a pair is an
  option, off by default.
- Precision (Eq. 6) divides by all P predicted boxes. The paper's M can also be read as the matched or the valid ones,
  which differ where matching pairs boxes below xi0 (`detr`) or a wrong label voids a pair.
- A malformed item counts as a predicted box that overlaps nothing; one out of bounds is clipped.
- No true object: recall and precision are 1 for the empty reply without a fault, else 0.
- The criteria have weights (Eq. 7), 1 by default, and `count` of the ablation (Table 4) is one more of them.
- The bounds of f (Eq. 8) are inclusive: f(xi2) = 1 and f(xi1) = xi1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from visionr1.boxes import Array, giou_matrix, iou_matrix, is_one_to_one, match_values
from visionr1.rewards.stages import Stage
from visionr1.samples import Boxes, GroundTruth, Reply, Size, normalize_label

MatchingRule = Literal["iou", "iou+label", "detr", "detr+label"]
Denominator = Literal["predicted", "matched", "valid"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A matched pair: index of the predicted box (among the reply's usable ones) and of the true one.

    `valid`: IoU >= xi0 (and, if a wrong label voids a pair, equal labels).
    """

    predicted: int
    true: int
    iou: float
    valid: bool
    label_correct: bool


def match(
    reply: Reply,
    truth: GroundTruth,
    stage: Stage,
    matching: MatchingRule = "iou",
    wrong_label_voids: bool = False,
) -> tuple[Pair, ...]:
    """Eq. 3: the one-to-one assignment of predicted to true boxes, by predicted box."""
    predicted, true = reply.boxes, truth.boxes
    if not len(predicted) or not len(true):
        return ()
    iou = iou_matrix(predicted.xyxy, true.xyxy)
    if matching in ("iou", "iou+label"):
        indices = _match_by_iou(iou, predicted, true, stage.xi0, "label" in matching)
    else:
        indices = _match_by_loss(predicted, true, truth.size_wh, "label" in matching)
    pairs = []
    for row, column in indices.tolist():
        overlap = float(iou[row, column])
        correct = normalize_label(predicted.labels[row]) == normalize_label(true.labels[column])
        valid = overlap >= stage.xi0 and (correct or not wrong_label_voids)
        pairs.append(Pair(row, column, overlap, valid, correct))
    return tuple(pairs)


def dual_format(reply: Reply) -> float:
    """Eq. 4: 1 if the text follows the template and every number obeys its constraints, else 0."""
    return float(reply.well_formed)


def recall(pairs: tuple[Pair, ...], num_true: int) -> float:
    """Eq. 5: valid pairs over K true boxes, before f."""
    return sum(pair.valid for pair in pairs) / num_true


def precision(ious: list[float], over: int) -> float:
    """Eq. 6: the sum of the valid pairs' IoUs (here: as f left them) over M boxes; 0 if M is 0."""
    return sum(ious) / over if over else 0.0


def total(parts: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Eq. 7: the sum of the criteria, each by its weight."""
    return sum(weight * parts[name] for name, weight in weights.items())


def differentiate(x: float, stage: Stage) -> float:
    """f of Eq. 8: 1 from xi2 on, 0 below xi1, x itself between. Of each pair's IoU, and of a completion's recall."""
    if x >= stage.xi2:
        return 1.0
    return 0.0 if x < stage.xi1 else x


def count(reply: Reply, truth: GroundTruth) -> float:
    """The count reward of the ablation (Table 4): 1 if and only if there are as many predicted as true boxes."""
    return float(reply.num_predicted == len(truth.boxes))


def _match_by_iou(iou: Array, predicted: Boxes, true: Boxes, xi0: float, by_label: bool) -> NDArray[np.intp]:
    """The assignment of largest total IoU (with the label's 1) over the pairs with IoU >= `xi0`."""
    value = np.where(iou >= xi0, iou + _same_label(predicted, true) if by_label else iou, 0.0)
    pairs = np.argwhere(value)
    if is_one_to_one(pairs):
        return pairs
    rows, columns = _canonical_order(predicted), _canonical_order(true)
    return _by_predicted(match_values(value[rows[:, None], columns]), rows, columns)


def _match_by_loss(predicted: Boxes, true: Boxes, size_wh: Size, by_label: bool) -> NDArray[np.intp]:
    """DETR's matching loss (Carion et al., 2020) without its class term, or with the label's."""
    a, b = (_cxcywh_unit(boxes.xyxy, size_wh) for boxes in (predicted, true))
    cost = 5.0 * np.abs(a[:, None] - b[None]).sum(axis=-1) + 2.0 * (1.0 - giou_matrix(predicted.xyxy, true.xyxy))
    if by_label:
        cost += ~_same_label(predicted, true)
    rows, columns = _canonical_order(predicted), _canonical_order(true)
    pairs = np.stack(linear_sum_assignment(cost[rows[:, None], columns]), axis=1)
    return _by_predicted(pairs, rows, columns)


def _canonical_order(boxes: Boxes) -> NDArray[np.intp]:
    """An order of boxes that does not depend on how they were given: by coordinates, then label."""
    x1, y1, x2, y2 = boxes.xyxy.T
    return np.lexsort((boxes.labels, y2, x2, y1, x1))


def _by_predicted(pairs: NDArray[np.intp], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.intp]:
    """Pairs of indices into the orders `rows` and `columns`, as indices into the boxes, by predicted box."""
    predicted = rows[pairs[:, 0]]
    order = predicted.argsort()
    return np.stack([predicted[order], columns[pairs[order, 1]]], axis=1)


def _same_label(predicted: Boxes, true: Boxes) -> NDArray[np.bool_]:
    """Whether labels are equal: (P, K)."""
    names, true_names = (list(map(normalize_label, boxes.labels)) for boxes in (predicted, true))
    return np.array([[name == other for other in true_names] for name in names])


def _cxcywh_unit(xyxy: Array, size_wh: Size) -> Array:
    """Boxes as centre, width and height, in shares of the image."""
    centre, side = (xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]
    return np.concatenate([centre / size_wh, side / size_wh], axis=1)
