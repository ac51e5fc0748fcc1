"""Stored results side by side: what may not be compared is marked, what may has its paired difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from visionr1.data import READERS, OnBad, data_path
from visionr1.dialects import get_dialect
from visionr1.errors import DataError, naming
from visionr1.evaluation.benchmarks import BENCHMARKS, Benchmark
from visionr1.evaluation.evaluate import PredictionFiles, data_set_benchmark, evaluate
from visionr1.evaluation.metrics import METRICS
from visionr1.evaluation.metrics.detection import DETECTION
from visionr1.evaluation.result import Result
from visionr1.evaluation.statistics import NUM_RESAMPLES, Difference, format_differences, paired_difference
from visionr1.evaluation.table import format_results
from visionr1.evaluation.units import Unit
from visionr1.files import read_json
from visionr1.terminal import printable_line

_RESULT_FIELDS = {"model", "data", "split", "metrics", "protocol"}
"""Fields that every stored result has."""

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
    images: str = ""
    """The folder of the images, where it was named."""
    metric: str = ""
    """The metric of a data set, where it is not detection; a benchmark has its own."""

    @property
    def predictions(self) -> list[Path]:
        """The files that the result was computed from."""
        if self.files:
            return list(map(Path, self.files))
        return [self.path.with_name(f"{self.unit or self.path.stem}.predictions.jsonl")]

    @property
    def part(self) -> tuple[str, str, str]:
        """The benchmark, its unit and the name of the result; empty for a data set."""
        # The file of a data set's result is named after the model, which is what is compared.
        if not self.benchmark:
            return "", "", ""
        return self.benchmark, self.unit, self.path.stem


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Results and, of each after the first, its paired difference from the first or why there is none."""

    stored: Sequence[StoredResult]
    differences: Mapping[str, Mapping[str, Difference] | str]

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        results = {}
        for one in self.stored:
            source = {"path": str(one.path), "model": one.model, "data": one.data, "split": one.split}
            results[one.name] = source | one.result.to_json()

        differences: dict[str, Any] = {}
        for name, difference in self.differences.items():
            if isinstance(difference, str):
                differences[name] = difference
                continue
            differences[name] = {metric: value.to_json() for metric, value in difference.items()}
        return {"results": results, "differences": differences}

    def table(self) -> str:
        """Return the results as a table, what is not comparable marked, and the differences under it."""
        first = self.stored[0]
        results: dict[str, Result] = {}
        sources = []
        on_other_data = False
        for one in self.stored:
            mark = ""
            if not _same_data(one, first):
                on_other_data = True
                mark = " +"
            results[one.name + mark] = one.result
            sources.append(f"{one.name}: {one.data} {one.split}".rstrip())

        table = format_results(results)
        lines = []
        if on_other_data:
            lines.append(f"+ On other data than the first: not comparable. {'; '.join(sources)}")

        # Detection has a dozen metrics, too many for one line.
        metrics = tuple(first.result.metrics)
        if "AP" in metrics:
            metrics = HEADLINES
        for name, difference in self.differences.items():
            text = difference
            if not isinstance(difference, str):
                text = f"paired over the images: {format_differences(difference, metrics)}"
            lines.append(f"{name} - {first.name}: {text}")
        return "\n".join([table, *map(printable_line, lines)])


