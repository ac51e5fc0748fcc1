"""The evaluation of any data by any answers: under which protocol, and where results are kept so that it can go on.

`visionr1 eval`, the demo, evaluation during training and `visionr1 compare` all call `evaluate`:

    from visionr1.evaluation import PredictionFiles, evaluate
    from visionr1.evaluation.runner import Model

    evaluate("my_boxes/", Model("runs/mine"), split="test", out=Path("runs/mine")).result.metrics
    evaluate("my_boxes/", PredictionFiles([Path("replies.jsonl")], "qwen25"), split="test")
    evaluate("coco/", Model("runs/mine"), benchmark="coco")
    evaluate(samples, Replies(predictions, get_dialect("qwen25")))
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from visionr1.data import BoxDataset, Reader, data_path, read_dataset, truth_table
from visionr1.data.row_log import OnBad
from visionr1.dialects import Dialect
from visionr1.errors import DataError, RecipeError
from visionr1.evaluation.asking import Asking, Replier, collect_replies
from visionr1.evaluation.benchmarks import BENCHMARKS, Benchmark, Reading
from visionr1.evaluation.completion_rows import RULE, completions_unit, hold_completions, read_completion_rows
from visionr1.evaluation.detection.hints import explain_zero
from visionr1.evaluation.evaluation import Evaluation
from visionr1.evaluation.metrics import METRICS, Metric
from visionr1.evaluation.metrics.detection import DETECTION
from visionr1.evaluation.predictions import (
    Prediction,
    drop_images,
    drop_samples,
    is_replies,
    predictions_file,
    read_files,
    replies_dialect,
    replies_in,
)
from visionr1.evaluation.protocols import Protocol, as_asked
from visionr1.evaluation.reply_log import ReplyLog, Shard
from visionr1.evaluation.result import Result
from visionr1.evaluation.storage import ResultFolder
from visionr1.evaluation.units import Answers, BoxFiles, FoundUnits, Replies, Unit
from visionr1.samples import Sample

Data = str | Path | BoxDataset | Sequence[Sample] | Unit | None


class _ReadOptions(TypedDict):
    """The options that `read_dataset` and `truth_table` share."""

    split: str | None
    on_bad: OnBad
    reader: Reader | None
    image_dir: str | Path | None


@dataclass(frozen=True, slots=True)
class PredictionFiles:
    """Files of predictions that answer: raw replies or boxes, several being the shards of one evaluation.

    For a benchmark of several units it is a folder with a file for each. `dialect` is how replies write boxes, where
    the file does not say.
    """

    paths: Sequence[Path]
    dialect: str | Dialect | None = None


def evaluate(
    data: Data,
    answers: Replier | PredictionFiles | Replies,
    *,
    split: str | None = None,
    benchmark: str | Benchmark | None = None,
    metric: str | Metric = "detection",
    protocol: Protocol | Sequence[str] = (),
    scores: Sequence[str] = (),
    num_resamples: int | None = None,
    on_bad: OnBad = "raise",
    reader: Reader | None = None,
    image_dir: str | Path | None = None,
    out: Path | None = None,
    name: str = "",
    shard: Shard | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Evaluate what `answers` says of `data`.

    `data` is a data set (its path, "bccd", a read one, samples), a unit, the folder of a `benchmark`, or None for files
    of completions that carry their truth. `answers` is a model (`runner.Model`), files of predictions, or replies, one
    to each sample. `protocol` is one, or settings such as ["qwen3vl", "limit=50"]; `scores` are ways to score the same
    boxes side by side. `num_resamples` are for the intervals: 0 for none, None for as many as are affordable. A
    benchmark brings its own metric.

    `image_dir` is the folder of a data set's images, where that cannot be told from its annotations.

    With `out`, results and replies are kept in `out`/evaluation (a benchmark's in `out`/BENCHMARK) under `name`, the
    model's or file's by default; replies that are there are not asked again, and a result of anything else is never
    replaced. With `shard` only those samples are asked, and nothing is scored. `notify` gets lines about what was read
    and stored.

    Raises DataError for data, predictions or stored results that do not fit, RecipeError for an unknown name or field.
    """
    # A wrong name or option is refused before anything is read, which may take long.
    chosen = _resolve_benchmark(benchmark, metric)
    job = _Job(chosen, answers, protocol, scores, num_resamples, name or _default_name(answers), notify)
    job.check_protocols()
    if reader and chosen.name:
        raise RecipeError("--reader is for a data set, not for a --benchmark, which has a layout of its own")
    if image_dir and chosen.name:
        raise RecipeError("--images is for a data set, not for a --benchmark, which has a layout of its own")
    if shard and (job.model is None or out is None):
        raise RecipeError("--shard needs --model, and --out, where the parts are kept")

    reading = chosen.reading(with_images=job.model is not None, on_bad=on_bad, reader=reader, image_dir=image_dir)
    found_units = job.find_units(data, split, reading)

    folder = None
    if out is not None:
        facts = {"model": _model_label(answers), "data": _data_label(data), "split": split}
        facts |= _reading_facts(reading, chosen)
        folder = ResultFolder(out / (job.stem if chosen.name else "evaluation"), facts, chosen.name)

    if shard and folder:
        return job.collect_shard(found_units, folder, shard)
    return job.evaluate_units(found_units, folder)


