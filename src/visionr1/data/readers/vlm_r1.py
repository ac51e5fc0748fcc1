"""Rows of conversations, as VLM-R1, Qwen and ms-swift train on: the answers hold the true boxes.

A row has one image and one or more pairs of a question and an answer (see `conversations`); each pair is a sample. The
answer is a list of `{"bbox_2d", "label"}` in a fence or bare, one such object, `None`, or, of an expression, four
numbers; boxes are xyxy pixels of the original image, clipped to it. What is asked for stands in the question: a list of
categories after "the following objects:", or the expression after "this sentence describes:" or in "Locate EXPRESSION
in this image". A question that names neither asks for the labels of its answer. A label that is not asked for is a bad
row.

Every step takes time linear in the text.
"""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from visionr1.data.dataset import BoxDataset, clip_boxes
from visionr1.data.grounding import GroundingRows, checked_box
from visionr1.data.readers.base import Reader
from visionr1.data.readers.conversations import Pair, read_image, read_pairs
from visionr1.data.row_log import OnBad, is_file, is_name_list, is_object_list
from visionr1.errors import DataError, short_repr
from visionr1.files import parse_json, read_json, read_json_lines
from visionr1.samples import Boxes, Query, compose_text, normalize_label

# A name as Python or JSON quotes it, and what may follow it in a list; possessive, so that nothing is tried twice.
_NAME = re.compile(r"""\s*+[uU]?+('(?:[^'\\\n]|\\.)*+'|"(?:[^"\\\n]|\\.)*+")\s*+([,\]])""")
_LIST_END = re.compile(r"\s*+\]")
_LOCATE = re.compile(r"\blocate\b", re.IGNORECASE)
_IN_IMAGE = re.compile(r"\bin (?:this|the) (?:image|picture|photo)\b", re.IGNORECASE)


def sniff(path: Path) -> bool:
    """Return True for a .jsonl file, and for a .json file that holds a list."""
    if path.suffix != ".json":
        return path.suffix == ".jsonl"
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            start = file.read(4096)
    except (OSError, ValueError):
        return False
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def read_vlm_r1(
    path: Path, *, split: str | None = None, on_bad: OnBad = "raise", image_dir: Path | None = None
) -> BoxDataset:
    """Read the samples of such a file, their images in or near its folder, or in `image_dir`.

    Raises DataError, or counts, for bad rows.

    A file is one split, whichever is asked for.
    """
    # A pipe would be waited for.
    if not is_file(path):
        raise DataError(f"{path}: no such file; expected {READER.description}")
    content = read_json(path) if path.suffix == ".json" else read_json_lines(path)
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of rows, found a {type(content).__name__}")

    rows = GroundingRows(path, with_images=True, on_bad=on_bad, image_dir=image_dir)
    for index, row in enumerate(content):
        where = f"row {index}"
        try:
            pairs = read_pairs(row)
            image = read_image(row)
        except DataError as error:
            image = _find_image_name(row)
            rows.bad("bad_row", where, str(error), identity=str(index), image_id=image)
            continue
        for number, pair in enumerate(pairs):
            identity = str(index)
            if len(pairs) > 1:
                identity = f"{index}/{number}"
            _add_pair(rows, pair, image, identity)

    # Unlike a benchmark's truth, what is trained on is cut off at the image.
    samples = []
    for sample in rows.dataset().samples:
        truth = clip_boxes(sample.truth, sample.size_wh, f"row {sample.id}", rows.log)
        samples.append(replace(sample, truth=truth))
    return BoxDataset.from_samples(path, samples, rows.log.report())


def _find_image_name(row: object) -> str:
    """Return the file name of the image of a row that cannot be used; "" if it names none."""
    try:
        return read_image(row) if isinstance(row, dict) else ""
    except DataError:
        return ""


def _add_pair(rows: GroundingRows, pair: Pair, image: str, identity: str) -> None:
    """Add the sample of one question and its answer, or log why it cannot be used."""
    where = f"row {identity}"
    try:
        query, truth = _read_pair(pair)
    except DataError as error:
        rows.bad("bad_row", where, str(error), identity=identity, image_id=image)
        return
    rows.add_query(where, identity=identity, image=image, image_id=image, query=query, truth=truth)


