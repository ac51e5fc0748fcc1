"""The record of a run: what the files of its folder say, checked where the page relies on it.

It reads `recipe.toml`, `versions.json`, `metrics.jsonl`, `evaluations.jsonl`, `rollouts.jsonl`, `results.json`, the
results of `visionr1 eval` (`evaluation/*.json`, `BENCHMARK.json`) and of `visionr1 vqa` (`vqa/*.json`).
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from visionr1.errors import DataError, naming, short_repr
from visionr1.evaluation.predictions import Prediction, read_files, replies_in
from visionr1.evaluation.protocols import Protocol
from visionr1.evaluation.result import check_form
from visionr1.files import parse_json, read_json, read_log, read_text
from visionr1.report.formats import number

JsonRecord = Mapping[str, Any]

NOT_NUMBERS = ("phase", "stage")
"""Fields of a row of metrics that are shown as they stand."""
ERROR_GROUPINGS = ("by_category", "by_size", "by_crowding")
"""The fields of a result's errors that hold the counts of each group."""
NUM_ROLLOUT_STEPS = 3
"""Of so many steps the page shows rollouts."""
TITLES = {"base": "Base", "sft": "SFT", "trained": "Vision-R1"}


@dataclass(frozen=True, slots=True)
class StoredEvaluation:
    """One `evaluation/NAME.json`, and the replies it was computed from by image id (one, or one for each category)."""

    name: str
    record: JsonRecord
    predictions: Mapping[str, Sequence[Prediction]]

    @property
    def protocol(self) -> Protocol:
        """The protocol of its figures."""
        return Protocol.from_json(self.record["protocol"])

    @property
    def title(self) -> str:
        """The name for the reader."""
        return TITLES.get(self.name, self.name)


@dataclass(frozen=True, slots=True)
class Gain:
    """A paired difference, with the ends of its 95% bootstrap interval."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The files of a run; those that it does not have are empty."""

    folder: Path
    recipe_text: str
    versions: JsonRecord
    metrics: Sequence[JsonRecord]
    """Rows of training steps; fields that should be numbers and are not are None."""
    validations: Sequence[JsonRecord]
    """Evaluations during training."""
    rollouts: Sequence[JsonRecord]
    """Of an early, a middle and a late step the completions of its first sample."""
    evaluations: Sequence[StoredEvaluation]
    """That of the model which training started from first, the others by name."""
    benchmarks: Mapping[str, JsonRecord]
    """The results of benchmarks, each of several sets or splits, by file name."""
    vqa: Mapping[str, JsonRecord]
    gains: Mapping[str, Gain]
    """By metric, of the trained model over the base."""
    unfinished: Sequence[str]
    """Names of logs whose last row is cut off: the run was killed while it wrote them."""
    recipe: JsonRecord = field(default_factory=dict)
    """What `recipe_text` says; it is only shown, so that no name in it is looked up or imported."""

    @property
    def initial_model(self) -> str:
        """The model that training started from, "" without a recipe."""
        path: str = self.recipe.get("model", {}).get("path", "")
        return path


def read_run(folder: Path) -> RunRecord:
    """Read the files of a run.

    Raises DataError if `folder` holds neither metrics nor a result, or if a file of it cannot be read.
    """
    recipe_file = folder / "recipe.toml"
    recipe_text = ""
    if recipe_file.is_file():
        recipe_text = read_text(recipe_file)
    recipe = _parse_recipe(recipe_text, recipe_file)

    # The readers of logs add to `unfinished` as they go.
    unfinished: list[str] = []
    run = RunRecord(
        folder=folder,
        recipe_text=recipe_text,
        versions=_read_object(folder / "versions.json"),
        metrics=[_only_numbers(row) for row in _read_log(folder / "metrics.jsonl", unfinished)],
        validations=_read_log(folder / "evaluations.jsonl", unfinished),
        rollouts=_read_shown_rollouts(folder / "rollouts.jsonl", unfinished),
        evaluations=_read_evaluations(folder / "evaluation", recipe.get("model", {}).get("path", "")),
        benchmarks=_read_benchmarks(folder),
        vqa=_read_vqa(folder / "vqa"),
        gains=_read_gains(_read_object(folder / "results.json").get("gain")),
        unfinished=unfinished,
        recipe=recipe,
    )
    if not (run.metrics or run.evaluations or run.benchmarks or run.vqa):
        raise DataError(f"{folder} is no run: it has neither metrics.jsonl nor evaluation/*.json")
    return run


