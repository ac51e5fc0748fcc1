"""Intervals: bootstrap over images, of one result and of the difference between two on the same images.

Matching is done once; a resampled set only weighs images anew. The figures of a resample are those that the engine
gives for the set in which each image stands as often as it was drawn (tested against it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionr1.boxes import Array
from visionr1.evaluation.detection.coco import CategoryMatches

RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
NUM_RESAMPLES = 1000
MAX_RESAMPLED = 50_000
"""Boxes up to which intervals are computed unless asked for: 1000 resamples of so many take about 15 seconds."""
MAX_CATEGORIES = 1000
"""Categories up to which intervals are computed unless asked for: of V3Det's 13,204 they would take an hour."""
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What the figures of any resample of N images depend on, images in evaluation order."""

    categories: tuple[CategoryMatches, ...]
    counts: NDArray[np.int64]
    """(N, 3): right, predicted and true boxes of each image, at the protocol's one IoU."""

    max_dets: int = 100

    @property
    def names(self) -> tuple[str, ...]:
        """Of the metrics that `figures` gives."""
        return "AP", "AP50", "AP75", f"AR{self.max_dets}", "precision", "recall", "F1"

    def __len__(self) -> int:
        return len(self.counts)


@dataclass(frozen=True, slots=True)
class Difference:
    """How much the second of two results is above the first, with its interval over images."""

    difference: float
    interval: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return {"difference": self.difference, "interval": list(self.interval)}


def draws(num_images: int, num_resamples: int, seed: int) -> NDArray[np.int64]:
    """How often each image stands in each resample: (num_resamples, N), rows summing to N."""
    drawn = np.random.default_rng(seed).integers(0, num_images, (num_resamples, num_images))
    return np.stack([np.bincount(row, minlength=num_images) for row in drawn])


def figures(matches: Matches, times: NDArray[np.int64]) -> Array:
    """The metrics (7,) of the set in which image i stands `times[i]` times; nan where there is no truth."""
    counted = [found for own in matches.categories if (found := _average_precision(own, times)) is not None]
    counted = counted or [(np.full(10, np.nan),) * 2]
    ap, recalls = (np.stack(part) for part in zip(*counted, strict=True))
    right, predicted, true = (times @ matches.counts).tolist()
    precision = right / predicted if predicted else 0.0
    recall = right / true if true else np.nan
    f1 = 2 * right / (predicted + true) if predicted + true else np.nan
    return np.array([ap.mean(), ap[:, 0].mean(), ap[:, 5].mean(), recalls.mean(), precision, recall, f1])


def intervals(matches: Matches, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> dict[str, tuple[float, float]]:
    """The percentile interval of each metric."""
    values = np.stack([figures(matches, times) for times in draws(len(matches), num_resamples, seed)])
    return percentiles(matches.names, values)


def paired_difference(
    first: Matches, second: Matches, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, Difference]:
    """`second` minus `first` for each metric, both on the same resamples of the same images."""
    if len(first) != len(second) or not np.array_equal(first.counts[:, 2], second.counts[:, 2]):
        raise ValueError(f"paired results need the same images; one has {len(first)}, the other {len(second)}")
    once = np.ones(len(first), dtype=np.int64)
    difference = figures(second, once) - figures(first, once)
    resampled = draws(len(first), num_resamples, seed)
    ranges = percentiles(first.names, np.stack([figures(second, t) - figures(first, t) for t in resampled]))
    return {
        name: Difference(float(value), ranges[name])
        for name, value in zip(first.names, difference, strict=True)
        if name in ranges
    }


def percentiles(names: Sequence[str], values: Array) -> dict[str, tuple[float, float]]:
    """Interval of each column of (resamples, metrics); a metric without any truth has none."""
    tail = 50 * (1 - CONFIDENCE)
    ranges = {}
    for name, column in zip(names, values.T, strict=True):
        computed = column[~np.isnan(column)]
        if computed.size:
            low, high = np.percentile(computed, (tail, 100 - tail)).tolist()
            ranges[name] = (low, high)
    return ranges


def _average_precision(own: CategoryMatches, times: NDArray[np.int64]) -> tuple[Array, Array] | None:
    """AP and recall (T,) of one category, as COCO defines them; None without truth."""
    num_true = int(times @ own.num_true)
    if not num_true:
        return None
    present, place = np.unique(own.image, return_inverse=True)  # few of the images, where categories are many
    rows = _repeated(place, times[present])
    if len(rows) and own.score[rows].min() < own.score[rows].max():
        rows = rows[np.argsort(-own.score[rows], kind="stable")]
    hit, ignored = own.hit[:, rows], own.ignored[:, rows]
    threshold, place = np.nonzero(hit)  # every hit, by threshold, then score
    hits = hit.sum(axis=1)
    first = np.cumsum(hits) - hits
    found = np.arange(1, len(place) + 1) - first[threshold]
    seen = np.cumsum(~ignored, axis=1)[threshold, place] if ignored.any() else place + 1
    precision = found / (seen + np.spacing(1))
    above = 2.0 * (len(hits) - threshold)  # lifts each threshold above the next, so that one pass takes all maxima
    envelope = np.maximum.accumulate((precision + above)[::-1])[::-1] - above
    needed = np.searchsorted(np.arange(1, num_true + 1) / num_true, RECALL_THRESHOLDS, side="left")
    reached = needed[None] < hits[:, None]
    at = np.where(reached, first[:, None] + needed[None], 0)
    sampled = np.where(reached, np.append(envelope, 0.0)[at], 0.0)  # (T, 101)
    return sampled.mean(axis=1), hits / num_true


def _repeated(image: NDArray[np.intp], times: NDArray[np.int64]) -> NDArray[np.intp]:
    """Rows of a set in which image i stands `times[i]` times; rows of one image lie together, images ascending."""
    starts = np.searchsorted(image, np.arange(len(times)))
    lengths = np.bincount(image, minlength=len(times))
    chosen = np.repeat(np.arange(len(times)), times)
    sizes = lengths[chosen]
    rows: NDArray[np.intp] = np.repeat(starts[chosen] - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
    return rows


SHOWN = ("AP", "AP50", "AP75", "F1")


def describe(differences: Mapping[str, Difference], names: Sequence[str] = SHOWN) -> str:
    """Differences in one line, x 100."""
    parts = []
    for name in names:
        if name in differences:
            low, high = differences[name].interval
            parts.append(f"{name} {100 * differences[name].difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")
    return ", ".join(parts)
