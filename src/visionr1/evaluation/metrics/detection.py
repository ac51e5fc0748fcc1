"""Detection: COCO's figures, precision, recall and F1, with the errors of boxes and the faults of replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from visionr1.errors import DataError
from visionr1.evaluation.detection.coco_results import merge_detections
from visionr1.evaluation.detection.scoring import evaluate_boxes, evaluate_replies
from visionr1.evaluation.metrics import Metric
from visionr1.evaluation.protocols import COCO_RESULTS, Protocol
from visionr1.evaluation.result import Result
from visionr1.evaluation.units import Answers, BoxFiles, Unit


def score_detection(unit: Unit, answers: Answers, protocol: Protocol, num_resamples: int | None) -> dict[str, Result]:
    """Score raw replies or files of COCO results against the unit's table; one result for each of its parts."""
    # A unit without parts is one part, of all its categories.
    parts = unit.parts or {unit.name: None}
    if isinstance(answers, BoxFiles):
        return _score_boxes(unit, parts, answers, protocol, num_resamples)

    results = {}
    for name, kept in parts.items():
        results[name] = evaluate_replies(
            unit.table,
            answers.predictions,
            dialect=answers.dialect,
            protocol=protocol,
            num_resamples=num_resamples,
            kept=kept,
        )
    return results


def _score_boxes(
    unit: Unit,
    parts: Mapping[str, Sequence[int] | None],
    answers: BoxFiles,
    protocol: Protocol,
    num_resamples: int | None,
) -> dict[str, Result]:
    """Score COCO results. Scores in the file are kept unless the protocol's are constant."""
    detections, num_unknown = merge_detections(answers.files, unit.table)
    if protocol.scores == "constant":
        detections = replace(detections, score=np.full(len(detections), protocol.constant_score))
    elif protocol.scores != "file":
        raise DataError(f"protocol {protocol.name}: scores={protocol.scores} is for replies, not for a results file")

    # A box may end one pixel beyond its image by rounding; images without a size are not checked.
    sizes = unit.table.sizes_wh[detections.image]
    ends = detections.xywh[:, :2] + detections.xywh[:, 2:]
    is_beyond = (ends > sizes + 1).any(axis=1) & sizes.all(axis=1)
    file_counts = {"unknown_categories": num_unknown, "boxes_beyond_image": int(is_beyond.sum())}

    results = {}
    for name, kept in parts.items():
        result = evaluate_boxes(unit.table, detections, protocol=protocol, kept=kept, num_resamples=num_resamples)
        results[name] = replace(result, counts={**result.counts, **file_counts})
    return results


DETECTION = Metric(name="detection", score=score_detection, box_protocol=COCO_RESULTS.name)
METRIC = DETECTION
