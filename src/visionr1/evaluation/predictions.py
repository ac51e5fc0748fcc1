"""Files of predictions: raw replies of a model, or boxes; JSON Lines or a JSON list."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionr1.boxes import is_number
from visionr1.data.ids import Id, IdIndex, read_id
from visionr1.dialects import Dialect, get_dialect, resolve_dialect
from visionr1.errors import DataError, short_repr
from visionr1.files import read_json, read_json_lines, write_text_atomic
from visionr1.samples import Size

JsonRows = list[Mapping[str, Any]]

ROUNDING = 1e-3
"""By so much a stored log-probability may be above 0."""
FILE_ENDINGS = (".json", ".jsonl", ".predictions.jsonl")
"""Endings of a file of predictions in a folder, in the order they are looked for."""


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
        """Return the prediction as a row of a .jsonl file."""
        record: dict[str, Any] = {
            "sample_id": self.sample_id,
            "image_id": self.image_id,
            "categories": list(self.categories),
            "input_size_wh": None,
            "truncated": self.truncated,
            "text": self.text,
        }
        if self.input_size_wh:
            record["input_size_wh"] = list(self.input_size_wh)

        # Only replies of a model here have tokens; files of other tools stay without the two columns.
        if self.token_ends:
            record["token_ends"] = self.token_ends
            record["token_logprobs"] = self.token_logprobs
        return record


def write_predictions(
    path: Path, predictions: Iterable[Prediction], replies_of: Mapping[str, Any] | None = None
) -> None:
    """Write one row each, whole or not at all; before them `replies_of`, all that the replies depend on, if known."""
    rows: list[Mapping[str, Any]] = []
    if replies_of:
        rows.append({"replies_of": replies_of})
    for prediction in predictions:
        rows.append(prediction.to_json())

    # Labels and replies stay readable in any script.
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_text_atomic(path, "".join(lines))


def read_files(paths: Sequence[Path]) -> tuple[dict[Path, JsonRows], Mapping[str, Any]]:
    """Read the rows of each predictions file, the shards of one evaluation, and what their first rows say.

    The second is what the replies depend on (`replies_of`), empty where the files do not say.

    Raises DataError if they cannot be of one evaluation, or if replies are expected and there are none.
    """
    files: dict[Path, JsonRows] = {}
    headers: dict[Path, Mapping[str, Any]] = {}
    for path in paths:
        files[path] = read_rows(path)

        # `visionr1 eval` writes a first row that is no reply.
        if files[path] and "replies_of" in files[path][0]:
            headers[path] = files[path][0]
            files[path] = files[path][1:]

    # No box at all is a result, no reply at all is a mistake.
    must_hold_replies = bool(headers) or all(path.suffix == ".jsonl" for path in paths)
    if must_hold_replies and not any(files.values()):
        raise DataError(f"{paths[0]}: expected replies or boxes, found no row; results without a box are [] (.json)")

    _check_one_evaluation(files, headers)
    replies_of = None
    if headers:
        replies_of = next(iter(headers.values()))["replies_of"]
    if not isinstance(replies_of, dict):
        replies_of = {}
    return files, replies_of


def drop_images(
    files: Mapping[Path, JsonRows], left_out: Collection[Id], image_ids: Iterable[Id]
) -> dict[Path, JsonRows]:
    """Return the rows of each file without those of images that are `left_out` of the data, which has `image_ids`."""
    all_ids = IdIndex([*image_ids, *left_out])
    kept: dict[Path, JsonRows] = {}
    for path, rows in files.items():
        kept[path] = [row for row in rows if all_ids.find(row.get("image_id")) not in left_out]
    return kept


def drop_samples(
    files: Mapping[Path, JsonRows], left_out: Collection[str], sample_ids: Iterable[str]
) -> dict[Path, JsonRows]:
    """Return the rows of each file without those of samples that are `left_out` of the data, which has `sample_ids`."""
    kept_ids = set(sample_ids)
    dropped = set(left_out) - kept_ids
    all_ids = IdIndex([*kept_ids, *dropped])
    kept: dict[Path, JsonRows] = {}
    for path, rows in files.items():
        kept[path] = [row for row in rows if all_ids.find(row.get("sample_id")) not in dropped]
    return kept


def _check_one_evaluation(files: Mapping[Path, JsonRows], headers: Mapping[Path, Mapping[str, Any]]) -> None:
    """Raise DataError if some files hold replies and others boxes, or if their first rows differ."""
    path_by_kind: dict[bool, Path] = {}
    for path, rows in files.items():
        if rows:
            path_by_kind[is_replies([rows])] = path
    path_by_header: dict[str, Path] = {}
    for path, header in headers.items():
        path_by_header[json.dumps(header)] = path

    # The last file of each kind stands for it in the message.
    for different in (list(path_by_kind.values()), list(path_by_header.values())):
        if len(different) > 1:
            raise DataError(f"{different[0]} and {different[1]} are not of one evaluation; score them apart")


def read_rows(path: Path) -> JsonRows:
    """Read the rows of a predictions file, a JSON list or JSON Lines; DataError if one is no object."""
    if path.suffix == ".jsonl":
        rows: Any = read_json_lines(path)
    else:
        rows = read_json(path)
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a list of predictions, found a {type(rows).__name__}")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {index}: expected an object, found {short_repr(row)}")
    return rows


def predictions_file(folder: Path, name: str) -> Path:
    """Return the file of predictions for the set `name` in a folder; DataError if there is none."""
    names = []
    for ending in FILE_ENDINGS:
        file = folder / f"{name}{ending}"
        if file.is_file():
            return file
        names.append(file.name)
    raise DataError(f"{folder}: no predictions for {name}; expected {', '.join(names)}")


def is_replies(files: Iterable[JsonRows]) -> bool:
    """Say if the rows of files are raw replies (they have a text), not COCO results."""
    return any(rows and "text" in rows[0] for rows in files)


def replies_dialect(paths: Sequence[Path], name: str | Dialect | None, replies_of: Mapping[str, Any]) -> Dialect:
    """Return the dialect of replies: `name` as a user gave it, or that of their first row; DataError if neither."""
    if name:
        return resolve_dialect(name) if isinstance(name, str) else name

    stored_name = replies_of.get("dialect")
    if not isinstance(stored_name, str):
        raise DataError(f"{paths[0]} holds raw replies; say how they write boxes with --dialect, such as qwen25")
    return get_dialect(stored_name)


def replies_in(files: Mapping[Path, JsonRows]) -> list[Prediction]:
    """Read the raw replies of all files; DataError if one prompt has two."""
    replies: list[Prediction] = []
    place_by_prompt: dict[object, str] = {}
    for path, rows in files.items():
        for index, reply in enumerate(read_predictions(rows, path)):
            place = f"{path}: row {index}"

            # One image may have several prompts: one for each category.
            prompt = (reply.sample_id, reply.image_id, reply.categories)
            if place_by_prompt.setdefault(prompt, place) != place:
                raise DataError(
                    f"{place}: image {reply.image_id!r} was answered in {place_by_prompt[prompt]}; keep one of the "
                    "two, or where the prompts differ, give each row its own sample_id"
                )
            replies.append(reply)
    return replies


def read_predictions(rows: JsonRows, path: Path) -> list[Prediction]:
    """Read raw replies: `text` and `image_id`, optionally `sample_id`, `categories`, `truncated`, `input_size_wh`."""
    predictions = []
    for index, row in enumerate(rows):
        predictions.append(_read_prediction(row, f"{path}: row {index}"))
    return predictions


def _read_prediction(row: Mapping[str, Any], where: str) -> Prediction:
    """Check a row field by field; DataError begins with `where`."""
    image_id = read_id(row.get("image_id"))
    if image_id is None:
        raise DataError(f"{where}: image_id: expected the id of an image, found {short_repr(row.get('image_id'))}")
    if not isinstance(row.get("text"), str):
        raise DataError(f"{where}: text: expected the reply as a string, found {short_repr(row.get('text'))}")
    input_size_wh = _read_size(row, where)
    categories = row.get("categories") or []
    if not (isinstance(categories, list) and all(isinstance(name, str) for name in categories)):
        raise DataError(f"{where}: categories: expected a list of names, found {short_repr(categories)}")

    return Prediction(
        image_id=image_id,
        text=row["text"],
        sample_id=str(row.get("sample_id", image_id)),
        truncated=bool(row.get("truncated", False)),
        input_size_wh=input_size_wh,
        categories=tuple(categories),
        token_ends=_read_numbers(row, "token_ends", where),
        token_logprobs=_read_logprobs(row, where),
    )


def _read_size(row: Mapping[str, Any], where: str) -> Size | None:
    """Read the size that the model saw, (width, height) in pixels; None where a row does not say."""
    size = row.get("input_size_wh")
    if size is None:
        return None

    # Pixels may come as 640.0, but not as 640.5.
    is_pair = isinstance(size, list) and len(size) == 2
    if not (is_pair and all(is_number(side) and side == int(side) > 0 for side in size)):
        raise DataError(f"{where}: input_size_wh: expected [width, height] in pixels, found {short_repr(size)}")
    return int(size[0]), int(size[1])


def _read_logprobs(row: Mapping[str, Any], where: str) -> tuple[float, ...]:
    """Read the log-probabilities of tokens: none is above 0, but for rounding."""
    values = _read_numbers(row, "token_logprobs", where)
    if values and max(values) > ROUNDING:
        raise DataError(
            f"{where}: token_logprobs: expected logarithms of probabilities, found {short_repr(max(values))}"
        )
    return values


def _read_numbers(row: Mapping[str, Any], key: str, where: str) -> tuple[Any, ...]:
    """Read a list of numbers, empty where the row has none."""
    values = row.get(key) or []
    if not (isinstance(values, list) and all(map(is_number, values))):
        raise DataError(f"{where}: {key}: expected a list of finite numbers, found {short_repr(values)}")
    return tuple(values)
