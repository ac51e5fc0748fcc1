"""Files of predictions: raw replies of a model, or boxes; JSON Lines or a JSON list."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from visionr1.boxes import is_number
from visionr1.data.row_log import Id, read_id
from visionr1.dialects import Dialect, get_dialect, resolve_dialect
from visionr1.errors import DataError
from visionr1.files import read_json, read_json_lines, write_text_atomic
from visionr1.samples import Size

JsonRows = list[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One reply of a model.

    `input_size_wh` is what its processor fed to it: dialects in model pixels cannot be read without. `categories` are
    those asked for; empty means all of the set. `token_ends` says where in `text` each token ends, and `token_logprobs`
    gives its log-probability; scores=token needs them.
    """

    image_id: Id
    text: str
    sample_id: str = ""
    truncated: bool = False
    input_size_wh: Size | None = None
    categories: tuple[str, ...] = ()
    token_ends: tuple[int, ...] = ()
    token_logprobs: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The prediction as a row of a .jsonl file."""
        return {
            "sample_id": self.sample_id,
            "image_id": self.image_id,
            "categories": list(self.categories),
            "input_size_wh": list(self.input_size_wh) if self.input_size_wh else None,
            "truncated": self.truncated,
            "text": self.text,
            **({"token_ends": self.token_ends, "token_logprobs": self.token_logprobs} if self.token_ends else {}),
        }


def write_predictions(
    path: Path, predictions: Iterable[Prediction], replies_of: Mapping[str, Any] | None = None
) -> None:
    """One row each, whole or not at all; before them a row that says what they are `replies_of`, where that is known"""
    first = [{"replies_of": replies_of}] if replies_of else []
    records = chain(first, (prediction.to_json() for prediction in predictions))
    rows = [json.dumps(record, ensure_ascii=False) for record in records]
    write_text_atomic(path, "".join(row + "\n" for row in rows))


def read_files(paths: Sequence[Path]) -> tuple[dict[Path, JsonRows], Mapping[str, Any]]:
    """The rows of each predictions file, the shards of one evaluation, and what a first row says they are replies of.

    Raises DataError if they cannot be of one evaluation, or if replies are expected and there are none.
    """
    files, headers = {path: read_rows(path) for path in paths}, {}
    for path, rows in files.items():
        if rows and "replies_of" in rows[0]:  # as `visionr1 eval` wrote it
            headers[path], *files[path] = rows
    if not any(files.values()) and (headers or all(path.suffix == ".jsonl" for path in paths)):
        raise DataError(f"{paths[0]}: expected replies or boxes, found no row; results without a box are [] (.json)")
    kinds = {is_replies([rows]): path for path, rows in files.items() if rows}
    unlike = kinds if len(kinds) > 1 else {json.dumps(header): path for path, header in headers.items()}
    if len(unlike) > 1:
        first, second, *_ = unlike.values()
        raise DataError(f"{first} and {second} are not of one evaluation; score them apart")
    stated = next(iter(headers.values()), {}).get("replies_of")
    return files, stated if isinstance(stated, dict) else {}


def read_rows(path: Path) -> JsonRows:
    """The rows of a predictions file: a JSON list, or JSON Lines; DataError if one is no object."""
    rows = read_json_lines(path) if path.suffix == ".jsonl" else read_json(path)
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a list of predictions, found a {type(rows).__name__}")
    if not set(map(type, rows)) <= {dict}:
        index = next(index for index, row in enumerate(rows) if not isinstance(row, dict))
        raise DataError(f"{path}: row {index}: expected an object, found {rows[index]!r:.60}")
    return rows


def predictions_file(folder: Path, name: str) -> Path:
    """The file of predictions for the set `name` in a folder; DataError if there is none."""
    files = [folder / f"{name}{ending}" for ending in (".json", ".jsonl", ".predictions.jsonl")]
    if file := next((file for file in files if file.is_file()), None):
        return file
    raise DataError(f"{folder}: no predictions for {name}; expected {', '.join(file.name for file in files)}")


def is_replies(files: Iterable[JsonRows]) -> bool:
    """Whether the rows of files are raw replies (they have a text), not COCO results."""
    return any(rows and "text" in rows[0] for rows in files)


def replies_dialect(paths: Sequence[Path], name: str | Dialect | None, replies_of: Mapping[str, Any]) -> Dialect:
    """Return the dialect of replies: `name` as a user gave it, or that of their first row; DataError if neither."""
    if name:
        return resolve_dialect(name) if isinstance(name, str) else name
    stated = replies_of.get("dialect")
    if not isinstance(stated, str):
        raise DataError(f"{paths[0]} holds raw replies; say how they write boxes with --dialect, such as qwen25")
    return get_dialect(stated)


def replies_in(files: Mapping[Path, JsonRows]) -> list[Prediction]:
    """The raw replies of all files; DataError if one prompt has two."""
    replies: list[Prediction] = []
    seen: dict[object, str] = {}
    for path, rows in files.items():
        for index, reply in enumerate(read_predictions(rows, path)):
            prompt, where = (reply.sample_id, reply.image_id, reply.categories), f"{path}: row {index}"
            if (before := seen.setdefault(prompt, where)) != where:
                raise DataError(
                    f"{where}: image {reply.image_id!r} was answered in {before}; keep one of the two, or where the "
                    "prompts differ, give each row its own sample_id"
                )
            replies.append(reply)
    return replies


def read_predictions(rows: JsonRows, path: Path) -> list[Prediction]:
    """Raw replies: `text` and `image_id`, optionally `sample_id`, `categories`, `truncated`, `input_size_wh`."""
    return [_prediction(row, f"{path}: row {index}") for index, row in enumerate(rows)]


def _prediction(row: Mapping[str, Any], where: str) -> Prediction:
    identity = read_id(row.get("image_id"))
    if identity is None:
        raise DataError(f"{where}: image_id: expected the id of an image, found {row.get('image_id')!r:.60}")
    if not isinstance(row.get("text"), str):
        raise DataError(f"{where}: text: expected the reply as a string, found {row.get('text')!r:.60}")
    size = row.get("input_size_wh")
    if size is not None and not (
        isinstance(size, list) and len(size) == 2 and all(is_number(side) and side == int(side) > 0 for side in size)
    ):
        raise DataError(f"{where}: input_size_wh: expected [width, height] in pixels, found {size!r:.60}")
    categories = row.get("categories") or []
    if not (isinstance(categories, list) and all(isinstance(name, str) for name in categories)):
        raise DataError(f"{where}: categories: expected a list of names, found {categories!r:.60}")
    return Prediction(
        image_id=identity,
        text=row["text"],
        sample_id=str(row.get("sample_id", identity)),
        truncated=bool(row.get("truncated", False)),
        input_size_wh=(int(size[0]), int(size[1])) if size else None,
        categories=tuple(categories),
        token_ends=_column(row, "token_ends", where),
        token_logprobs=_column(row, "token_logprobs", where),
    )


def _column(row: Mapping[str, Any], key: str, where: str) -> tuple[Any, ...]:
    """A list of numbers of a row, empty where it has none."""
    values = row.get(key) or []
    if not (isinstance(values, list) and all(map(is_number, values))):
        raise DataError(f"{where}: {key}: expected a list of finite numbers, found {values!r:.60}")
    return tuple(values)
