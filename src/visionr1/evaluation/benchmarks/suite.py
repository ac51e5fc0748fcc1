"""Benchmarks by name: what each one reads, how it asks and scores, and what it reports.

A benchmark is a folder in its authors' layout. It has units, which are asked together (a split, a subtask, a set), and
a unit has results (the parts of D3 are scored from one asking). What the folder lacks is named: a result over fewer
sets or rows than the benchmark has is never called by its name alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast
from typing import Protocol as TypingProtocol

from visionr1.data.readers.coco import find_annotations, read_coco, read_table
from visionr1.data.readers.d3 import read_d3
from visionr1.data.readers.grounding_files import find_lisa, read_grounding_file
from visionr1.data.readers.ovdeval import SUBTASKS, ovdeval_file, read_ovdeval
from visionr1.data.readers.refer import read_refer
from visionr1.data.readers.v3det import read_v3det
from visionr1.data.row_log import OnBad
from visionr1.data.table import BoxTable
from visionr1.dialects import Dialect
from visionr1.errors import DataError, RecipeError
from visionr1.evaluation.benchmarks.odinw import OdinwSet, Suite, find_odinw, read_odinw
from visionr1.evaluation.detection.scoring import DetectionResult, evaluate_replies
from visionr1.evaluation.grounding.grec import GREC
from visionr1.evaluation.grounding.rec import REC
from visionr1.evaluation.grounding.scoring import (
    GREC_DEFAULT,
    GROUNDING_DEFAULT,
    GROUNDING_PROTOCOLS,
    GroundingMetric,
    GroundingProtocol,
    GroundingResult,
    score_grounding,
    score_grounding_files,
)
from visionr1.evaluation.offline import score_files
from visionr1.evaluation.predictions import Prediction
from visionr1.evaluation.protocols import COCO_RESULTS, DEFAULT, PROTOCOLS, Protocol, ReplyProtocol, read_settings
from visionr1.samples import Sample, normalize_label

Result = DetectionResult | GroundingResult
ByKind = Callable[[bool], ReplyProtocol]
"""The protocol for a file of predictions, given whether it holds replies."""


class Reading(TypedDict):
    """How files are read: whether the images must be there, and what becomes of a bad row."""

    with_images: bool
    on_bad: OnBad


SMALL_SET = 10
"""Sets of fewer images are left out of the second mean: one box moves their AP by several points."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DetectionUnit:
    """Images asked for categories: the samples (none if read without images), the table, its categories by result."""

    name: str
    table: BoxTable
    samples: tuple[Sample, ...]
    report: Sequence[str] = ()
    notes: Sequence[str] = ()
    parts: Mapping[str, Sequence[int] | None] = field(default_factory=dict)

    def score(
        self, said: Sequence[Prediction], dialect: Dialect, protocol: ReplyProtocol, num_resamples: int | None
    ) -> Mapping[str, DetectionResult]:
        """The results of one reply to each sample as it is asked."""
        assert isinstance(protocol, Protocol)
        score = partial(evaluate_replies, self.table, said, dialect=dialect, protocol=protocol)
        return {name: score(kept=kept, num_resamples=num_resamples) for name, kept in self._parts().items()}

    def score_files(
        self, paths: Sequence[Path], dialect: str | None, protocol: ByKind, num_resamples: int | None
    ) -> Mapping[str, DetectionResult]:
        """The results of files, COCO results or raw replies, under `protocol(whether they are replies)`."""
        chosen = cast(Callable[[bool], Protocol], protocol)
        parts = self._parts()
        return score_files(paths, self.table, parts, dialect=dialect, protocol=chosen, num_resamples=num_resamples)

    def _parts(self) -> Mapping[str, Sequence[int] | None]:
        return self.parts or {self.name: None}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class GroundingUnit:
    """Images asked for what an expression names, and the metric of that."""

    name: str
    samples: tuple[Sample, ...]
    metric: GroundingMetric
    report: Sequence[str] = ()
    notes: Sequence[str] = ()

    def score(
        self, said: Sequence[Prediction], dialect: Dialect, protocol: ReplyProtocol, num_resamples: int | None
    ) -> Mapping[str, GroundingResult]:
        """The result of one reply to each sample."""
        assert isinstance(protocol, GroundingProtocol)
        result = score_grounding(
            self.samples, said, self.metric, dialect=dialect, protocol=protocol, num_resamples=num_resamples
        )
        return {self.name: result}

    def score_files(
        self, paths: Sequence[Path], dialect: str | None, protocol: ByKind, num_resamples: int | None
    ) -> Mapping[str, GroundingResult]:
        """The result of files: boxes, or raw replies."""
        chosen = protocol(True)
        assert isinstance(chosen, GroundingProtocol)
        result = score_grounding_files(
            self.samples, paths, self.metric, dialect=dialect, protocol=chosen, num_resamples=num_resamples
        )
        return {self.name: result}


