"""An evaluation: the results of one call of `evaluate`, with their means and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from visionr1.evaluation.benchmarks import Benchmark
from visionr1.evaluation.predictions import Prediction
from visionr1.evaluation.result import Result

SMALL_SET = 10
"""Sets of fewer images are left out of the second mean: one box moves their AP by several points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Results by name, the units that were not there, and what else must be known of them.

    Of a shard there are no results: `num_replies` of `num_prompts` are kept so far.
    """

    results: Mapping[str, Result]
    benchmark: Benchmark
    """One without a name for a data set."""
    predictions: Mapping[str, Sequence[Prediction]] = field(default_factory=dict)
    """The replies of a model, by unit."""
    missing: Sequence[str] = ()
    notes: Sequence[str] = ()
    num_replies: int = 0
    num_prompts: int = 0

    @property
    def result(self) -> Result:
        """The first result; of a data set under one protocol the only one."""
        return next(iter(self.results.values()))

    def mean(self, metric: str, *, without_small: bool = False) -> float | None:
        """Return the plain mean of a metric over the results; None if none is left."""
        values = self.values(metric, without_small=without_small)
        if not values:
            return None
        return sum(values) / len(values)

    def values(self, metric: str, *, without_small: bool = False) -> list[float]:
        """Return a metric of every result that has it."""
        values = []
        for result in self.results.values():
            is_small = result.counts["images"] < SMALL_SET
            # COCO's figures are -1 where there is nothing to find, such as no large object.
            if result.metrics.get(metric, -1) >= 0 and not (without_small and is_small):
                values.append(result.metrics[metric])
        return values

    def to_json(self) -> dict[str, Any]:
        """Return a benchmark's record: both means where it has one, each result, what is missing."""
        means: dict[str, Any] = {}
        if self.benchmark.averaged:
            means = {"mean": {}, "mean_without_small": {}, "small_set": SMALL_SET}
            for metric in self.result.metrics:
                means["mean"][metric] = self.mean(metric)
                means["mean_without_small"][metric] = self.mean(metric, without_small=True)
        return {
            "benchmark": self.benchmark.name,
            "complete": not self.missing and not self.notes,
            "missing": list(self.missing),
            "notes": list(self.notes),
            **means,
            "results": {name: result.to_json() for name, result in self.results.items()},
        }