def _reading_facts(reading: Reading, benchmark: Benchmark) -> dict[str, str | None]:
    """Return how the data is read, for `compare` to compute a stored result again; defaults are left out."""
    facts: dict[str, str | None] = {"on_bad": reading.on_bad}
    if reading.reader is not None:
        facts["reader"] = reading.reader.name
    if reading.image_dir:
        facts["images"] = str(reading.image_dir)
    if not benchmark.name and benchmark.metric is not DETECTION:
        facts["metric"] = benchmark.metric.name
    return facts


def _resolve_benchmark(benchmark: str | Benchmark | None, metric: str | Metric) -> Benchmark:
    """Return the benchmark, by its name where it is one; for a data set one without a name, of the metric."""
    if isinstance(benchmark, str):
        return BENCHMARKS.resolve(benchmark)
    if benchmark is not None:
        return benchmark
    if isinstance(metric, str):
        metric = METRICS.resolve(metric)
    return data_set_benchmark(metric)


def data_set_benchmark(metric: Metric) -> Benchmark:
    """Return the nameless benchmark that a data set of any layout is: one unit, scored by `metric`."""
    return Benchmark(name="", find=_find_data_set, metric=metric)


def _find_data_set(path: Path, split: str | None, reading: Reading) -> FoundUnits:
    """Read a data set of any layout; without images only its annotations, whose report matters if rows were skipped."""
    options: _ReadOptions = {
        "split": split,
        "on_bad": reading.on_bad,
        "reader": reading.reader,
        "image_dir": reading.image_dir,
    }
    if reading.with_images:
        unit = Unit.of_dataset("", read_dataset(path, **options))
    else:
        unit = Unit.of_table("", truth_table(path, **options))
    return FoundUnits([""], [unit])


