"""Generalised referring (GREC, He et al., arXiv 2308.16182): an expression names one object, several or none.

Of gRefCOCO: Pr@(F1=1) is the share of samples whose boxes are found without a miss or a false one; N-acc that of the
samples without a target for which nothing is predicted; T-acc that of the others for which something is. Matching is
the authors' (henghuiding/gRefCOCO, mdetr/datasets/refexp.py): the pair of largest overlap is taken until none reaches
0.5 (`>=`). Traps: their code compares generalised IoU where the paper says IoU (its issue 9): `--protocol grec_giou`;
it keeps boxes of score 0.7 and above (`min_score`); mmdetection's copy reads only one of several true boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visionr1.boxes import Array
from visionr1.evaluation.metrics import Metric
from visionr1.evaluation.metrics.ratios import Ratios, RatioScore, is_right, overlap_matrix
from visionr1.evaluation.protocols import EXPRESSION_PROTOCOLS, GREC_DEFAULT, Protocol

F1_IS_1, N_ACC, T_ACC = range(3)


def grec_ratios(boxes: Sequence[Array], truths: Sequence[Array], protocol: Protocol) -> Ratios:
    """Return whether F1 is 1, of all samples, and whether there is a box exactly where there is a target."""
    numerators = np.zeros((len(truths), 3))
    denominators = np.zeros((len(truths), 3))
    for row, (predicted, true) in enumerate(zip(boxes, truths, strict=True)):
        # A sample counts for F1, and for the accuracy of its kind: with a target, or without one.
        kind = T_ACC if len(true) else N_ACC
        denominators[row, [F1_IS_1, kind]] = 1
        numerators[row, kind] = bool(len(predicted)) == bool(len(true))

        # F1 is 1 where every box of both sides is matched; where there is none on either, too.
        matched = count_matched(overlap_matrix(predicted, true, protocol), protocol)
        numerators[row, F1_IS_1] = len(predicted) == len(true) == matched
    return numerators, denominators


def count_matched(overlap: Array, protocol: Protocol) -> int:
    """Count the pairs of (P, K) that the authors' greedy matching takes."""
    remaining = overlap.copy()
    most = int(min(remaining.shape))
    for matched in range(most):
        row, column = np.unravel_index(remaining.argmax(), remaining.shape)
        if not is_right(remaining[row, column], protocol):
            return matched
        # Both boxes are taken.
        remaining[row, :] = -np.inf
        remaining[:, column] = -np.inf
    return most


GREC = Metric(
    name="grec",
    score=RatioScore(
        names=("Pr@(F1=1)", "N-acc", "T-acc"),
        rule="Pr@(F1=1) by greedy matching, N-acc and T-acc by whether there is any box",
        ratios=grec_ratios,
    ),
    protocol=GREC_DEFAULT,
    protocols=EXPRESSION_PROTOCOLS,
    needs_samples=True,
)
METRIC = GREC