def _read_pair(pair: Pair) -> tuple[Query, Boxes]:
    """Return what is asked for, and the true boxes of the answer; DataError saying what was expected."""
    items = _read_items(pair)
    boxes = [checked_box(item["bbox_2d"]) for item in items]
    labels = [_compose_label(item.get("label")) for item in items]
    asked = _read_categories(pair.question)

    # Boxes without labels, or none at all, answer a question for one thing.
    if not any(label is not None for label in labels) and len(asked) < 2:
        name = asked[0] if asked else _read_expression(pair.question)
        if name:
            query = Query("detection", asked) if asked else Query("referring", (name,))
            return query, Boxes.of(boxes, [name] * len(boxes))
        if boxes:
            expected = '"... this sentence describes: EXPRESSION" for an answer without labels'
            raise DataError(f"{pair.asks}: expected {expected}")

    # A list of boxes with labels answers a question for categories.
    if not is_name_list(labels):
        expected = "a list of bbox_2d and label, four numbers or None"
        raise DataError(f"{pair.answers}: expected {expected}, found {short_repr(pair.answer)}")
    categories = asked or tuple(dict.fromkeys(labels))
    if not categories:
        expected = "the categories asked for, as in \"the following objects: ['cat', 'dog']\""
        raise DataError(f"{pair.asks}: expected {expected}")

    # Spelled as asked for, so that a letter in another case makes no category of its own.
    spelling = {normalize_label(name): name for name in categories}
    for label in labels:
        if normalize_label(label) not in spelling:
            expected = f"labels among those asked for, {short_repr(list(categories))}"
            raise DataError(f"{pair.answers}: expected {expected}, found {short_repr(label)}")
    return Query("detection", categories), Boxes.of(boxes, [spelling[normalize_label(label)] for label in labels])


def _read_items(pair: Pair) -> list[dict[str, Any]]:
    """Return the items of an answer, each with a box of four numbers; DataError if it is no list of such."""
    value = _parse_answer(pair.answer)
    if _is_box(value):
        value = {"bbox_2d": value}
    if isinstance(value, dict):
        value = [value]
    if is_object_list(value) and all(_is_box(item.get("bbox_2d")) for item in value):
        return value
    expected = "a list of bbox_2d and label, four numbers or None"
    raise DataError(f"{pair.answers}: expected {expected}, found {short_repr(pair.answer)}")


def _parse_answer(text: str) -> Any:
    """Return the JSON value of an answer, fenced or bare; the text itself if it is none."""
    _, _, fenced = text.partition("```")
    inside, closing, _ = fenced.partition("```")
    if closing:
        text = inside.removeprefix("json")
    text = text.strip()

    # How VLM-R1 writes that nothing is there.
    if text in ("None", ""):
        return []
    try:
        return parse_json(text)
    except ValueError:
        return text


def _read_categories(question: str) -> tuple[str, ...]:
    """Return the list after "following objects:", quoted as Python or JSON writes it; () if there is none."""
    _, _, text = question.partition("following objects:")
    start = text.find("[")
    if start < 0 or text[:start].strip():
        return ()

    names = []
    place = start + 1
    while name := _NAME.match(text, place):
        try:
            names.append(ast.literal_eval(name[1]))
        except (ValueError, SyntaxError):
            return ()  # an escape that means nothing
        place = name.end()
        if name[2] == "]":
            break
    else:
        # Only a comma after the last name may stand before the end.
        if not _LIST_END.match(text, place):
            return ()
    if not is_name_list(names):
        return ()
    return tuple(dict.fromkeys(map(compose_text, names)))


def _read_expression(question: str) -> str:
    """Return the expression of VLM-R1's question or of Qwen's, on one line; "" if there is none."""
    _, mark, expression = question.partition("this sentence describes:")
    if not mark:
        locate = _LOCATE.search(question)
        end = _IN_IMAGE.search(question, locate.end()) if locate else None
        if locate is None or end is None:
            return ""
        expression = question[locate.end() : end.start()]
    return compose_text(" ".join(expression.strip().removesuffix(".").split()))


def _compose_label(label: object) -> object:
    """Return a label composed (NFC), so that rows which spell it in two forms name one category."""
    if isinstance(label, str):
        return compose_text(label)
    return label


def _is_box(value: Any) -> bool:
    """Return True for four numbers; whether they are finite is checked with the row's other faults."""
    return isinstance(value, list) and len(value) == 4 and set(map(type, value)) <= {int, float}


READER = Reader(
    name="vlm_r1",
    description="rows of conversations as VLM-R1's and Qwen's (.jsonl, or a list in .json)",
    sniff=sniff,
    read=read_vlm_r1,
    read_with_images=read_vlm_r1,
)
