"""Detection, measured: COCO's figures with what they hide beside them.

A constant-score AP mixes how well boxes lie with how many were written, so AR, precision, recall and F1, the faults of
the replies and the number of boxes always stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionr1.data.table import BoxTable
from visionr1.dialects import Dialect
from visionr1.errors import DataError
from visionr1.evaluation.asking import evenly
from visionr1.evaluation.detection.box_errors import NEAR, box_errors
from visionr1.evaluation.detection.coco import FIGURES, Detections, coco_figures, coco_matches, image_ranks
from visionr1.evaluation.detection.matching import match_boxes, overlapping_pairs
from visionr1.evaluation.detection.replies import (
    NOT_ASKED_FOR,
    count_faults,
    count_stray_boxes,
    parse_replies,
    score_boxes,
)
from visionr1.evaluation.detection.resampling import DetectionResampler
from visionr1.evaluation.predictions import Prediction
from visionr1.evaluation.protocols import DEFAULT, Protocol
from visionr1.evaluation.result import Result
from visionr1.evaluation.statistics import NUM_RESAMPLES, intervals

MAX_RESAMPLED = 50_000
"""Boxes up to which intervals are computed unless asked for: 1000 resamples of so many take about 15 seconds."""
MAX_CATEGORIES = 1000
"""Categories up to which intervals are computed unless asked for: of V3Det's 13,204 they would take an hour."""


def evaluate_replies(
    table: BoxTable,
    predictions: Sequence[Prediction],
    *,
    dialect: Dialect,
    protocol: Protocol = DEFAULT,
    num_resamples: int | None = None,
    kept: Sequence[int] | None = None,
) -> Result:
    """Return the figures of raw replies against a table. An image without a reply counts as one without boxes.

    With `kept`, positions of categories, the figures are of those alone. A box counts for a category only if its own
    prompt asked for it; where prompts name only what their image holds, the protocol of the result says so. Raises
    DataError for an unknown image id, for a reply whose dialect needs a size that it does not have, and for a protocol
    that takes scores from a results file.
    """
    if protocol.scores == "file":
        raise DataError(f"protocol {protocol.name} takes scores from a results file, but these are replies; set scores")
    protocol = replace(protocol, dialect=dialect.name)
    if protocol.limit:
        table = table.take(evenly(range(len(table)), protocol.limit))

    parsed = parse_replies(predictions, table, dialect, protocol)
    if protocol.categories == "all" and parsed.names_only_what_is_there(table):
        protocol = replace(protocol, categories="present", name=f"{protocol.name} with categories=present")

    # The boxes of labels that were asked for, and of those again only the boxes of well-formed replies.
    boxes, reply_of_box = parsed.boxes(table, score_boxes(parsed, table, dialect, protocol))
    was_asked = boxes.category != NOT_ASKED_FOR
    well_formed = np.array([reply.well_formed for reply in parsed.replies], dtype=bool)
    salvaged = boxes.keep(was_asked)
    strict = salvaged.keep(well_formed[reply_of_box[was_asked]])

    if protocol.parse == "strict":
        result = evaluate_boxes(table, strict, protocol=protocol, num_resamples=num_resamples, kept=kept)
        strict_figures: Sequence[float] = result.extras["coco"]
    else:
        stray = count_stray_boxes(parsed, table, boxes.image[~was_asked], reply_of_box[~was_asked], kept)
        result = evaluate_boxes(table, salvaged, protocol=protocol, stray=stray, num_resamples=num_resamples, kept=kept)
        strict_figures = coco_figures(table, strict, protocol, kept)[0]
    return replace(
        result,
        metrics={**result.metrics, "AP strict": strict_figures[0]},
        counts={**result.counts, **parsed.counts(table)},
        faults=count_faults(parsed.replies),
        extras={**result.extras, "strict": list(strict_figures)},
    )


