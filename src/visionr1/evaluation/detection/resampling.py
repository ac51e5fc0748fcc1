"""COCO's figures of drawn images: AP, AR, precision, recall and F1 without matching anew.

Matching is done once; a resampled set only weighs images anew. The figures of a resample are those that the engine
gives for the set in which each image stands as often as it was drawn (tested against it).

Axis letters: R resamples, N images, D boxes of one category, T = 10 IoU thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionr1.boxes import Array
from visionr1.data.table import Index
from visionr1.evaluation.detection.coco import AT_50, AT_75, NUM_THRESHOLDS, CategoryMatches

RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, slots=True, eq=False)
class DetectionResampler:
    """Hold what the figures of any resample of N images depend on, images in evaluation order."""

    categories: tuple[CategoryMatches, ...]
    counts: NDArray[np.int64]
    """(N, 3): right, predicted and true boxes of each image, at the protocol's one IoU."""
    max_dets: int = 100

    @property
    def names(self) -> tuple[str, ...]:
        """Name the metrics that `figures` returns."""
        return "AP", "AP50", "AP75", f"AR{self.max_dets}", "precision", "recall", "F1"

    def __len__(self) -> int:
        return len(self.counts)

    def figures(self, times: NDArray[np.int64]) -> Array:
        """Return the metrics (R, 7) of R sets in which image i stands `times[r, i]` times; nan without truth."""
        return np.stack([self._figures_of_one(row) for row in times])

    def check_pairs_with(self, other: object) -> None:
        """Raise ValueError unless `other` is of as many images with as many true boxes each."""
        if not isinstance(other, DetectionResampler):
            raise ValueError("paired results need the same metrics")
        if len(self) != len(other) or not np.array_equal(self.counts[:, 2], other.counts[:, 2]):
            raise ValueError(f"paired results need the same images; one has {len(self)}, the other {len(other)}")

    def _figures_of_one(self, times: NDArray[np.int64]) -> Array:
        """Return the metrics (7,) of the set in which image i stands `times[i]` times."""
        # AP and recall (T,) of each category that has truth among the drawn images.
        precisions = []
        recalls = []
        for matches in self.categories:
            num_true_of_category = int(times @ matches.num_true)
            if num_true_of_category:
                precision, recall = _average_precision(matches, times, num_true_of_category)
                precisions.append(precision)
                recalls.append(recall)
        if precisions:
            ap = np.stack(precisions)
            ar = np.stack(recalls)
        else:
            ap = ar = np.full((1, NUM_THRESHOLDS), np.nan)

        num_right, num_predicted, num_true = (times @ self.counts).tolist()
        precision_at_iou = 0.0
        if num_predicted:
            precision_at_iou = num_right / num_predicted
        recall_at_iou = f1 = np.nan
        if num_true:
            recall_at_iou = num_right / num_true
        if num_predicted + num_true:
            f1 = 2 * num_right / (num_predicted + num_true)
        means = [ap.mean(), ap[:, AT_50].mean(), ap[:, AT_75].mean(), ar.mean()]
        return np.array([*means, precision_at_iou, recall_at_iou, f1])


def _average_precision(matches: CategoryMatches, times: NDArray[np.int64], num_true: int) -> tuple[Array, Array]:
    """Return AP and recall (T,) of one category over drawn images with `num_true` > 0 true boxes, as COCO has them."""
    hit, ignored = _ranked_boxes(matches, times)
    threshold, rank = np.nonzero(hit)  # every hit, by threshold, then by rank
    num_hits = hit.sum(axis=1)
    first_hit = np.cumsum(num_hits) - num_hits

    # Precision at each hit: hits so far over boxes so far; ignored boxes are not counted.
    hits_so_far = np.arange(1, len(rank) + 1) - first_hit[threshold]
    boxes_so_far: Index = rank + 1
    if ignored.any():
        boxes_so_far = np.cumsum(~ignored, axis=1, dtype=np.intp)[threshold, rank]
    precision = hits_so_far / (boxes_so_far + np.spacing(1))

    # The envelope: the largest precision at this recall or above. Lifting each threshold above the next lets one
    # cumulative maximum from the end serve all thresholds.
    lift = 2.0 * (len(num_hits) - threshold)
    envelope = np.maximum.accumulate((precision + lift)[::-1])[::-1] - lift

    # Sampled at COCO's 101 recalls; 0 where a recall is not reached.
    recalls = np.arange(1, num_true + 1) / num_true
    hits_needed = np.searchsorted(recalls, RECALL_THRESHOLDS, side="left")
    reached = hits_needed[None] < num_hits[:, None]
    place = np.where(reached, first_hit[:, None] + hits_needed[None], 0)
    sampled = np.where(reached, np.append(envelope, 0.0)[place], 0.0)  # (T, 101)
    return sampled.mean(axis=1), num_hits / num_true


def _ranked_boxes(matches: CategoryMatches, times: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return hit and ignored (T, D') of the boxes of drawn images by falling score, equal scores in image order."""
    # Few of the images have boxes of the category where categories are many.
    images_with_boxes, image = np.unique(matches.image, return_inverse=True)
    rows = _repeat_rows(image, times[images_with_boxes])
    if len(rows) and matches.score[rows].min() < matches.score[rows].max():
        rows = rows[np.argsort(-matches.score[rows], kind="stable")]
    return matches.hit[:, rows], matches.ignored[:, rows]


def _repeat_rows(image: Index, times: NDArray[np.int64]) -> Index:
    """Return the rows of a set in which image i stands `times[i]` times; `image` of each row is ascending."""
    first_row = np.searchsorted(image, np.arange(len(times)))
    num_rows = np.bincount(image, minlength=len(times))
    drawn = np.repeat(np.arange(len(times)), times)

    # One run of consecutive rows for each drawn image: its first row, then counting up.
    lengths = num_rows[drawn]
    run_starts = np.cumsum(lengths) - lengths
    rows: Index = np.repeat(first_row[drawn] - run_starts, lengths) + np.arange(lengths.sum())
    return rows