Unit = DetectionUnit | GroundingUnit


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The units of a benchmark that a folder holds, read one after the other, and the names of those it lacks."""

    names: Sequence[str]
    units: Iterable[Unit]
    missing: Sequence[str] = ()


class Find(TypingProtocol):
    """Reads the units of a benchmark in a folder; `split` chooses among them."""

    def __call__(self, data: Path, split: str | None, **how: Unpack[Reading]) -> Found: ...


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Benchmark:
    """A benchmark: `find(data, split, ...)` reads its units.

    `protocol` is the one it is run under unless told otherwise; `fixed` are fields that belong to the benchmark
    whatever protocol is named. `averaged`: the mean over its results is a figure that papers report.
    """

    name: str
    find: Find
    protocol: ReplyProtocol = DEFAULT
    averaged: bool = False
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def read_protocol(self, settings: Sequence[str], *, results: bool = False) -> ReplyProtocol:
        """The protocol that `--protocol` settings make; `results`: of a file of boxes, whose scores are kept."""
        if isinstance(self.protocol, GroundingProtocol):
            return read_settings(settings, self.protocol, GROUNDING_PROTOCOLS)
        assert isinstance(self.protocol, Protocol)
        known = {name: replace(protocol, **self.fixed) for name, protocol in PROTOCOLS.items()}
        return read_settings(settings, known[COCO_RESULTS.name] if results else self.protocol, known)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkResult:
    """Results by name, the units that were not there, and what else must be known of them."""

    benchmark: Benchmark
    results: Mapping[str, Result]
    missing: Sequence[str]
    notes: Sequence[str]

    def mean(self, metric: str, *, without_small: bool = False) -> float | None:
        """The plain mean of a metric over the results; None if none is left."""
        values = [
            result.metrics[metric]
            for result in self.results.values()
            if metric in result.metrics and not (without_small and result.counts["images"] < SMALL_SET)
        ]
        return sum(values) / len(values) if values else None

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object: both means where the benchmark has one, each result, what is missing."""
        names = list(next(iter(self.results.values())).metrics)
        means = {
            "mean": {name: self.mean(name) for name in names},
            "mean_without_small": {name: self.mean(name, without_small=True) for name in names},
            "small_set": SMALL_SET,
        }
        return {
            "benchmark": self.benchmark.name,
            "complete": not self.missing and not self.notes,
            "missing": list(self.missing),
            "notes": list(self.notes),
            **(means if self.benchmark.averaged else {}),
            "results": {name: result.to_json() for name, result in self.results.items()},
        }

    def table(self) -> str:
        """The results with all that must stand beside AP, the means, what is missing, and the protocols."""
        first = next(iter(self.results.values()))
        metrics = list(dict.fromkeys(metric for result in self.results.values() for metric in result.metrics))
        nms = isinstance(first.protocol, Protocol) and first.protocol.suppression == "truth"
        sizes = ["images", *(["samples"] if "samples" in first.counts else [])]
        titles = [f"NMS-{metric}" if nms and metric.startswith("AP") else metric for metric in metrics]
        rows = [["", *sizes, *titles, "boxes an image / true", "faults"]]
        for name, result in self.results.items():
            mark = "" if result.protocol == first.protocol else " *"
            figures = [cell(result, metric, with_interval=metric == metrics[0]) for metric in metrics]
            faults = ", ".join(f"{kind.replace('_', ' ')} {number}" for kind, number in result.faults.items())
            counted = [str(result.counts[key]) for key in sizes]
            rows.append([f"{name}{mark}", *counted, *figures, boxes_an_image(result), faults])
        if self.benchmark.averaged:
            rows += self._means(metrics, len(sizes))
        lines = aligned(rows)
        if self.missing:
            lines.append(f"NOT all of {self.benchmark.name}: missing are {', '.join(self.missing)}")
        lines += self.notes
        return "\n".join(lines + footer(self.results))

    def _means(self, metrics: Sequence[str], num_sizes: int) -> list[list[str]]:
        large = sum(result.counts["images"] >= SMALL_SET for result in self.results.values())
        mixed = " *" if len({result.protocol for result in self.results.values()}) > 1 else ""
        titles = {False: f"mean of {len(self.results)}", True: f"mean of the {large} with {SMALL_SET} images or more"}
        rows = []
        for without, title in titles.items():
            means = [self.mean(metric, without_small=without) for metric in metrics]
            cells = ["n/a" if mean is None else f"{100 * mean:.1f}" for mean in means]
            rows.append([title + mixed, *[""] * num_sizes, *cells, "", ""])
        return rows


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, its first row ruled off."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def cell(result: Result, metric: str, *, with_interval: bool = True) -> str:
    """A figure x 100 with its interval."""
    value, interval = result.metrics.get(metric), result.interval.get(metric) if with_interval else None
    if value is None or value < 0:
        return "n/a"
    return f"{100 * value:.1f}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")