@dataclass(frozen=True, slots=True)
class _Job:
    """The steps of one call of `evaluate`, whatever the data."""

    benchmark: Benchmark
    answers: Replier | PredictionFiles | Replies
    protocol: Protocol | Sequence[str]
    scores: Sequence[str]
    num_resamples: int | None
    name: str
    notify: Callable[[str], None]

    @property
    def model(self) -> Replier | None:
        """The model to ask; None where answers are there already."""
        if isinstance(self.answers, PredictionFiles | Replies):
            return None
        return self.answers

    @property
    def stem(self) -> str:
        """The name of the results: that of the benchmark, model or file, then the settings but the default."""
        parts = [self.benchmark.name or self.name]
        if not isinstance(self.protocol, Protocol):
            for setting in self.protocol:
                if setting != "default":
                    # A template may hold any text, and be longer than a file's name.
                    parts.append(re.sub(r"[^\w=.,+-]+", "_", setting)[:60])
        return "-".join(parts)

    def check_protocols(self) -> None:
        """Raise RecipeError for a wrong name or field, before anything is read."""
        self.protocols()

    def protocols(self, *, boxes: bool = False) -> dict[str, Protocol]:
        """Return the protocols to score under by the suffix of their results; `boxes`: for files of boxes."""
        if isinstance(self.protocol, Protocol):
            return {"": self.protocol}
        if not self.scores:
            return {"": self.benchmark.read_protocol(self.protocol, boxes=boxes)}

        protocols = {}
        for scores in self.scores:
            settings = [*self.protocol, f"scores={scores}"]
            protocols[f"-{scores}"] = self.benchmark.read_protocol(settings, boxes=boxes)
        return protocols

    def find_units(self, data: Data, split: str | None, reading: Reading) -> FoundUnits:
        """Read what is to be evaluated: the units of a benchmark, or one unit of data."""
        if data is None:
            return FoundUnits([self.name], [Unit(name=self.name)])
        if isinstance(data, Unit):
            return FoundUnits([data.name], [data])
        if isinstance(data, BoxDataset):
            return FoundUnits([self.name], [Unit.of_dataset(self.name, data)])
        if not isinstance(data, str | Path):
            return FoundUnits([self.name], [Unit(name=self.name, samples=data)])
        found_units = self.benchmark.find(data_path(data), split, reading)
        if self.benchmark.name:
            return found_units

        # The unit of a data set is named after the model or file, as its result is.
        units = [replace(unit, name=self.name) for unit in found_units.units]
        return FoundUnits([self.name], units)

    def evaluate_units(self, found_units: FoundUnits, folder: ResultFolder | None) -> Evaluation:
        """Ask, score and keep one unit after the other."""
        if folder and self.benchmark.name:
            folder.check_whole(_prediction_paths(self.answers))

        results: dict[str, Result] = {}
        predictions: dict[str, Sequence[Prediction]] = {}
        notes: list[str] = []
        for unit in found_units.units:
            self._report(unit)
            scored, predictions[unit.name] = self._evaluate_unit(unit, found_units, folder)
            results |= scored
            notes += [f"{unit.name}: {note}" for note in unit.notes]

        evaluation = Evaluation(
            results=results,
            benchmark=self.benchmark,
            predictions=predictions,
            missing=tuple(found_units.missing),
            notes=tuple(notes),
        )
        if folder and self.benchmark.name:
            path = folder.write_whole(evaluation.to_json(), _prediction_paths(self.answers))
            self.notify(f"stored: {path}")
        return evaluation

    def collect_shard(self, found_units: FoundUnits, folder: ResultFolder, shard: Shard) -> Evaluation:
        """Only ask a part of the samples; the same evaluation without a shard finds the replies and scores them."""
        assert self.model is not None

        # Protocols side by side ask the same, and differ in how replies are scored.
        protocol = next(iter(self.protocols().values()))
        num_replies = num_prompts = 0
        for unit in found_units.units:
            self._report(unit)
            log = folder.reply_log(unit.name, ())
            asking = Asking.of(self.model, unit.samples, protocol)
            num_replies += len(collect_replies(self.model, asking, title=unit.name, log=log, shard=shard))
            num_prompts += len(asking.samples)
        return Evaluation(results={}, benchmark=self.benchmark, num_replies=num_replies, num_prompts=num_prompts)

    def _evaluate_unit(
        self, unit: Unit, found_units: FoundUnits, folder: ResultFolder | None
    ) -> tuple[dict[str, Result], Sequence[Prediction]]:
        """Return the results of a unit by name, and the replies they come from; none of files."""
        # Ask, or read what is answered.
        log = None
        if folder and self.model:
            log = folder.reply_log(unit.name, [self.stem + suffix for suffix in self.protocols()])
        files = self._files_of_unit(unit, several=len(found_units.names) > 1)
        unit, answers, protocols = self._ask(unit, files, log)

        # Score the same answers under each protocol.
        results: dict[str, Result] = {}
        for suffix, protocol in protocols.items():
            scored = self.benchmark.metric.score(unit, answers, protocol, self.num_resamples)
            for name, result in scored.items():
                # The result of a data set says its settings, those of a benchmark lie in a folder that does.
                if name == unit.name and not self.benchmark.name:
                    name = self.stem
                results[name + suffix] = _count_left_out(result, unit)

        self._explain_zero(unit, answers, results)

        # Keep results and replies; only then the log of an unfinished evaluation may go.
        predictions: Sequence[Prediction] = ()
        if isinstance(answers, Replies) and not files:
            predictions = answers.predictions
        if folder:
            replies_of = log.replies_of if log else None
            paths = folder.write(unit.name, results, predictions or None, replies_of, files)
            if not self.benchmark.name:
                for path in paths:
                    self.notify(f"stored: {path}")
        if log:
            log.remove()
        return results, predictions

    def _explain_zero(self, unit: Unit, answers: Answers, results: Mapping[str, Result]) -> None:
        """Say why no box is right, where none is."""
        hint = explain_zero(unit, answers, results)
        if hint:
            self.notify(f"{unit.name}: {hint}")

    def _ask(
        self, unit: Unit, files: Sequence[Path], log: ReplyLog | None
    ) -> tuple[Unit, Answers, Mapping[str, Protocol]]:
        """Return the unit that is scored, the answers to it, and the protocols with all that the answers say."""
        if isinstance(self.answers, Replies):
            _check_answers(unit.samples, self.answers.predictions)
            return unit, self.answers, self.protocols()
        if isinstance(self.answers, PredictionFiles):
            return self._read_answers(unit, files, self.answers.dialect)

        askings = {}
        for suffix, protocol in self.protocols().items():
            askings[suffix] = Asking.of(self.answers, unit.samples, protocol)
        first, *others = askings.values()
        if any(other.facts != first.facts for other in others):
            raise RecipeError("protocols of one generation may differ in how replies are scored, not in what is asked")
        predictions = collect_replies(self.answers, first, title=unit.name, log=log)
        protocols = {suffix: asking.protocol for suffix, asking in askings.items()}
        return unit, Replies(predictions, self.answers.dialect), protocols

    def _read_answers(
        self, unit: Unit, files: Sequence[Path], dialect_name: str | Dialect | None
    ) -> tuple[Unit, Answers, Mapping[str, Protocol]]:
        """Read files of boxes, of replies, or of completions with their truth, of which each becomes an image."""
        rows, replies_of = read_files(files)
        hold_replies = is_replies(rows.values())
        has_truth = hold_completions(rows.values())
        if not has_truth and not unit.samples and unit.annotations is None:
            raise DataError(f"{files[0]}: its rows carry no true boxes; say with --data what has them")
        if unit.left_out:
            rows = drop_images(rows, unit.left_out, unit.table.image_ids)
        if unit.samples_left_out:
            rows = drop_samples(rows, unit.samples_left_out, [sample.id for sample in unit.samples])
        if not hold_replies:
            protocols = self.protocols(boxes=True)
            if any(protocol.limit for protocol in protocols.values()):
                raise RecipeError("protocol field limit: expected none for a file of boxes, all of which are scored")
            return unit, BoxFiles(rows), protocols

        # The replies were asked already: the protocols say how, as far as the files do.
        dialect = replies_dialect(files, dialect_name, replies_of)
        protocols = {}
        for suffix, protocol in self.protocols().items():
            protocols[suffix] = as_asked(protocol, replies_of)
            if has_truth:
                protocols[suffix] = replace(protocols[suffix], metric=RULE)

        if has_truth:
            unit, predictions = completions_unit(unit, read_completion_rows(rows))
        else:
            predictions = replies_in(rows)
        return unit, Replies(predictions, dialect), protocols

    def _files_of_unit(self, unit: Unit, *, several: bool) -> Sequence[Path]:
        """Return the files that answer a unit; of a benchmark with several units, that of its name in a folder."""
        paths = _prediction_paths(self.answers)
        if not paths or not self.benchmark.name:
            return paths

        # A benchmark of one unit may be answered by a file as well.
        if several or not all(map(Path.is_file, paths)):
            return [predictions_file(paths[0], unit.name)]
        return paths

    def _report(self, unit: Unit) -> None:
        """Notify of what was read of a unit."""
        for line in unit.report:
            self.notify(f"{unit.name}: {line}" if self.benchmark.name else line)


