"""Stored results side by side: what may not be compared is marked, what may has its paired difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from visionr1.data import READERS, OnBad, data_path
from visionr1.dialects import get_dialect
from visionr1.errors import DataError
from visionr1.evaluation.benchmarks import BENCHMARKS, Benchmark, Reading
from visionr1.evaluation.evaluate import PredictionFiles, data_set_benchmark, evaluate
from visionr1.evaluation.metrics.detection import DETECTION
from visionr1.evaluation.result import Result
from visionr1.evaluation.statistics import NUM_RESAMPLES, Difference, format_differences, paired_difference
from visionr1.evaluation.table import format_results
from visionr1.evaluation.units import Unit
from visionr1.files import read_json

HEADLINES = ("AP", "AP50", "AP75", "F1")
"""The metrics of detection whose differences are shown; of other metrics all are."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredResult:
    """A stored result: its file, what it is of, and its figures."""

    path: Path
    name: str
    model: str
    data: str
    split: str
    result: Result
    benchmark: str = ""
    unit: str = ""
    """Of a benchmark: what was asked together with it."""
    files: Sequence[str] = ()
    """The files of predictions that were scored; none for a model, whose replies lie beside."""
    on_bad: OnBad = "raise"
    reader: str = ""
    """The reader of the data, where it was named."""

    @property
    def predictions(self) -> list[Path]:
        """The files that the result was computed from."""
        beside = self.path.with_name(f"{self.unit or self.path.stem}.predictions.jsonl")
        return [Path(file) for file in self.files] or [beside]

    @property
    def part(self) -> tuple[str, str, str]:
        """Which result of which benchmark; files of other data are named after the model."""
        return (self.benchmark, self.unit, self.path.stem) if self.benchmark else ("", "", "")


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Results and, of each after the first, its paired difference from the first or why there is none."""

    stored: Sequence[StoredResult]
    differences: Mapping[str, Mapping[str, Difference] | str]

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return {
            "results": {
                one.name: {"path": str(one.path), "model": one.model, "data": one.data, "split": one.split}
                | one.result.to_json()
                for one in self.stored
            },
            "differences": {
                name: found if isinstance(found, str) else {key: one.to_json() for key, one in found.items()}
                for name, found in self.differences.items()
            },
        }

    def table(self) -> str:
        """The results as a table, what is not comparable marked, and the differences under it."""
        first = self.stored[0]
        named = {f"{one.name}{'' if _same_data(one, first) else ' +'}": one.result for one in self.stored}
        lines = [format_results(named)]
        if any(not _same_data(one, first) for one in self.stored):
            of = "; ".join(f"{one.name}: {one.data} {one.split}".rstrip() for one in self.stored)
            lines.append(f"+ On other data than the first: not comparable. {of}")
        shown = HEADLINES if "AP" in first.result.metrics else tuple(first.result.metrics)
        for name, difference in self.differences.items():
            text = difference
            if not isinstance(difference, str):
                text = f"paired over the images: {format_differences(difference, shown)}"
            lines.append(f"{name} - {first.name}: {text}")
        return "\n".join(lines)


def compare(paths: Sequence[Path], *, num_resamples: int = NUM_RESAMPLES) -> Comparison:
    """The stored results at `paths`, each against the first.

    A difference needs both on the same images under the same protocol, and is computed from their predictions. Raises
    DataError for a file that is no result, and for predictions that no longer give the figures stored.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise DataError(f"expected each result once, found one twice among {', '.join(map(str, paths))}")
    stored = [_read(path) for path in paths]
    stored = [replace(one, name=_name(one, stored)) for one in stored]
    first, *others = stored
    first_again: Result | None = None
    differences: dict[str, Mapping[str, Difference] | str] = {}
    for other in others:
        if reason := _unlike(first, other):
            differences[other.name] = f"no difference: {reason}"
            continue
        if first_again is None:
            first_again = _score_again(first)
        other_again = _score_again(other)
        assert first_again.resampler is not None and other_again.resampler is not None
        try:
            differences[other.name] = paired_difference(
                first_again.resampler, other_again.resampler, num_resamples=num_resamples
            )
        except ValueError as error:
            differences[other.name] = f"no difference: {error}"
    return Comparison(stored, differences)


def _read(path: Path) -> StoredResult:
    record = read_json(path)
    if not (isinstance(record, dict) and {"model", "data", "split", "metrics", "protocol"} <= set(record)):
        raise DataError(f"{path}: expected a result that `visionr1 eval --out` wrote, found something else")
    return StoredResult(
        path=path,
        name=path.stem,
        result=Result.from_json(record),
        **{key: record.get(key, "") for key in ("model", "data", "split", "benchmark", "unit", "reader")},
        files=record.get("prediction_files", ()),
        on_bad=record.get("on_bad", "raise"),
    )


def _name(one: StoredResult, stored: Sequence[StoredResult]) -> str:
    """Its file's name, with the folders above it where another has the same."""
    alike = [other.path for other in stored if other.path.stem == one.path.stem]
    return one.path.stem if len(alike) == 1 else str(one.path.with_suffix(""))


def _same_data(one: StoredResult, other: StoredResult) -> bool:
    counts = [tuple(each.result.counts.get(key) for key in ("images", "true_boxes")) for each in (one, other)]
    return (one.data, one.split, one.part, counts[0]) == (other.data, other.split, other.part, counts[1])


def _unlike(first: StoredResult, other: StoredResult) -> str:
    """Why the two cannot be subtracted; empty if they can."""
    if not _same_data(first, other):
        return "other data"
    if first.result.protocol != other.result.protocol:
        return "another protocol"
    missing = next((one for one in (first, other) if not all(map(Path.is_file, one.predictions))), None)
    return f"{missing.predictions[0]}, which {missing.path} was computed from, is not there" if missing else ""


def _find_unit(one: StoredResult, benchmark: Benchmark) -> Unit:
    """Read again what a stored result is of."""
    # A model was asked about no more than the images that could be read.
    only_readable = one.on_bad == "skip" and not one.files
    reader = READERS.known(one.reader) if one.reader else None
    reading = Reading(with_images=only_readable, on_bad=one.on_bad, reader=reader)
    for unit in benchmark.find(data_path(one.data), one.split or None, reading).units:
        if not one.benchmark or unit.name == one.unit:
            return unit
    raise DataError(f"{one.path}: {one.data} no longer holds {one.unit} of {one.benchmark}")


def _score_again(one: StoredResult) -> Result:
    """Score the predictions of a stored result anew, with a resampler; DataError if its figures come out different."""
    protocol = one.result.protocol
    benchmark = BENCHMARKS.known(one.benchmark) if one.benchmark else data_set_benchmark(DETECTION)
    unit = _find_unit(one, benchmark) if one.data else None
    dialect = get_dialect(protocol.dialect) if protocol.dialect else None
    answers = PredictionFiles(one.predictions, dialect)
    scored = evaluate(unit, answers, benchmark=benchmark, protocol=protocol, num_resamples=1)
    again = scored.results[one.path.stem] if one.benchmark else scored.result
    if again.metrics != one.result.metrics:
        name = next(name for name, value in one.result.metrics.items() if again.metrics.get(name) != value)
        raise DataError(
            f"{one.path}: {one.predictions[0]} and {one.data} now give {name} {100 * again.metrics.get(name, 0):.2f}, "
            f"but {100 * one.result.metrics[name]:.2f} is stored; one of them has changed, so evaluate again"
        )
    return again