def boxes_an_image(result: Result) -> str:
    """How many boxes were predicted, and how many there are."""
    images = result.counts["images"]
    return f"{result.counts['predicted_boxes'] / images:.1f} / {result.counts['true_boxes'] / images:.1f}"


def footer(results: Mapping[str, Result]) -> list[str]:
    """Each protocol once, with * and a name where it is not that of the first result, and what the figures are."""
    names: dict[Protocol | GroundingProtocol, str] = {}
    for name, result in results.items():
        names.setdefault(result.protocol, name)
    lines = [f"{f'* {name}: ' if place else ''}{one.line()}" for place, (one, name) in enumerate(names.items())]
    images = sorted({result.counts["images"] for result in results.values()})
    intervals = any(result.interval for result in results.values())
    around = "[95% bootstrap interval over images]" if intervals else "no intervals; --resamples 1000 computes them"
    return [*lines, f"{'/'.join(map(str, images))} images; figures x 100; {around}"]


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of that name; RecipeError naming those there are."""
    if name not in BENCHMARKS:
        raise RecipeError(f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def evaluate_benchmark(
    benchmark: Benchmark, found: Found, evaluate: Callable[[Unit], Mapping[str, Result]]
) -> BenchmarkResult:
    """`evaluate(unit)` of every unit that was found."""
    results: dict[str, Result] = {}
    notes: list[str] = []
    for unit in found.units:
        results |= evaluate(unit)
        notes += [f"{unit.name}: {note}" for note in unit.notes]
    return BenchmarkResult(benchmark=benchmark, results=results, missing=tuple(found.missing), notes=tuple(notes))


# What each benchmark reads


def _no_split(name: str, split: str | None) -> None:
    if split:
        raise DataError(f"--split {split}: {name} has one evaluated split; leave it out")


def _fewer(number: int, expected: int | None, what: str) -> list[str]:
    return [f"{number} {what}, of the benchmark's {expected}"] if expected is not None and number != expected else []


def _find_odinw(suite: Suite) -> Find:
    def unit(one: OdinwSet, file: Path, how: Reading) -> DetectionUnit:
        dataset = read_odinw(one, file, on_bad=how["on_bad"]) if how["with_images"] else None
        table = dataset.table if dataset else read_table(file, on_bad=how["on_bad"])
        renamed = sorted(name for name in table.categories if one.known and normalize_label(name) not in one.known)
        note = f"its file names {', '.join(renamed)}, which GLIP and mmdetection name otherwise"
        return DetectionUnit(
            name=one.name,
            table=table,
            samples=dataset.samples if dataset else (),
            report=dataset.report.lines() if dataset else (),
            notes=[note] if renamed else [],
        )

    def find(data: Path, split: str | None, **how: Unpack[Reading]) -> Found:
        _no_split(suite, split)
        found, missing = find_odinw(data, suite)
        names = [one.name for one in found]
        return Found(names, (unit(one, file, how) for one, file in found.items()), missing)

    return find


def _find_coco(data: Path, split: str | None, **how: Unpack[Reading]) -> Found:
    file = find_annotations(data, split or "val")
    dataset = read_coco(file, on_bad=how["on_bad"]) if how["with_images"] else None
    table = dataset.table if dataset else read_table(file, on_bad=how["on_bad"])
    unit = DetectionUnit(
        name=split or "val2017",
        table=table,
        samples=dataset.samples if dataset else (),
        report=dataset.report.lines() if dataset else (),
        notes=_fewer(len(table), None if split else 5000, "images"),
    )
    return Found([unit.name], [unit])


REFER_SIZES = {
    "refcoco": {"val": 10834, "testA": 5657, "testB": 5095},
    "refcoco+": {"val": 10758, "testA": 5726, "testB": 4889},
    "refcocog": {"val": 4896, "test": 9602},
    "grefcoco": {},
}
"""Expressions of each split (of RefCOCOg UMD's), where they are known."""


def _find_refer(name: str) -> Find:
    def find(data: Path, split: str | None, **how: Unpack[Reading]) -> Found:
        found, missing = read_refer(data, name, split, **how)
        units = [
            GroundingUnit(
                name=key,
                samples=dataset.samples,
                metric=GREC if name == "grefcoco" else REC,
                report=dataset.report.lines(),
                notes=_fewer(len(dataset.samples), REFER_SIZES[name].get(key), "expressions"),
            )
            for key, dataset in found.items()
        ]
        return Found([unit.name for unit in units], units, missing)

    return find


def _find_lisa(data: Path, split: str | None, **how: Unpack[Reading]) -> Found:
    dataset = read_grounding_file(find_lisa(data, split or "test"), **how)
    unit = GroundingUnit(name=split or "test", samples=dataset.samples, metric=REC, report=dataset.report.lines())
    return Found([unit.name], [unit])


def _find_d3(data: Path, split: str | None, **how: Unpack[Reading]) -> Found:
    _no_split("d3", split)
    found = read_d3(data, **how)
    notes = _fewer(len(found.parts["FULL"]), 422, "descriptions")
    unit = DetectionUnit(
        name="d3",
        table=found.table,
        samples=found.samples,
        report=found.report_lines,
        notes=notes,
        parts=found.parts,
    )
    return Found(["d3"], [unit])


def _find_ovdeval(data: Path, split: str | None, **how: Unpack[Reading]) -> Found:
    files = {name: ovdeval_file(data, name) for name in ([split] if split else SUBTASKS)}
    if not any(files.values()):
        raise DataError(f"{data}: expected annotations/{next(iter(files))}.json of OVDEval and the like, found none")

    def unit(name: str, file: Path) -> DetectionUnit:
        dataset = read_ovdeval(file, **how)
        return DetectionUnit(name=name, table=dataset.table, samples=dataset.samples, report=dataset.report.lines())

    there = {name: file for name, file in files.items() if file}
    return Found(list(there), (unit(*one) for one in there.items()), [name for name in files if name not in there])


def _find_v3det(data: Path, split: str | None, **how: Unpack[Reading]) -> Found:
    found = read_v3det(data, split or "val", **how)
    unit = DetectionUnit(
        name=split or "val",
        table=found.table,
        samples=found.samples,
        report=found.report_lines,
        notes=_fewer(len(found.table), None if split else 29_821, "images"),
        parts=found.parts,
    )
    return Found([unit.name], [unit])


ODINW = ("odinw13", "odinw35", "vision_r1_ood")
V3DET_FIXED = {
    "max_dets": (1, 10, 300),
    "metric": "a box of a category below the true one's is neither right nor wrong in AP",
}

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(name="coco", find=_find_coco),
        *(Benchmark(name=name, find=_find_odinw(name), averaged=True) for name in ODINW),  # type: ignore[arg-type]
        *(
            Benchmark(name=name, find=_find_refer(name), protocol=GROUNDING_DEFAULT)
            for name in ("refcoco", "refcoco+", "refcocog")
        ),
        Benchmark(name="grefcoco", find=_find_refer("grefcoco"), protocol=GREC_DEFAULT),
        Benchmark(name="lisa", find=_find_lisa, protocol=GROUNDING_DEFAULT),
        Benchmark(name="d3", find=_find_d3, protocol=Protocol(name="d3", prompt="per_category")),
        Benchmark(
            name="ovdeval",
            find=_find_ovdeval,
            protocol=Protocol(name="ovdeval", suppression="truth"),
            averaged=True,
            fixed={"suppression": "truth"},
        ),
        Benchmark(
            name="v3det",
            find=_find_v3det,
            protocol=Protocol(name="v3det", categories="present", num_negatives=20, **V3DET_FIXED),  # type: ignore[arg-type]
            fixed=V3DET_FIXED,
        ),
    )
}
"""By name."""
