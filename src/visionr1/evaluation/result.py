"""A result: the figures of one set of predictions under one protocol, whatever the metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from visionr1.evaluation.protocols import Protocol
from visionr1.evaluation.statistics import Resampler

FACTS = ("model", "data", "split", "on_bad", "reader", "metric", "prediction_files", "benchmark", "unit")
"""Keys of a stored result that say where it comes from, beside the result itself."""
_FIELDS = ("metrics", "interval", "counts", "faults", "protocol")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The figures of one set of predictions under one protocol.

    `metrics` are the headline figures in the order they are shown, `interval` the bootstrap intervals of some of them.
    A metric that nothing is counted for is left out. `counts` are of images, replies and boxes, `faults` of replies by
    kind. `extras` are what one metric says beyond that, as JSON. `resampler`, for intervals and paired differences, and
    `scored`, what was scored (of detection the table and the boxes, for `coco_results`), are not stored.
    """

    protocol: Protocol
    metrics: Mapping[str, float]
    interval: Mapping[str, tuple[float, float]]
    counts: Mapping[str, int]
    faults: Mapping[str, int] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    resampler: Resampler | None = field(default=None, compare=False, repr=False)
    scored: Any = field(default=None, compare=False, repr=False)

    @property
    def tables(self) -> dict[str, Mapping[str, Mapping[str, float]]]:
        """The figures by group that the metric gives, such as those `per_category`: group -> figure -> number."""
        tables = {}
        for name, rows in self.extras.items():
            if _is_table(rows):
                tables[name] = rows
        return tables

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object; `from_json` reads it."""
        interval = {}
        for name, ends in self.interval.items():
            interval[name] = list(ends)
        return {
            "metrics": dict(self.metrics),
            "interval": interval,
            "counts": dict(self.counts),
            "faults": dict(self.faults),
            **self.extras,
            "protocol": self.protocol.to_json(),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Result:
        """Read the result in a stored record, without its resampler."""
        # JSON has lists for the pairs.
        interval = {}
        for name, (low, high) in record["interval"].items():
            interval[name] = (low, high)

        # Whatever else stands in the record is the metric's own, such as figures per category.
        extras = {}
        for key, value in record.items():
            if key not in (*_FIELDS, *FACTS):
                extras[key] = value

        return cls(
            protocol=Protocol.from_json(record["protocol"]),
            metrics=record["metrics"],
            interval=interval,
            counts=record["counts"],
            faults=record["faults"],
            extras=extras,
        )


def _is_table(rows: object) -> bool:
    """Say if an extra is a mapping of groups to mappings of numbers."""
    if not isinstance(rows, Mapping) or not rows:
        return False
    for row in rows.values():
        if not isinstance(row, Mapping):
            return False
        if not all(isinstance(number, int | float) for number in row.values()):
            return False
    return True
