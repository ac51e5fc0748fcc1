"""VLM-R1's training rows: JSON Lines of an image and a conversation, in which the answer holds the true boxes.

`{"id", "image", "conversations": [{"from": "human", "value"}, {"from": "gpt", "value"}]}`. The answer is a list of
`{"bbox_2d", "label"}` in a fence or bare, `None`, or, of an expression, four numbers; boxes are xyxy pixels of the
original image, clipped to it. What is asked for stands in the question: a list of categories after "the following
objects:", or the expression after "this sentence describes:". A question that names no list asks for the labels of its
answer.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from visionr1.data.dataset import BoxDataset, clip_boxes
from visionr1.data.grounding import GroundingRows, checked_box
from visionr1.data.readers.base import Reader
from visionr1.data.row_log import OnBad
from visionr1.errors import DataError
from visionr1.files import read_json_lines
from visionr1.samples import Boxes, Query

_EXPRESSION = re.compile(r"this sentence describes:\s*(.+?)\.?\s*$", re.DOTALL)
_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)


def sniff(path: Path) -> bool:
    """Return True for a .jsonl file."""
    return path.suffix == ".jsonl"


def read_vlm_r1(path: Path, *, split: str | None = None, on_bad: OnBad = "raise") -> BoxDataset:
    """Read the samples of such a file, their images in or near its folder; DataError, or a count, for bad rows.

    A file is one split, whichever is asked for.
    """
    rows = GroundingRows(path, with_images=True, on_bad=on_bad)
    for index, row in enumerate(read_json_lines(path)):
        where = f"row {index}"
        try:
            query, truth, image = _read_row(row)
        except DataError as error:
            rows.log.bad("bad_row", where, str(error))
            continue
        rows.add_query(where, identity=str(index), image=image, image_id=str(image), query=query, truth=truth)

    samples = []
    for sample in rows.dataset().samples:
        truth = clip_boxes(sample.truth, sample.size_wh, f"row {sample.id}", rows.log)
        samples.append(replace(sample, truth=truth))
    return BoxDataset.from_samples(path, samples, rows.log.report())


def _read_row(row: Any) -> tuple[Query, Boxes, object]:
    """Return what a row asks for, its true boxes, and its image; DataError saying what was expected."""
    turns = row.get("conversations") if isinstance(row, dict) else None
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise DataError(f"conversations: expected a list of turns, found {turns!r:.60}")
    values = {turn.get("from"): turn.get("value") for turn in turns}
    question, answer = values.get("human"), values.get("gpt")
    if not isinstance(question, str) or not isinstance(answer, str):
        raise DataError("conversations: expected a turn from human and one from gpt, with text")
    image = row.get("image")
    if isinstance(image, list) and len(image) == 1:
        image = image[0]
    if not isinstance(image, str):
        raise DataError(f"image: expected one image, found {image!r:.60}")

    # Four numbers answer a question for one expression.
    value = _answer(answer)
    if _is_box(value):
        expression = _EXPRESSION.search(question)
        if expression is None:
            raise DataError('human: expected "... this sentence describes: EXPRESSION" for an answer of four numbers')
        name = " ".join(expression[1].split())
        return Query("referring", (name,)), Boxes.of([checked_box(value)], [name]), image

    # A list of boxes with labels answers a question for categories.
    if not isinstance(value, list) or not all(_is_item(item) for item in value):
        raise DataError(f"gpt: expected a list of bbox_2d and label, four numbers or None, found {answer!r:.80}")
    labels = [item["label"] for item in value]
    asked = _read_categories(question) or tuple(dict.fromkeys(labels))
    if not asked:
        raise DataError("human: expected the categories asked for, as in \"the following objects: ['cat', 'dog']\"")
    return Query("detection", asked), Boxes.of([checked_box(item["bbox_2d"]) for item in value], labels), image


def _answer(text: str) -> Any:
    """Return the JSON value of an answer, fenced or bare; the text itself if it is none."""
    fence = _FENCE.search(text)
    text = fence[1] if fence else text.strip()
    if text in ("None", ""):
        return []
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _read_categories(question: str) -> tuple[str, ...]:
    """Return the list after "following objects:", which is written as Python writes it."""
    start = question.find("following objects:")
    text = question[start:].partition(":")[2].lstrip() if start >= 0 else ""
    for end in [place for place, sign in enumerate(text[:20_000]) if sign == "]"][:50]:
        try:
            names = ast.literal_eval(text[: end + 1])
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue  # this bracket is within a name
        if isinstance(names, list) and all(isinstance(name, str) and name.strip() for name in names):
            return tuple(dict.fromkeys(names))
    return ()


def _is_box(value: Any) -> bool:
    """Return True for four numbers; whether they are finite is checked with the row's other faults."""
    return isinstance(value, list) and len(value) == 4 and all(type(side) in (int, float) for side in value)


def _is_item(item: Any) -> bool:
    named = isinstance(item, dict) and isinstance(item.get("label"), str) and bool(item["label"].strip())
    return named and _is_box(item.get("bbox_2d"))


READER = Reader(name="vlm_r1", description="VLM-R1's rows (.jsonl)", sniff=sniff, read=read_vlm_r1)
