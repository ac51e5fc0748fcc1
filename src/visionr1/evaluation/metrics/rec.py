"""Referring expression comprehension: accuracy of the one box that an expression names.

RefCOCO, RefCOCO+, RefCOCOg and LISA-Grounding. A sample is right if the box of its reply has an IoU of 0.5 with the
true one. Traps: mmdetection, VLMEvalKit and lmms-eval take `>=`, Griffon, Vision-R1 and VLM-R1 `>` (protocol field
`comparison`). lmms-eval takes the best of all boxes of a reply and of two coordinate spaces, which is an oracle: here
the first box counts, or of a results file the best scored. A true box of zero size can never be found and counts, as in
Griffon's denominator. VLM-R1's evaluation draws 2000 samples; here all are scored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visionr1.boxes import Array, iou_matrix
from visionr1.errors import DataError
from visionr1.evaluation.metrics import Metric
from visionr1.evaluation.metrics.ratios import Ratios, RatioScore, is_right, overlap_matrix
from visionr1.evaluation.protocols import EXPRESSION_DEFAULT, EXPRESSION_PROTOCOLS, Protocol


def rec_ratios(boxes: Sequence[Array], truths: Sequence[Array], protocol: Protocol) -> Ratios:
    """Return whether the first box of each sample is right, and its IoU; 0 where there is none."""
    numerators = np.zeros((len(truths), 2))
    for row, (predicted, true) in enumerate(zip(boxes, truths, strict=True)):
        if len(true) != 1:
            raise DataError(f"sample {row}: accuracy is of one true box, but this one has {len(true)}; is it gRefCOCO?")
        # The first box counts, and a sample without one stays at 0.
        if len(predicted):
            first = predicted[:1]
            numerators[row, 0] = is_right(overlap_matrix(first, true, protocol), protocol)[0, 0]
            numerators[row, 1] = iou_matrix(first, true)[0, 0]
    return numerators, np.ones_like(numerators)


REC = Metric(
    name="rec",
    score=RatioScore(
        names=("accuracy", "mean IoU"),
        rule="of several boxes the first counts, of scored ones the best",
        ratios=rec_ratios,
    ),
    protocol=EXPRESSION_DEFAULT,
    protocols=EXPRESSION_PROTOCOLS,
    needs_samples=True,
)
METRIC = REC