def _count_left_out(result: Result, unit: Unit) -> Result:
    """Return the result with the number of images that bad rows cost, if any."""
    if not unit.left_out:
        return result
    return replace(result, counts={**result.counts, "images_left_out": len(unit.left_out)})


def _prediction_paths(answers: Replier | PredictionFiles | Replies) -> Sequence[Path]:
    return answers.paths if isinstance(answers, PredictionFiles) else ()


def _check_answers(samples: Sequence[Sample], predictions: Sequence[Prediction]) -> None:
    """Raise DataError unless there is one reply to each sample, and none to another."""
    num_replies = Counter(prediction.sample_id for prediction in predictions)
    for sample in samples:
        if num_replies[sample.id] != 1:
            raise DataError(f"sample {sample.id!r}: expected one prediction, found {num_replies[sample.id]}")
    if len(samples) < len(predictions):
        unknown = set(num_replies) - {sample.id for sample in samples}
        raise DataError(f"{len(unknown)} predictions are of no sample of the set, such as {min(unknown)!r}")


def _default_name(answers: Replier | PredictionFiles | Replies) -> str:
    """Return the name of results unless told otherwise: the model's folder, or the first file."""
    if isinstance(answers, PredictionFiles):
        return answers.paths[0].stem
    if isinstance(answers, Replies):
        return "replies"
    return Path(answers.name).resolve().name


def _model_label(answers: Replier | PredictionFiles | Replies) -> str:
    """Return what stored results call the model."""
    if isinstance(answers, PredictionFiles):
        return ", ".join(map(str, answers.paths))
    if isinstance(answers, Replies):
        return ""
    return answers.name


def _data_label(data: Data) -> str:
    """Return what stored results call the data."""
    if data is None:
        return ""
    if isinstance(data, BoxDataset):
        return str(data.table.path)
    if isinstance(data, str | Path):
        return str(data)
    return "samples"
