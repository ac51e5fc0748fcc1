"""Benchmarks by name: each is a record in a file of its own that says what it reads, asks and scores.

A benchmark is a folder in its authors' layout. It has units, which are asked together (a split, a subtask, a set), and
a unit has results (the parts of D3 are scored from one asking). What the folder lacks is named: a result over fewer
sets or rows than the benchmark has is never called by its name alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from visionr1.data.readers import Reader
from visionr1.data.row_log import OnBad
from visionr1.errors import DataError, RecipeError
from visionr1.evaluation.metrics import Metric
from visionr1.evaluation.metrics.detection import DETECTION
from visionr1.evaluation.protocols import Protocol, read_protocol
from visionr1.evaluation.units import FoundUnits
from visionr1.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How files are read: whether the images must be there, and what becomes of a bad row."""

    with_images: bool
    on_bad: OnBad = "raise"
    reader: Reader | None = None
    """The reader of a data set whose files do not show its format; a benchmark has a layout of its own."""
    image_dir: str | Path | None = None
    """The folder of a data set's images, where that cannot be told."""


Find = Callable[[Path, str | None, Reading], FoundUnits]
"""`find(folder, split, reading)` returns the units of a benchmark in a folder; `split` chooses among them. Raises
DataError if there is none."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Benchmark:
    """How the units of a benchmark are found, asked and scored.

    `protocol` is the one it is run under unless told otherwise, the metric's own by default; `fixed` are fields that
    belong to the benchmark whatever protocol is named. `averaged`: the mean over its results is a figure that papers
    report.
    """

    name: str
    find: Find
    metric: Metric = DETECTION
    protocol: Protocol | None = None
    averaged: bool = False
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def reading(
        self,
        *,
        with_images: bool,
        on_bad: OnBad,
        reader: Reader | None = None,
        image_dir: str | Path | None = None,
    ) -> Reading:
        """Return how its files are read; `with_images` if a model is asked.

        A data set, which has no name here, is read with its images for a metric that scores samples too.
        """
        needs_samples = not self.name and self.metric.needs_samples
        return Reading(with_images=with_images or needs_samples, on_bad=on_bad, reader=reader, image_dir=image_dir)

    def read_protocol(self, settings: Sequence[str], *, boxes: bool = False) -> Protocol:
        """Return the protocol that `--protocol` settings make; `boxes`: of files of boxes, whose scores are kept."""
        # The benchmark's own fields hold under every named protocol, and the metric decides which fields there are.
        base = self.protocol or self.metric.protocol
        uses = base.uses
        named = {}
        for name, protocol in self.metric.protocols.items():
            named[name] = replace(protocol, **self.fixed, uses=uses)
        if boxes and self.metric.box_protocol:
            base = named[self.metric.box_protocol]
        return read_protocol(settings, base, named)


def _check_benchmark(record: Any) -> Benchmark:
    if not isinstance(record, Benchmark):
        raise RecipeError(f"expected a visionr1.evaluation.Benchmark, found a {type(record).__name__}")
    return record


BENCHMARKS: Registry[Benchmark] = Registry(
    "benchmark", packages=("visionr1.evaluation.benchmarks",), attribute="BENCHMARK", check=_check_benchmark
)
"""By name."""


def refuse_split(name: str, split: str | None) -> None:
    """Raise DataError if a split is named for a benchmark with one evaluated split."""
    if split:
        raise DataError(f"--split {split}: {name} has one evaluated split; leave it out")


def note_if_fewer(number: int, expected: int | None, what: str) -> list[str]:
    """Return the note that a unit needs if it has another number of `what` than the benchmark; none if unknown."""
    if expected is None or number == expected:
        return []
    return [f"{number} {what}, of the benchmark's {expected}"]