def _read_log(path: Path, unfinished: list[str]) -> list[JsonRecord]:
    """Read the rows of a log, none if there is no file; its name goes to `unfinished` if its last row is cut off."""
    if not path.is_file():
        return []
    rows, is_cut_off = read_log(path)
    if is_cut_off:
        unfinished.append(path.name)

    for index, row in enumerate(rows, start=1):
        _check_row(row, f"{path}, row {index}")
    return list(rows)


def _check_row(row: Any, where: str) -> None:
    """Raise DataError, which begins with `where`, if a field that charts and tables rely on is missing or wrong.

    They rely on the step and on what are tables; every other field may be anything.
    """
    step = row.get("step") if isinstance(row, dict) else None
    if number(step) is None:
        raise DataError(f"{where}: step: expected a number, found {short_repr(step)}")
    for key in ("counts", "protocol"):
        if not isinstance(row.get(key, {}), dict):
            raise DataError(f"{where}: {key}: expected a table, found {short_repr(row[key])}")


def _read_shown_rollouts(path: Path, unfinished: list[str]) -> list[JsonRecord]:
    """Read the rollouts of the steps that the page shows, of each those of the first sample.

    The file of a long run is larger than memory may be, so it is read row by row, and the shown rows a second time.
    """
    if not path.is_file():
        return []
    starts: dict[float, int] = {}
    start = 0
    with path.open("rb") as file:
        for index, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                unfinished.append(path.name)
                break
            if line.strip():
                starts.setdefault(_parse_rollout(line, f"{path}, row {index}")["step"], start)
            start += len(line)

        rows: list[JsonRecord] = []
        for step in choose_first_to_last(sorted(starts), NUM_ROLLOUT_STEPS):
            file.seek(starts[step])
            rows += _read_group(file, path)
    return rows


def _read_group(file: IO[bytes], path: Path) -> list[JsonRecord]:
    """Read the rows of one step from the place where `file` is, those of the first sample alone."""
    group: list[JsonRecord] = []
    for line in file:
        # The last row may be cut off.
        if not line.endswith(b"\n"):
            break
        if not line.strip():
            continue
        row = _parse_rollout(line, str(path))
        if group and row["step"] != group[0]["step"]:
            break
        if not group or row.get("sample_id", "") == group[0].get("sample_id", ""):
            group.append(row)
    return group


