"""A result: the figures of one set of predictions under one protocol, whatever the metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from visionr1.boxes import is_number
from visionr1.errors import DataError, short_repr
from visionr1.evaluation.protocols import Protocol
from visionr1.evaluation.statistics import Resampler

FACTS = ("model", "data", "split", "on_bad", "reader", "images", "metric", "prediction_files", "benchmark", "unit")
"""Keys of a stored result that say where it comes from, beside the result itself."""
_OPTIONAL_FIELDS = ("interval", "counts", "faults")
_FIELDS = ("metrics", "protocol", *_OPTIONAL_FIELDS)


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
        """Read the result in a stored record, without its resampler.

        Raises DataError that names the field which is missing or of another type.
        """
        check_form(record)
        _check_numbers(record)

        # JSON has lists for the pairs.
        interval = {}
        for name, (low, high) in record.get("interval", {}).items():
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
            counts=record.get("counts", {}),
            faults=record.get("faults", {}),
            extras=extras,
        )


def check_form(record: Mapping[str, Any]) -> None:
    """Raise DataError, naming the field, if a field of a stored result has another type. It may come from anywhere."""
    for key in FACTS:
        kind = list if key == "prediction_files" else str
        value = record.get(key)
        if value is not None and not isinstance(value, kind):
            raise DataError(f"{key}: expected {kind.__name__}, found {short_repr(value)}")
    for path in record.get("prediction_files") or ():
        if not isinstance(path, str):
            raise DataError(f"prediction_files: expected paths, found {short_repr(path)}")

    for key in _FIELDS:
        value = record.get(key, {} if key in _OPTIONAL_FIELDS else None)
        if not isinstance(value, dict):
            raise DataError(f"{key}: expected dict, found {short_repr(value)}")
    for name, ends in record.get("interval", {}).items():
        if not isinstance(ends, list) or len(ends) != 2:
            raise DataError(f"interval of {name}: expected [low, high], found {short_repr(ends)}")
    Protocol.from_json(record["protocol"])


def _check_numbers(record: Mapping[str, Any]) -> None:
    """Raise DataError, naming the figure, if one of a stored result is no finite number."""
    for key in ("metrics", "counts", "faults"):
        for name, number in record.get(key, {}).items():
            if not is_number(number):
                raise DataError(f"{key}: {name}: expected a finite number, found {short_repr(number)}")
    for name, ends in record.get("interval", {}).items():
        if not all(map(is_number, ends)):
            raise DataError(f"interval of {name}: expected two finite numbers, found {short_repr(ends)}")


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
