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

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` of `count`, from 1: every count-th sample from the index-th on."""

    index: int
    count: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """The shard that `text` says, such as 2/8; RecipeError if it says none."""
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise RecipeError(f"--shard: expected a part such as 2/8 (the second of eight), found {text!r}")
        return cls(int(index), int(count))

    def of(self, samples: Sequence[T]) -> Sequence[T]:
        """Its samples."""
        return samples[self.index - 1 :: self.count]


WHOLE = Shard(1, 1)


class ReplyLog:
    """The replies of the evaluation `name` in `folder`; `facts` say what it is of (model, data, split).

    `results` are the names under which they will be written; `replies_of`, once open, is all that they depend on.
    """

    def __init__(self, folder: Path, name: str, facts: Mapping[str, Any], results: Iterable[str] = ()) -> None:
        self._folder, self._name, self._facts, self._results = folder, name, dict(facts), tuple(results)
        self._own: Path | None = None
        self.replies_of: Mapping[str, Any] = {}

    def open(self, facts: Mapping[str, Any], shard: Shard) -> dict[str, Prediction]:
        """The replies by sample id in all parts, and in any file beside that is of the same; `append` adds to `shard`.

        Raises DataError if a part, or a file that is to be written, states other facts than these and those of the log.
        """
        self.replies_of = stated = json.loads(json.dumps({**self._facts, **facts}))
        finished = [self._folder / f"{name}.predictions.jsonl" for name in self._results]
        own = [*self._parts(), *filter(Path.is_file, finished)]
        same = [file for file in sorted(self._folder.parent.glob("*/*.jsonl")) if _first_row(file) == stated]
        done: dict[str, Prediction] = {}
        for file in dict.fromkeys([*own, *same]):
            done |= {reply.sample_id: reply for reply in _read(file, stated)}
        self._own = self._folder / f"{self._name}.part-{shard.index}-of-{shard.count}.jsonl"
        if self._own.exists():
            content = self._own.read_bytes()
            os.truncate(self._own, content.rfind(b"\n") + 1)  # a row that was cut off
        return done

    def append(self, predictions: Sequence[Prediction]) -> None:
        """Add replies to the own part; they are on the disk when this returns."""
        assert self._own is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        first = [] if self._own.exists() else [{"replies_of": self.replies_of}]
        rows = [*first, *(prediction.to_json() for prediction in predictions)]
        with self._own.open("ab") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Delete all parts, once what was made of them is written."""
        for part in self._parts():
            part.unlink(missing_ok=True)

    def _parts(self) -> list[Path]:
        files = self._folder.glob("*.jsonl") if self._folder.is_dir() else ()
        return sorted(file for file in files if file.name.startswith(f"{self._name}.part-"))


def _read(part: Path, stated: Mapping[str, Any]) -> list[Prediction]:
    """The whole rows of a part; DataError if its first row states something else than `stated`."""
    *lines, _ = part.read_text(encoding="utf-8").split("\n")
    try:
        first, *rows = [json.loads(line) for line in lines]
        found = first["replies_of"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{part} is no part of an evaluation ({error}); delete it to begin anew") from error
    check_same(part, "replies", stated, found)
    return read_predictions(rows, part)


def _first_row(path: Path) -> object:
    """What the first row of a file says its replies are of; None where it says nothing."""
    with path.open("rb") as file:
        try:
            return json.loads(file.readline())["replies_of"]
        except (ValueError, KeyError, TypeError):
            return None


def check_same(path: Path, what: str, stated: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise DataError if what was `found` in a file is of another evaluation than is `stated`."""
    for key in {**stated, **found}:
        if found.get(key) != stated.get(key):
            raise DataError(
                f"{path} holds {what} of another evaluation: {key}: expected {_short(stated.get(key))}, found "
                f"{_short(found.get(key))}; choose another --out, or delete it to begin anew"
            )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:200] + "..."
