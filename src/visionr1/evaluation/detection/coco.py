"""COCO average precision, by hotcoco (equal to pycocotools to 1e-12), with the guards that no engine has.

Images and categories are numbered anew, so that ids of 0, strings and repeated annotation ids do no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionr1.boxes import Array
from visionr1.data.table import BoxTable, Index
from visionr1.errors import needs_extra
from visionr1.evaluation.detection.nms_ap import best_on_truth
from visionr1.evaluation.detection.tree_ap import with_excused
from visionr1.evaluation.protocols import Protocol

FIGURES = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR_1",
    "AR_10",
    "AR_100",
    "AR_small",
    "AR_medium",
    "AR_large",
)
"""The twelve figures in pycocotools' order; one that cannot be computed, for want of truth, is -1."""
NUM_THRESHOLDS = 10
"""IoU 0.5, 0.55 ... 0.95."""
AT_50, AT_75 = 0, 5
"""Places of IoU 0.5 and 0.75 among the thresholds."""

_ANY_AREA, _AREAS_BY_SIZE = 0, (1, 2, 3)
_LIMITS, _LAST_LIMIT = (0, 1, 2), 2
"""Places in the engine's arrays: of its area ranges, and of the limits of boxes per image (`max_dets`)."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """D boxes in emission order: positions of image and category in the table, `xywh` original pixels, scores."""

    image: Index
    category: Index
    xywh: Array
    score: Array

    def __len__(self) -> int:
        return len(self.image)

    def keep(self, rows: NDArray[np.bool_]) -> Detections:
        """Return the boxes where `rows` (D,) is true."""
        return Detections(self.image[rows], self.category[rows], self.xywh[rows], self.score[rows])

    def of_categories(self, kept: Sequence[int], num_categories: int) -> Detections:
        """Return the boxes of these categories out of `num_categories`, numbered as in `kept`."""
        new_number = np.full(num_categories, -1, dtype=np.intp)
        new_number[list(kept)] = np.arange(len(kept))
        category = new_number[self.category]
        return replace(self, category=category).keep(category >= 0)


@dataclass(frozen=True, slots=True, eq=False)
class CategoryMatches:
    """COCO's matches of one category: D boxes, images in evaluation order, T = 10 IoU thresholds."""

    image: Index
    score: Array
    hit: NDArray[np.bool_]
    """(T, D): matched to a true box."""
    ignored: NDArray[np.bool_]
    """(T, D): neither right nor wrong (matched to a crowd region)."""
    num_true: NDArray[np.int64]
    """(N,) true boxes of each image that count."""


def image_ranks(table: BoxTable, order: str) -> Index:
    """Return the place (N,) of each image of the table in evaluation order."""
    if order == "file":
        return np.arange(len(table))

    def sort_key(place: int) -> Any:
        image_id = table.image_ids[place]
        # Numbers before strings, which cannot be compared with them.
        return isinstance(image_id, str), image_id

    ranks = np.empty(len(table), dtype=np.intp)
    ranks[sorted(range(len(table)), key=sort_key)] = np.arange(len(table))
    return ranks


def coco_figures(
    table: BoxTable, detections: Detections, protocol: Protocol, kept: Sequence[int] | None = None
) -> tuple[tuple[float, ...], Array]:
    """Return the twelve figures, and AP and AP50 (2, C) of each category (-1 without truth).

    With `kept`, positions of categories, C are those alone.
    """
    evaluation = _run_engine(table, detections, protocol)
    if kept is None:
        kept = range(len(table.categories))
    chosen = np.array(kept, dtype=np.intp)

    # Axes: thresholds, recalls (of precision alone), categories, areas, limits.
    precision = np.asarray(evaluation.eval["precision"])[:, :, chosen]
    recall = np.asarray(evaluation.eval["recall"])[:, chosen]

    ap = precision[..., _ANY_AREA, _LAST_LIMIT]
    ap50 = ap[AT_50 : AT_50 + 1]
    ap75 = ap[AT_75 : AT_75 + 1]
    figures = [_mean(ap), _mean(ap50), _mean(ap75)]
    for area in _AREAS_BY_SIZE:
        figures.append(_mean(precision[..., area, _LAST_LIMIT]))
    for limit in _LIMITS:
        figures.append(_mean(recall[..., _ANY_AREA, limit]))
    for area in _AREAS_BY_SIZE:
        figures.append(_mean(recall[..., area, _LAST_LIMIT]))

    per_category = np.empty((2, len(chosen)))
    for place in range(len(chosen)):
        per_category[:, place] = _mean(ap[:, :, place]), _mean(ap50[:, :, place])
    return tuple(figures), per_category


