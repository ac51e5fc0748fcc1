"""Results as files: NAME.json, what it is of, and the replies it was computed from beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionr1.evaluation.predictions import Prediction, write_predictions
from visionr1.evaluation.reply_log import ReplyLog, check_same
from visionr1.evaluation.result import Result
from visionr1.files import read_json, write_json_atomic


@dataclass(frozen=True, slots=True)
class ResultFolder:
    """The folder of one evaluation's results; `facts` say what all of them are of (see `result.FACTS`).

    Of a benchmark, replies are kept by unit, as several results may come of one asking; else by result.
    """

    folder: Path
    facts: Mapping[str, Any]
    benchmark: str = ""

    def reply_log(self, unit: str, results: Iterable[str]) -> ReplyLog:
        """Return the log of the replies to a unit, from which `results` will be made."""
        # How replies are scored is no fact of theirs: another metric goes on with the same replies.
        facts = {key: self.facts[key] for key in ("model", "data", "split")}
        if self.benchmark:
            return ReplyLog(self.folder, unit, facts | self._unit_facts(unit), [unit])
        return ReplyLog(self.folder, unit, facts, results)

    def write(
        self,
        unit: str,
        results: Mapping[str, Result],
        predictions: Sequence[Prediction] | None,
        replies_of: Mapping[str, Any] | None,
        files: Sequence[Path],
    ) -> list[Path]:
        """Write the results of a unit and its replies; return the files of the results.

        Raises DataError rather than replace a result of anything else, or under another protocol.
        """
        facts = self._stored_facts(files) | self._unit_facts(unit)

        # Several results of a benchmark may come of the replies to one unit: they are written once.
        if self.benchmark and predictions is not None:
            write_predictions(self.folder / f"{unit}.predictions.jsonl", predictions, replies_of)
            predictions = None

        for name, result in results.items():
            write_evaluation(self.folder, name, result, predictions, replies_of=replies_of, **facts)
        return [self.folder / f"{name}.json" for name in results]

    def check_whole(self, files: Sequence[Path]) -> None:
        """Raise DataError if the file of all results of the benchmark is of something else."""
        check_replaced(self._whole_file, self._stored_facts(files))

    def write_whole(self, record: Mapping[str, Any], files: Sequence[Path]) -> Path:
        """Write the results of the benchmark in one file, beside the folder of its name; return that file."""
        write_json_atomic(self._whole_file, {**self._stored_facts(files), **record})
        return self._whole_file

    @property
    def _whole_file(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.json")

    def _stored_facts(self, files: Sequence[Path]) -> dict[str, Any]:
        """Return what a stored result is of, so that `compare` can compute it again."""
        facts = {**self.facts, "split": self.facts["split"] or ""}
        if files:
            facts["prediction_files"] = list(map(str, files))
        return facts

    def _unit_facts(self, unit: str) -> dict[str, str]:
        if not self.benchmark:
            return {}
        return {"benchmark": self.benchmark, "unit": unit}


def write_evaluation(
    folder: Path,
    name: str,
    result: Result,
    predictions: Sequence[Prediction] | None,
    *,
    replies_of: Mapping[str, Any] | None = None,
    model: str,
    data: str,
    split: str,
    **more: Any,
) -> Mapping[str, Any]:
    """Write NAME.json (the result and what it is of) and, of replies, NAME.predictions.jsonl; return the former.

    Raises DataError rather than replace a result of anything else, or under another protocol.
    """
    facts = {"model": model, "data": data, "split": split, **more}
    record = {**facts, **result.to_json()}
    check_replaced(folder / f"{name}.json", {**facts, "protocol": record["protocol"]})

    # The result comes last: where there is one, its replies are complete.
    if predictions is not None:
        write_predictions(folder / f"{name}.predictions.jsonl", predictions, replies_of)
    write_json_atomic(folder / f"{name}.json", record)
    return record


def check_replaced(path: Path, facts: Mapping[str, Any]) -> None:
    """Raise DataError if there is a result at `path` that is of something else than `facts` say."""
    if not path.exists():
        return
    stored = read_json(path)
    if not isinstance(stored, dict):
        stored = {}

    # Through JSON and back, so that tuples compare equal to the lists that a file holds.
    expected = json.loads(json.dumps(facts))
    check_same(path, "a result", _comparable(expected, facts), _comparable(stored, facts))


def _comparable(record: Mapping[str, Any], facts: Iterable[str]) -> dict[str, Any]:
    """Return the facts of a record, with the fields of its protocol one by one; a protocol's name says nothing."""
    flat = {key: record.get(key) for key in facts if key != "protocol"}

    # Stored only where it is not detection, so that a result without it is not of any metric.
    flat["metric"] = record.get("metric")
    for key, value in record.get("protocol", {}).items():
        if key != "name":
            flat[f"protocol {key}"] = value
    return flat
