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
from visionr1.evaluation.grounding.scoring import GroundingMetric, GroundingProtocol, Ratios


def grec_ratios(boxes: Sequence[Array], truths: Sequence[Array], protocol: GroundingProtocol) -> Ratios:
    """F1 = 1 or not, of all samples; nothing predicted, of those without target; something predicted, of the others."""
    over, under = np.zeros((2, len(truths), 3))
    for row, (found, true) in enumerate(zip(boxes, truths, strict=True)):
        kind = 2 if len(true) else 1
        under[row, [0, kind]] = 1
        over[row, kind] = bool(len(found)) == bool(len(true))
        over[row, 0] = len(found) == len(true) == num_matched(protocol.overlaps(found, true), protocol)
    return over, under


def num_matched(overlap: Array, protocol: GroundingProtocol) -> int:
    """How many pairs of (P, K) the authors' greedy matching takes."""
    left = overlap.copy()
    fewer = int(min(left.shape))
    for matched in range(fewer):
        row, column = np.unravel_index(left.argmax(), left.shape)
        if not protocol.is_right(left[row, column]):
            return matched
        left[row, :] = left[:, column] = -np.inf
    return fewer


GREC = GroundingMetric(
    names=("Pr@(F1=1)", "N-acc", "T-acc"),
    rule="Pr@(F1=1) by greedy matching, N-acc and T-acc by whether there is any box",
    ratios=grec_ratios,
)
