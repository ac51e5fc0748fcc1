"""COCO average precision, by hotcoco (equal to pycocotools to 1e-12), with the guards that no engine has.

Images and categories are numbered anew, so that ids of 0, strings and repeated annotation ids do no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionr1.boxes import Array
from visionr1.data.table import BoxTable, Index
from visionr1.errors import needs_extra
from visionr1.evaluation.detection.nms_ap import best_on_truth
from visionr1.evaluation.detection.tree_ap import with_excused
from visionr1.evaluation.protocols import Protocol

FIGURES = tuple("AP AP50 AP75 AP_small AP_medium AP_large AR_1 AR_10 AR_100 AR_small AR_medium AR_large".split())
"""The twelve figures in pycocotools' order; one that cannot be computed, for want of truth, is -1."""


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
        """The boxes where `rows` (D,) is true."""
        return Detections(self.image[rows], self.category[rows], self.xywh[rows], self.score[rows])

    def of_categories(self, kept: Sequence[int], num_categories: int) -> Detections:
        """The boxes of these categories out of `num_categories`, numbered as in `kept`."""
        place = np.full(num_categories, -1, dtype=np.intp)
        place[list(kept)] = np.arange(len(kept))
        return replace(self, category=place[self.category]).keep(place[self.category] >= 0)


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
    """The place (N,) of each image of the table in evaluation order."""
    if order == "file":
        return np.arange(len(table))
    if table.ids_as_strings:
        key = sorted(range(len(table)), key=lambda i: str(table.image_ids[i]))
    else:
        key = sorted(range(len(table)), key=lambda i: (isinstance(table.image_ids[i], str), table.image_ids[i]))
    ranks = np.empty(len(table), dtype=np.intp)
    ranks[key] = np.arange(len(table))
    return ranks


def coco_figures(
    table: BoxTable, detections: Detections, protocol: Protocol, kept: Sequence[int] | None = None
) -> tuple[tuple[float, ...], Array]:
    """The twelve figures, and AP and AP50 (2, C) of each category (-1 without truth); of the `kept` ones alone."""
    evaluation = _run(table, detections, protocol)
    chosen = np.arange(len(table.categories)) if kept is None else np.array(kept, dtype=np.intp)
    precision = np.asarray(evaluation.eval["precision"])[:, :, chosen]  # (thresholds, recalls, categories, areas, dets)
    recall = np.asarray(evaluation.eval["recall"])[:, chosen]
    aps = [precision[..., 0, 2], precision[:1, ..., 0, 2], precision[5:6, ..., 0, 2]]
    aps += [precision[..., area, 2] for area in (1, 2, 3)]
    ars = [recall[..., 0, limit] for limit in (0, 1, 2)] + [recall[..., area, 2] for area in (1, 2, 3)]
    per_category = [[_mean(p[:, :, c]) for c in range(len(chosen))] for p in aps[:2]]
    return tuple(_mean(values) for values in (*aps, *ars)), np.array(per_category)


def coco_matches(table: BoxTable, detections: Detections, protocol: Protocol) -> list[CategoryMatches]:
    """What the engine matched, per category of the table: all that AP of a resampled set depends on."""
    evaluation = _run(table, detections, protocol, matches_only=True)
    rows: list[list[dict[str, Any]]] = [[] for _ in table.categories]
    for row in evaluation.eval_imgs:
        if row is not None:
            rows[row["category_id"] - 1].append(row)
    return [_category_matches(sorted(own, key=lambda row: row["image_id"]), len(table)) for own in rows]


def _category_matches(rows: list[dict[str, Any]], num_images: int) -> CategoryMatches:
    num_true = np.zeros(num_images, dtype=np.int64)
    for row in rows:
        num_true[row["image_id"] - 1] = len(row["gtIgnore"]) - sum(row["gtIgnore"])
    rows = [row for row in rows if row["dtIds"]]
    ignored = [np.array(row["dtIgnore"], dtype=bool) for row in rows]
    hit = [np.array(row["dtMatched"], dtype=bool) for row in rows]
    none = np.zeros((10, 0), dtype=bool)
    return CategoryMatches(
        image=np.array([row["image_id"] - 1 for row in rows for _ in row["dtIds"]], dtype=np.intp),
        score=np.array([score for row in rows for score in row["dtScores"]], dtype=np.float64),
        hit=np.concatenate([none, *hit], axis=1) & ~np.concatenate([none, *ignored], axis=1),
        ignored=np.concatenate([none, *ignored], axis=1),
        num_true=num_true,
    )


def _run(table: BoxTable, detections: Detections, protocol: Protocol, *, matches_only: bool = False) -> Any:
    with needs_extra("eval"):
        import hotcoco
    if not (np.isfinite(detections.xywh).all() and np.isfinite(detections.score).all()):
        raise ValueError("boxes and scores must be finite numbers")
    if protocol.suppression == "truth":
        detections = detections.keep(best_on_truth(table, detections.image, detections.xywh, detections.score))
    table = with_excused(table, detections.image, detections.category)
    ranks = image_ranks(table, protocol.order)
    images = [{"id": rank, "width": 0, "height": 0, "file_name": ""} for rank in range(1, len(table) + 1)]
    categories = [{"id": number, "name": name} for number, name in enumerate(table.categories, 1)]
    truth = hotcoco.COCO.from_arrays(
        images,
        categories,
        ranks[table.image] + 1,
        table.category + 1,
        table.xywh,
        area=table.area,
        iscrowd=table.iscrowd,
    )
    columns = (ranks[detections.image] + 1, detections.xywh, detections.score, detections.category + 1)
    found = truth.load_res(np.column_stack(columns).astype(np.float64))
    evaluation = hotcoco.COCOeval(truth, found, "bbox")
    evaluation.params.max_dets = list(protocol.max_dets)
    if matches_only:
        evaluation.params.area_rng = evaluation.params.area_rng[:1]
        evaluation.params.area_rng_lbl = evaluation.params.area_rng_lbl[:1]
        evaluation.params.max_dets = list(protocol.max_dets[-1:])
    evaluation.evaluate()
    if not matches_only:
        evaluation.accumulate()
    return evaluation


def _mean(values: Array) -> float:
    computed = values[values > -1]
    return float(computed.mean()) if computed.size else -1.0
