"""Replies kept as they come, so that an evaluation that was stopped goes on, in one process or in several shards.

Beside the result-to-be NAME.json lie NAME.part-I-of-N.jsonl: a first row that says what the replies are of, then one
row each. Whoever finds the replies of all samples, its own and the others', scores them: that is the merging. What is
finished is NAME.predictions.jsonl, of the same form: it is asked no more, nor replaced by replies of anything else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from visionr1.errors import DataError, RecipeError
from visionr1.evaluation.predictions import Prediction, read_predictions
from visionr1.files import encode_text, naming_written, parse_json

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` of `count`, from 1: every count-th sample from the index-th on."""

    index: int
    count: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """Read a shard such as 2/8; RecipeError if `text` is none."""
        index, _, count = text.partition("/")
        are_numbers = index.isdecimal() and count.isdecimal()
        if not (are_numbers and 1 <= int(index) <= int(count)):
            raise RecipeError(f"--shard: expected a part such as 2/8 (the second of eight), found {text!r}")
        return cls(int(index), int(count))

    def of(self, samples: Sequence[T]) -> Sequence[T]:
        """Return the samples of this shard."""
        return samples[self.index - 1 :: self.count]


WHOLE = Shard(1, 1)
_LONGEST_FIRST_ROW = 1 << 24
"""Bytes that are read of the first row of a file that may be none of ours."""


class ReplyLog:
    """The replies of the evaluation `name` in `folder`; `facts` say what it is of (model, data, split).

    `results` are the names under which they will be written; `replies_of`, once open, is all that they depend on.
    """

    def __init__(self, folder: Path, name: str, facts: Mapping[str, Any], results: Iterable[str] = ()) -> None:
        self._folder = folder
        self._name = name
        self._facts = dict(facts)
        self._results = tuple(results)
        self._shard_file: Path | None = None
        self.replies_of: Mapping[str, Any] = {}

    def open(self, facts: Mapping[str, Any], shard: Shard) -> dict[str, Prediction]:
        """Read the replies in all parts, and in any file beside that is of the same, by sample id.

        `append` then adds to the part of `shard`. Raises DataError if a part, or a file that is to be written, holds
        replies of anything else than these facts and those of the log.
        """
        # Through JSON and back, so that tuples compare equal to the lists that a file holds.
        self.replies_of = json.loads(json.dumps({**self._facts, **facts}))

        # Parts and results of this name must be of the same evaluation.
        files = self._parts()
        for name in self._results:
            finished = self._folder / f"{name}.predictions.jsonl"
            if finished.is_file():
                files.append(finished)

        # Files of other names are used if they are of the same, and left alone if not.
        for file in sorted(self._folder.parent.glob("*/*.jsonl")):
            # Whatever else lies there may be a pipe, on which reading would wait.
            if file not in files and file.is_file() and _read_replies_of(file) == self.replies_of:
                files.append(file)

        replies: dict[str, Prediction] = {}
        for file in files:
            for reply in _read_replies(file, self.replies_of):
                replies[reply.sample_id] = reply

        self._shard_file = self._folder / f"{self._name}.part-{shard.index}-of-{shard.count}.jsonl"
        if self._shard_file.exists():
            _cut_unfinished_row(self._shard_file)
        return replies

    def append(self, predictions: Sequence[Prediction]) -> None:
        """Add replies to the shard's part; they are on the disk when this returns."""
        assert self._shard_file is not None
        with naming_written(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)

        rows: list[Mapping[str, Any]] = []
        if not self._shard_file.exists():
            rows.append({"replies_of": self.replies_of})
        for prediction in predictions:
            rows.append(prediction.to_json())

        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        with naming_written(self._shard_file), self._shard_file.open("ab") as file:
            file.write(encode_text("".join(lines)))
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Delete all parts, once what was made of them is written."""
        for part in self._parts():
            part.unlink(missing_ok=True)

    def _parts(self) -> list[Path]:
        """Return the files of all shards that have begun."""
        if not self._folder.is_dir():
            return []

        # Not as a glob pattern: a name may hold [ or *.
        prefix = f"{self._name}.part-"
        return sorted(file for file in self._folder.glob("*.jsonl") if file.name.startswith(prefix))


def _cut_unfinished_row(path: Path) -> None:
    """Cut off a last row without an end: the process was stopped while it wrote it."""
    content = path.read_bytes()
    os.truncate(path, content.rfind(b"\n") + 1)


def _read_replies(path: Path, expected: Mapping[str, Any]) -> list[Prediction]:
    """Read the whole rows of a file of replies; DataError if its first row is not of the `expected` evaluation."""
    # What follows the last line end is empty, or a row that was cut off.
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    try:
        first, *rows = [parse_json(line) for line in lines]
        replies_of = first["replies_of"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no part of an evaluation ({error}); delete it to begin anew") from error
    check_same(path, "replies", expected, replies_of)
    return read_predictions(rows, path)


def _read_replies_of(path: Path) -> object:
    """Read what the replies in a file depend on; None where the first row does not say, or cannot be read."""
    try:
        with path.open("rb") as file:
            return parse_json(file.readline(_LONGEST_FIRST_ROW))["replies_of"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_same(path: Path, what: str, expected: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Raise DataError if `what` is `stored` in a file is of another evaluation than the `expected` one."""
    for key in {**expected, **stored}:
        if stored.get(key) != expected.get(key):
            raise DataError(
                f"{path} holds {what} of another evaluation: {key}: expected {_shorten(expected.get(key))}, found "
                f"{_shorten(stored.get(key))}; choose another --out, or delete it to begin anew"
            )


def _shorten(value: object) -> str:
    """Return a value as JSON, cut after 200 characters."""
    text = json.dumps(value)
    if len(text) <= 200:
        return text
    return text[:200] + "..."