def evaluate_boxes(
    table: BoxTable,
    detections: Detections,
    *,
    protocol: Protocol,
    stray: NDArray[np.int64] | None = None,
    num_resamples: int | None = None,
    kept: Sequence[int] | None = None,
) -> Result:
    """Return the figures of boxes, of whatever origin; with `kept`, positions of categories, of those alone.

    `stray` (N,) counts the boxes of each image that no category takes (unknown label, malformed): they cost
    precision. `num_resamples` are for the intervals: 0 for none; by default NUM_RESAMPLES, and none for more
    than MAX_RESAMPLED boxes or MAX_CATEGORIES categories, where they would take far longer than all else.
    """
    if num_resamples is None:
        num_resamples = _choose_num_resamples(table, detections)
    coco, category_aps = coco_figures(table, detections, protocol, kept)
    category_matches = coco_matches(table, detections, protocol) if num_resamples else []
    if kept is not None:
        # AP depends on the other categories too (suppression, a tree), the rest does not.
        if category_matches:
            category_matches = [category_matches[place] for place in kept]
        detections = detections.of_categories(kept, len(table.categories))
        table = table.take_categories(kept)

    # One-to-one matching at the protocol's IoU: right, predicted and true boxes (N, 3) of each image.
    pairs = overlapping_pairs(table, detections, min(NEAR, protocol.match_iou))
    matching = match_boxes(table, detections, pairs, protocol.match_iou)
    counts = matching.counts(table, detections)
    if stray is not None:
        counts[:, 1] += stray

    resampler, interval = None, {}
    if num_resamples:
        ranked_counts = np.empty_like(counts)
        ranked_counts[image_ranks(table, protocol.order)] = counts
        resampler = DetectionResampler(tuple(category_matches), ranked_counts, protocol.max_dets[-1])
        interval = intervals(resampler, num_resamples=num_resamples)

    true_by_category = np.bincount(table.category[~table.iscrowd], minlength=len(table.categories))
    return Result(
        protocol=protocol,
        metrics=_headline_metrics(coco, counts, protocol),
        interval=interval,
        counts=_count_boxes(table, counts, true_by_category),
        extras={
            "coco": list(coco),
            "per_category": _tabulate_categories(table, detections, category_aps, true_by_category),
            "errors": box_errors(table, detections, pairs, matching, protocol.match_iou),
            "strict": None,
        },
        resampler=resampler,
        scored=(table, detections),
    )


def _choose_num_resamples(table: BoxTable, detections: Detections) -> int:
    """Return the resamples for the intervals where none are asked for: none where they would take too long."""
    if len(detections) <= MAX_RESAMPLED and len(table.categories) <= MAX_CATEGORIES:
        return NUM_RESAMPLES
    return 0


def _headline_metrics(coco: Sequence[float], counts: NDArray[np.int64], protocol: Protocol) -> dict[str, float]:
    """Return the headline metrics of COCO's twelve figures and of right, predicted and true boxes (N, 3)."""
    figures = dict(zip(FIGURES, coco, strict=True))
    num_right, num_predicted, num_true = counts.sum(axis=0).tolist()

    precision = recall = f1 = 0.0
    if num_predicted:
        precision = num_right / num_predicted
    if num_true:
        recall = num_right / num_true
    if num_predicted + num_true:
        f1 = 2 * num_right / (num_predicted + num_true)
    return {
        "AP": figures["AP"],
        "AP50": figures["AP50"],
        "AP75": figures["AP75"],
        f"AR{protocol.max_dets[-1]}": figures["AR_100"],
        "precision": precision,
        "recall": recall,
        "F1": f1,
    }


def _count_boxes(table: BoxTable, counts: NDArray[np.int64], true_by_category: NDArray[np.intp]) -> dict[str, int]:
    """Return the numbers of images, boxes and categories that the figures stand on."""
    _, num_predicted, num_true = counts.sum(axis=0).tolist()
    return {
        "images": len(table),
        "true_boxes": num_true,
        "crowd_regions": int(table.iscrowd.sum()),
        "categories_without_truth": int((true_by_category == 0).sum()),
        "predicted_boxes": num_predicted,
    }


def _tabulate_categories(
    table: BoxTable, detections: Detections, aps: NDArray[np.float64], num_true: NDArray[np.intp]
) -> dict[str, dict[str, Any]]:
    """Return AP, AP50 and numbers of boxes of each category that has any; `aps` is (2, C)."""
    num_predicted = np.bincount(detections.category, minlength=len(table.categories))
    rows = {}
    for place, name in enumerate(table.categories):
        if num_true[place] or num_predicted[place]:
            rows[name] = {
                "AP": float(aps[0, place]),
                "AP50": float(aps[1, place]),
                "true_boxes": int(num_true[place]),
                "predicted_boxes": int(num_predicted[place]),
            }
    return rows