def compare(paths: Sequence[Path], *, num_resamples: int = NUM_RESAMPLES) -> Comparison:
    """Read the stored results at `paths`, and compute the difference of each from the first.

    A difference needs both on the same images under the same protocol, and is computed from their predictions. Raises
    DataError for a file that is no result, for a metric that is not installed, and for predictions that no longer give
    the figures stored.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise DataError(f"expected each result once, found one twice among {', '.join(map(str, paths))}")
    stored = _name_apart([_read(path) for path in paths])
    first, *others = stored

    # Reading the data again takes long, so the first is scored once, and only if it is needed.
    first_again: Result | None = None
    differences: dict[str, Mapping[str, Difference] | str] = {}
    for other in others:
        reason = _find_obstacle(first, other)
        if reason:
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
    """Read the result that `visionr1 eval --out` wrote; DataError if it is none."""
    record = read_json(path)
    if not (isinstance(record, dict) and set(record) >= _RESULT_FIELDS):
        raise DataError(f"{path}: expected a result that `visionr1 eval --out` wrote, found something else")

    with naming(str(path)):
        result = Result.from_json(record)
    return StoredResult(
        path=path,
        name=path.stem,
        model=record["model"],
        data=record["data"],
        split=record["split"],
        result=result,
        benchmark=record.get("benchmark", ""),
        unit=record.get("unit", ""),
        files=record.get("prediction_files", ()),
        on_bad=record.get("on_bad", "raise"),
        reader=record.get("reader", ""),
        images=record.get("images", ""),
        metric=record.get("metric", ""),
    )


def _name_apart(stored: Sequence[StoredResult]) -> list[StoredResult]:
    """Name results whose files have the same name by their path, without its ending."""
    num_by_name = Counter(one.name for one in stored)
    named = []
    for one in stored:
        if num_by_name[one.name] > 1:
            one = replace(one, name=str(one.path.with_suffix("")))
        named.append(one)
    return named


def _same_data(one: StoredResult, other: StoredResult) -> bool:
    """Say if two results are of the same images; a data set that has grown since has other counts."""
    if (one.data, one.split, one.part) != (other.data, other.split, other.part):
        return False
    return all(one.result.counts.get(key) == other.result.counts.get(key) for key in ("images", "true_boxes"))


def _find_obstacle(first: StoredResult, other: StoredResult) -> str:
    """Return why the two cannot be subtracted; empty if they can."""
    if not _same_data(first, other):
        return "other data"
    if first.metric != other.metric:
        return "another metric"
    if first.result.protocol != other.result.protocol:
        return "another protocol"
    for one in (first, other):
        if not all(map(Path.is_file, one.predictions)):
            return f"{one.predictions[0]}, which {one.path} was computed from, is not there"
    return ""


def _find_unit(one: StoredResult, benchmark: Benchmark) -> Unit:
    """Read again what a stored result is of."""
    # A model was asked about no more than the images that could be read.
    with_images = not one.files and one.on_bad == "skip"
    reader = READERS.known(one.reader) if one.reader else None
    reading = benchmark.reading(with_images=with_images, on_bad=one.on_bad, reader=reader, image_dir=one.images)
    for unit in benchmark.find(data_path(one.data), one.split or None, reading).units:
        if not one.benchmark or unit.name == one.unit:
            return unit
    raise DataError(f"{one.path}: {one.data} no longer holds {one.unit} of {one.benchmark}")


def _find_benchmark(one: StoredResult) -> Benchmark:
    """Return the benchmark of a stored result, or what stands for one; DataError if its metric is not installed."""
    if one.benchmark:
        return BENCHMARKS.known(one.benchmark)
    if not one.metric:
        return data_set_benchmark(DETECTION)

    # The name stands in a file that may come from anywhere: it must not decide what code is imported.
    if one.metric not in METRICS:
        raise DataError(
            f"{one.path}: metric: expected one that ships or that an installed package brings "
            f"({', '.join(METRICS)}), found {one.metric!r}; no code from files is run for a stored result"
        )
    return data_set_benchmark(METRICS.known(one.metric))


def _score_again(one: StoredResult) -> Result:
    """Score the predictions of a stored result anew, with a resampler; DataError if its figures come out different."""
    benchmark = _find_benchmark(one)

    # Completions carry their truth, so that their result may be of no data.
    unit = _find_unit(one, benchmark) if one.data else None
    protocol = one.result.protocol
    dialect = get_dialect(protocol.dialect) if protocol.dialect else None
    answers = PredictionFiles(one.predictions, dialect)
    scored = evaluate(unit, answers, benchmark=benchmark, protocol=protocol, num_resamples=1)
    again = scored.result
    if one.benchmark:
        again = scored.results[one.path.stem]

    if again.metrics != one.result.metrics:
        _raise_changed(one, again)
    return again


def _raise_changed(one: StoredResult, again: Result) -> NoReturn:
    """Raise DataError that names the first metric which comes out different."""
    before = one.result.metrics
    now = again.metrics
    changed = [name for name in {**before, **now} if now.get(name) != before.get(name)]
    name = changed[0]
    raise DataError(
        f"{one.path}: {one.predictions[0]} and {one.data} now give {name} {100 * now.get(name, 0):.2f}, "
        f"but {100 * before.get(name, 0):.2f} is stored; one of them has changed, so evaluate again"
    )