def coco_matches(table: BoxTable, detections: Detections, protocol: Protocol) -> list[CategoryMatches]:
    """Return the engine's matches of each category of the table: all that AP of a resampled set depends on."""
    evaluation = _run_engine(table, detections, protocol, matches_only=True)
    rows_by_category: list[list[dict[str, Any]]] = [[] for _ in table.categories]
    for row in evaluation.eval_imgs:
        # The engine has no row for an image without a box of the category, true or predicted.
        if row is not None:
            rows_by_category[row["category_id"] - 1].append(row)

    matches = []
    for rows in rows_by_category:
        rows.sort(key=lambda row: row["image_id"])
        matches.append(_category_matches(rows, len(table)))
    return matches


def _category_matches(rows: list[dict[str, Any]], num_images: int) -> CategoryMatches:
    """Join the engine's rows of one category, a row per image; its ids of images count from 1."""
    num_true = np.zeros(num_images, dtype=np.int64)
    images: list[int] = []
    num_boxes: list[int] = []
    scores: list[list[float]] = []
    # The empty blocks stand for a category without boxes.
    matched = [np.zeros((NUM_THRESHOLDS, 0), dtype=bool)]
    ignored = [np.zeros((NUM_THRESHOLDS, 0), dtype=bool)]
    for row in rows:
        image = row["image_id"] - 1
        num_true[image] = len(row["gtIgnore"]) - sum(row["gtIgnore"])
        if row["dtIds"]:
            images.append(image)
            num_boxes.append(len(row["dtIds"]))
            scores.append(row["dtScores"])
            matched.append(np.array(row["dtMatched"], dtype=bool))
            ignored.append(np.array(row["dtIgnore"], dtype=bool))

    is_ignored = np.concatenate(ignored, axis=1)
    return CategoryMatches(
        image=np.repeat(np.array(images, dtype=np.intp), num_boxes),
        score=np.array(list(chain.from_iterable(scores)), dtype=np.float64),
        hit=np.concatenate(matched, axis=1) & ~is_ignored,
        ignored=is_ignored,
        num_true=num_true,
    )


def _run_engine(table: BoxTable, detections: Detections, protocol: Protocol, *, matches_only: bool = False) -> Any:
    """Return hotcoco's evaluation, accumulated; with `matches_only`, matched over all areas at the last limit alone."""
    with needs_extra("eval"):
        import hotcoco
    if not (np.isfinite(detections.xywh).all() and np.isfinite(detections.score).all()):
        raise ValueError("boxes and scores must be finite numbers")

    # What the protocol changes of the boxes and of the truth.
    if protocol.suppression == "truth":
        stays = best_on_truth(table, detections.image, detections.xywh, detections.score)
        detections = detections.keep(stays)
    table = with_excused(table, detections.image, detections.category)

    truth, results = _number_anew(table, detections, image_ranks(table, protocol.order))
    evaluation = hotcoco.COCOeval(truth, results, "bbox")
    evaluation.params.max_dets = list(protocol.max_dets)
    if matches_only:
        evaluation.params.area_rng = evaluation.params.area_rng[:1]
        evaluation.params.area_rng_lbl = evaluation.params.area_rng_lbl[:1]
        evaluation.params.max_dets = list(protocol.max_dets[-1:])

    evaluation.evaluate()
    if not matches_only:
        evaluation.accumulate()
    return evaluation


def _number_anew(table: BoxTable, detections: Detections, ranks: Index) -> tuple[Any, Any]:
    """Return truth and results as hotcoco's; images are numbered from 1 by rank, categories from 1 as in the table."""
    import hotcoco

    images = []
    for number in range(1, len(table) + 1):
        images.append({"id": number, "width": 0, "height": 0, "file_name": ""})
    categories = []
    for number, name in enumerate(table.categories, 1):
        categories.append({"id": number, "name": name})
    truth = hotcoco.COCO.from_arrays(
        images,
        categories,
        ranks[table.image] + 1,
        table.category + 1,
        table.xywh,
        area=table.area,
        iscrowd=table.iscrowd,
    )

    image_numbers = ranks[detections.image] + 1
    columns = (image_numbers, detections.xywh, detections.score, detections.category + 1)
    return truth, truth.load_res(np.column_stack(columns).astype(np.float64))


def _mean(values: Array) -> float:
    """Return the mean of the values that could be computed; -1 if there are none."""
    computed = values[values > -1]
    if not computed.size:
        return -1.0
    return float(computed.mean())
