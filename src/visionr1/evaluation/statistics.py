"""Intervals: bootstrap over images, of one result and of the difference between two on the same images.

A metric gives a `Resampler`: it scores once, and then has the figures of any set in which images stand more than once
or not at all. Intervals and paired differences are the same code for every metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Interface

import numpy as np
from numpy.typing import NDArray

from visionr1.boxes import Array

NUM_RESAMPLES = 1000
CONFIDENCE = 0.95


class Resampler(Interface):
    """Figures of drawn images: M metrics over N images."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name the M metrics."""
        ...

    def __len__(self) -> int:
        """Return the number N of images."""
        ...

    def figures(self, times: NDArray[np.int64]) -> Array:
        """Return the metrics (R, M) of R sets in which image i stands `times[r, i]` times; nan without any truth."""
        ...

    def check_pairs_with(self, other: Any) -> None:
        """Raise ValueError, saying why, unless `other` is of the same metrics on the same images and truth."""
        ...


@dataclass(frozen=True, slots=True)
class Difference:
    """How much the second of two results is above the first, with its interval over images."""

    difference: float
    interval: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        return {"difference": self.difference, "interval": list(self.interval)}


def draw_images(num_images: int, num_resamples: int, seed: int) -> NDArray[np.int64]:
    """Draw `num_resamples` sets of N images with replacement: how often each image stands in each set (R, N)."""
    drawn = np.random.default_rng(seed).integers(0, num_images, (num_resamples, num_images))
    return np.stack([np.bincount(row, minlength=num_images) for row in drawn])


def intervals(
    resampler: Resampler, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the percentile interval of each metric."""
    times = draw_images(len(resampler), num_resamples, seed)
    return _percentiles(resampler.names, resampler.figures(times))


def paired_difference(
    first: Resampler, second: Resampler, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, Difference]:
    """Return `second` minus `first` for each metric, both on the same resamples of the same images.

    Raises ValueError if they are not of the same metrics on the same images.
    """
    first.check_pairs_with(second)
    once = np.ones((1, len(first)), dtype=np.int64)
    observed = second.figures(once)[0] - first.figures(once)[0]

    # Both on the same draws, so that the difficulty of the drawn images cancels.
    times = draw_images(len(first), num_resamples, seed)
    ranges = _percentiles(first.names, second.figures(times) - first.figures(times))
    differences = {}
    for name, value in zip(first.names, observed, strict=True):
        # A metric without any truth has no interval, and so no difference.
        if name in ranges:
            differences[name] = Difference(float(value), ranges[name])
    return differences


def _percentiles(names: Sequence[str], values: Array) -> dict[str, tuple[float, float]]:
    """Return the interval of each column of (R, M); a metric without any truth has none."""
    tail = 50 * (1 - CONFIDENCE)
    ranges = {}
    for name, column in zip(names, values.T, strict=True):
        computed = column[~np.isnan(column)]
        if computed.size:
            low, high = np.percentile(computed, (tail, 100 - tail)).tolist()
            ranges[name] = (low, high)
    return ranges


def format_differences(differences: Mapping[str, Difference], names: Sequence[str]) -> str:
    """Return the differences of the metrics in `names` in one line, x 100."""
    parts = []
    for name in names:
        if name in differences:
            value = differences[name].difference
            low, high = differences[name].interval
            parts.append(f"{name} {100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")
    return ", ".join(parts)
