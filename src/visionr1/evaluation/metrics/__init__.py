"""Metrics: each turns a unit and what was answered into results, and each is a record in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from visionr1.errors import RecipeError
from visionr1.evaluation.protocols import DEFAULT, PROTOCOLS, Protocol
from visionr1.evaluation.result import Result
from visionr1.evaluation.units import Answers, Unit
from visionr1.registry import Registry

Score = Callable[[Unit, Answers, Protocol, int | None], Mapping[str, Result]]
"""`score(unit, answers, protocol, num_resamples)` returns the results of a unit by name: one under the unit's name, or
one for each of its parts. `num_resamples` are for the intervals: 0 for none, None for the metric's own choice."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Metric:
    """How what a model answered to a unit becomes figures.

    `protocols` are the named protocols that a user may choose from. `protocol` is the one it is scored under unless
    told otherwise; `box_protocol` names that for files of boxes where it is another. `needs_samples`: it scores
    samples, which a data set is then read for even if no model is asked; others score the table of its annotations.
    """

    name: str
    score: Score
    protocol: Protocol = DEFAULT
    protocols: Mapping[str, Protocol] = field(default_factory=lambda: PROTOCOLS)
    box_protocol: str = ""
    needs_samples: bool = False


def _check_metric(record: Any) -> Metric:
    if not isinstance(record, Metric):
        raise RecipeError(f"expected a visionr1.evaluation.Metric, found a {type(record).__name__}")
    return record


METRICS: Registry[Metric] = Registry(
    "metric", packages=("visionr1.evaluation.metrics",), attribute="METRIC", check=_check_metric
)
"""By name."""
