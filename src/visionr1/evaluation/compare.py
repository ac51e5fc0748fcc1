"""Stored results side by side: what may not be compared is marked, what may has its paired difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from visionr1.data import OnBad, data_path, read_dataset, truth_table
from visionr1.errors import DataError
from visionr1.evaluation.benchmarks.suite import Result, get_benchmark
from visionr1.evaluation.detection.scoring import DetectionResult
from visionr1.evaluation.grounding.scoring import GroundingResult, paired_grounding
from visionr1.evaluation.offline import evaluate_file
from visionr1.evaluation.protocols import Protocol
from visionr1.evaluation.statistics import NUM_RESAMPLES, SHOWN, Difference, describe, paired_difference
from visionr1.evaluation.table import format_results
from visionr1.files import read_json


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
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

    stored: Sequence[Stored]
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
        for name, found in self.differences.items():
            names = SHOWN if "AP" in first.result.metrics else tuple(first.result.metrics)
            said = found if isinstance(found, str) else f"paired over the images: {describe(found, names)}"
            lines.append(f"{name} - {first.name}: {said}")
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
    again: Result | None = None
    differences: dict[str, Mapping[str, Difference] | str] = {}
    for other in others:
        if reason := _unlike(first, other):
            differences[other.name] = f"no difference: {reason}"
            continue
        again, second = again or _rescored(first), _rescored(other)
        try:
            differences[other.name] = _difference(again, second, num_resamples)
        except ValueError as error:
            differences[other.name] = f"no difference: {error}"
    return Comparison(stored, differences)


def _difference(first: Result, second: Result, num_resamples: int) -> dict[str, Difference]:
    if isinstance(first, GroundingResult) and isinstance(second, GroundingResult):
        return paired_grounding(first, second, num_resamples=num_resamples)
    assert isinstance(first, DetectionResult) and isinstance(second, DetectionResult)
    assert first.matches is not None and second.matches is not None
    return paired_difference(first.matches, second.matches, num_resamples=num_resamples)


def _read(path: Path) -> Stored:
    record = read_json(path)
    if not (isinstance(record, dict) and {"model", "data", "split", "metrics", "protocol"} <= set(record)):
        raise DataError(f"{path}: expected a result that `visionr1 eval --out` wrote, found something else")
    kind = DetectionResult if "coco" in record else GroundingResult
    return Stored(
        path=path,
        name=path.stem,
        result=kind.from_json(record),
        **{key: record.get(key, "") for key in ("model", "data", "split", "benchmark", "unit")},
        files=record.get("prediction_files", ()),
        on_bad=record.get("on_bad", "raise"),
    )


def _name(one: Stored, stored: Sequence[Stored]) -> str:
    """Its file's name, with the folders above it where another has the same."""
    alike = [other.path for other in stored if other.path.stem == one.path.stem]
    return one.path.stem if len(alike) == 1 else str(one.path.with_suffix(""))


def _same_data(one: Stored, other: Stored) -> bool:
    counts = [tuple(each.result.counts.get(key) for key in ("images", "true_boxes")) for each in (one, other)]
    return (one.data, one.split, one.part, counts[0]) == (other.data, other.split, other.part, counts[1])


def _unlike(first: Stored, other: Stored) -> str:
    """Why the two cannot be subtracted; empty if they can."""
    if not _same_data(first, other):
        return "other data"
    if first.result.protocol != other.result.protocol:
        return "another protocol"
    missing = next((one for one in (first, other) if not all(map(Path.is_file, one.predictions))), None)
    return f"{missing.predictions[0]}, which {missing.path} was computed from, is not there" if missing else ""


def _rescored(one: Stored) -> Result:
    protocol = one.result.protocol
    dialect, split = protocol.dialect or None, one.split or None
    only_readable = one.on_bad == "skip" and not one.files  # a model was asked no more than images that are there
    again: Result
    if one.benchmark:
        found = get_benchmark(one.benchmark).find(Path(one.data), split, with_images=only_readable, on_bad=one.on_bad)
        unit = next((unit for unit in found.units if unit.name == one.unit), None)
        if unit is None:
            raise DataError(f"{one.path}: {one.data} no longer holds {one.unit} of {one.benchmark}")
        again = unit.score_files(one.predictions, dialect, lambda _: protocol, 1)[one.path.stem]
    else:
        assert isinstance(protocol, Protocol)
        data = data_path(one.data)
        if only_readable:
            table = read_dataset(data, split=split, on_bad=one.on_bad).table
        else:
            table = truth_table(data, split=split, on_bad=one.on_bad)
        again = evaluate_file(one.predictions, table, dialect=dialect, protocol=protocol, num_resamples=1)
    if again.metrics != one.result.metrics:
        name = next(name for name, value in one.result.metrics.items() if again.metrics.get(name) != value)
        raise DataError(
            f"{one.path}: {one.predictions[0]} and {one.data} now give {name} {100 * again.metrics.get(name, 0):.2f}, "
            f"but {100 * one.result.metrics[name]:.2f} is stored; one of them has changed, so evaluate again"
        )
    return again