def _parse_rollout(line: bytes, where: str) -> JsonRecord:
    """Parse and check one row; DataError, which begins with `where`, if it is none."""
    try:
        row = parse_json(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON: {error}") from error
    _check_row(row, where)
    checked: JsonRecord = row
    return checked


def choose_first_to_last(steps: Sequence[float], num_chosen: int) -> list[float]:
    """Choose steps at equal distances, the first and the last among them; fewer if there are not so many."""
    chosen: list[float] = []
    if not steps:
        return chosen
    for index in range(num_chosen):
        step = steps[index * (len(steps) - 1) // (num_chosen - 1)]
        if step not in chosen:
            chosen.append(step)
    return chosen


def _only_numbers(row: JsonRecord) -> JsonRecord:
    """Put None in place of values that should be numbers and are not."""
    checked = {}
    for key, value in row.items():
        checked[key] = value if key in NOT_NUMBERS else number(value)
    return checked


def _read_object(path: Path) -> JsonRecord:
    """Read a JSON object, an empty one if there is no file."""
    if not path.is_file():
        return {}
    record = read_json(path)
    if not isinstance(record, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(record).__name__}")
    return record


def _parse_recipe(text: str, path: Path) -> JsonRecord:
    """Parse the recipe of a run; DataError if it is no TOML, or if what the page shows of it has another form."""
    try:
        recipe = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # among them a number of more digits than Python reads
        raise DataError(f"{path} is not TOML: {error}") from error

    for name in ("model", "eval"):
        if not isinstance(recipe.get(name, {}), dict):
            raise DataError(f"{path}: {name}: expected a table, found {short_repr(recipe[name])}")
    phases = recipe.get("phase", [])
    if not _is_list_of_tables(phases) or not all(_is_list_of_tables(phase.get("data", [])) for phase in phases):
        raise DataError(f"{path}: expected tables [[phase]] and [[phase.data]]")
    return recipe


def _is_list_of_tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _read_evaluations(folder: Path, initial_model: str) -> list[StoredEvaluation]:
    """Read the results of `visionr1 eval`: first that of the model which training started from, then by name."""
    of_initial_model = []
    of_other_models = []
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem):
        record = _read_object(path)
        _check_evaluation(record, path)
        predictions = _read_predictions(path.with_suffix(".predictions.jsonl"))
        evaluation = StoredEvaluation(path.stem, record, predictions)
        if record["model"] == initial_model:
            of_initial_model.append(evaluation)
        else:
            of_other_models.append(evaluation)
    return of_initial_model + of_other_models


def _check_evaluation(record: JsonRecord, path: Path) -> None:
    """Raise DataError if a field that the page relies on is missing or of another type."""
    with naming(f"{path} is no result of `visionr1 eval`"):
        for key in ("model", "data", "split"):
            if not isinstance(record.get(key), str):
                raise DataError(f"{key}: expected str, found {short_repr(record.get(key))}")
        check_form(record)

        # Figures that are no numbers are left out by the page; the tables that hold them must be tables.
        by_category = record.get("per_category", {})
        if not isinstance(by_category, dict) or not all(isinstance(row, dict) for row in by_category.values()):
            raise DataError(f"per_category: expected dict of dicts, found {short_repr(by_category)}")
        _check_errors(record.get("errors", {}))


def _check_errors(errors: object) -> None:
    """Raise DataError if the errors of boxes of a result are not tables of counts, as the page reads them."""
    if not isinstance(errors, dict) or (errors and not isinstance(errors.get("all"), dict)):
        raise DataError(f"errors: expected dict with the counts of all boxes, found {short_repr(errors)}")
    for key in ERROR_GROUPINGS:
        group = errors.get(key, {})
        if not isinstance(group, dict) or not all(isinstance(row, dict) for row in group.values()):
            raise DataError(f"errors: {key}: expected dict of dicts, found {short_repr(group)}")

    worst = errors.get("worst_images", [])
    if not isinstance(worst, list) or not all(isinstance(row, dict) and "image_id" in row for row in worst):
        raise DataError(f"errors: worst_images: expected dicts with image_id, found {short_repr(worst)}")


def _read_predictions(path: Path) -> dict[str, list[Prediction]]:
    """Read the replies by image id."""
    by_image: dict[str, list[Prediction]] = {}
    if not path.is_file():
        return by_image
    files, _ = read_files([path])
    for prediction in replies_in(files):
        by_image.setdefault(str(prediction.image_id), []).append(prediction)
    return by_image


def _read_benchmarks(folder: Path) -> dict[str, JsonRecord]:
    """Read `BENCHMARK.json` files: those in `folder` that name a benchmark and hold the results of its sets."""
    benchmarks: dict[str, JsonRecord] = {}
    for path in sorted(folder.glob("*.json")):
        record = read_json(path)
        is_benchmark = isinstance(record, dict) and "benchmark" in record and isinstance(record.get("results"), dict)
        if not is_benchmark:
            continue

        # The fields that all sets have in common stand once, in the record of the benchmark.
        for part, result in record["results"].items():
            if not isinstance(result, dict):
                raise DataError(f"{path}: results of {part}: expected an object, found {short_repr(result)}")
            whole = {"model": "", "data": "", "split": "", **result}
            _check_evaluation(whole, folder / f"{path.stem}.json ({part})")
        benchmarks[path.stem] = record
    return benchmarks


def _read_vqa(folder: Path) -> dict[str, JsonRecord]:
    """Read the records of `visionr1 vqa` by file name."""
    records: dict[str, JsonRecord] = {}
    for path in sorted(folder.glob("*.json")):
        record = _read_object(path)
        with naming(f"{path} is no result of `visionr1 vqa`"):
            for key in ("metrics", "counts", "protocol"):
                if not isinstance(record.get(key, {}), dict):
                    raise DataError(f"{key}: expected dict, found {short_repr(record[key])}")
            if not _is_list_of_tables(record.get("by_split", [])):
                raise DataError(f"by_split: expected list of dicts, found {short_repr(record['by_split'])}")
        records[path.stem] = record
    return records


def _read_gains(record: Any) -> dict[str, Gain]:
    """Read the paired differences; one that is not three numbers is left out."""
    gains: dict[str, Gain] = {}
    if not isinstance(record, dict):
        return gains
    for name, row in record.items():
        interval = row.get("interval") if isinstance(row, dict) else None
        if not isinstance(interval, list) or len(interval) != 2:
            continue
        difference = number(row.get("difference"))
        low, high = map(number, interval)
        if difference is not None and low is not None and high is not None:
            gains[name] = Gain(difference, low, high)
    return gains
