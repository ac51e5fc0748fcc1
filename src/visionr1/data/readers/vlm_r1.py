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
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from visionr1.data.dataset import BoxDataset, clip_boxes
from visionr1.data.grounding import GroundingRows, checked_box
from visionr1.data.readers.base import Reader
from visionr1.data.row_log import OnBad, get_field, is_name_list, is_object_list
from visionr1.errors import DataError
from visionr1.files import read_json_lines
from visionr1.samples import Boxes, Query

MAX_LIST_CHARACTERS = 20_000
"""How far into a question its list of categories is read."""
MAX_BRACKETS = 50
"""How many closing brackets are tried as the end of that list."""

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

    # Unlike a benchmark's truth, what is trained on is cut off at the image.
    samples = []
    for sample in rows.dataset().samples:
        truth = clip_boxes(sample.truth, sample.size_wh, f"row {sample.id}", rows.log)
        samples.append(replace(sample, truth=truth))
    return BoxDataset.from_samples(path, samples, rows.log.report())


def _read_row(row: Any) -> tuple[Query, Boxes, str]:
    """Return what a row asks for, its true boxes, and its image; DataError saying what was expected."""
    question, answer = _read_turns(row)
    image = _read_image(row)

    # Four numbers answer a question for one expression.
    value = _parse_answer(answer)
    if _is_box(value):
        expression = _EXPRESSION.search(question)
        if expression is None:
            expected = '"... this sentence describes: EXPRESSION" for an answer of four numbers'
            raise DataError(f"human: expected {expected}")
        name = " ".join(expression[1].split())
        return Query("referring", (name,)), Boxes.of([checked_box(value)], [name]), image

    # A list of boxes with labels answers a question for categories.
    if not is_object_list(value) or not all(map(_is_labelled_box, value)):
        expected = "a list of bbox_2d and label, four numbers or None"
        raise DataError(f"gpt: expected {expected}, found {answer!r:.80}")
    labels = [item["label"] for item in value]
    categories = _read_categories(question) or tuple(dict.fromkeys(labels))
    if not categories:
        expected = "the categories asked for, as in \"the following objects: ['cat', 'dog']\""
        raise DataError(f"human: expected {expected}")
    boxes = [checked_box(item["bbox_2d"]) for item in value]
    return Query("detection", categories), Boxes.of(boxes, labels), image


def _read_turns(row: Any) -> tuple[str, str]:
    """Return the question and the answer of a row's conversation; DataError if it has not both."""
    turns = get_field(row, "conversations")
    if not is_object_list(turns):
        raise DataError(f"conversations: expected a list of turns, found {turns!r:.60}")

    text_of_speaker = {turn.get("from"): turn.get("value") for turn in turns}
    question, answer = text_of_speaker.get("human"), text_of_speaker.get("gpt")
    if not isinstance(question, str) or not isinstance(answer, str):
        raise DataError("conversations: expected a turn from human and one from gpt, with text")
    return question, answer


def _read_image(row: Mapping[str, Any]) -> str:
    """Return the file name of a row's only image, which may stand in a list; DataError if it has another number."""
    image = row.get("image")
    if isinstance(image, list) and len(image) == 1:
        image = image[0]
    if not isinstance(image, str):
        raise DataError(f"image: expected one image, found {image!r:.60}")
    return image


def _parse_answer(text: str) -> Any:
    """Return the JSON value of an answer, fenced or bare; the text itself if it is none."""
    fence = _FENCE.search(text)
    text = fence[1] if fence else text.strip()

    # How VLM-R1 writes that nothing is there.
    if text in ("None", ""):
        return []
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _read_categories(question: str) -> tuple[str, ...]:
    """Return the list after "following objects:", which is written as Python writes it; () if there is none."""
    start = question.find("following objects:")
    if start < 0:
        return ()

    # The list ends at a bracket, but so may a name: try the first ones, of a text and a number that are bounded.
    text = question[start:].partition(":")[2].lstrip()
    end = -1
    for _ in range(MAX_BRACKETS):
        end = text.find("]", end + 1, MAX_LIST_CHARACTERS)
        if end < 0:
            return ()
        try:
            names = ast.literal_eval(text[: end + 1])
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue  # this bracket is within a name
        if is_name_list(names):
            return tuple(dict.fromkeys(names))
    return ()


def _is_box(value: Any) -> bool:
    """Return True for four numbers; whether they are finite is checked with the row's other faults."""
    return isinstance(value, list) and len(value) == 4 and set(map(type, value)) <= {int, float}


def _is_labelled_box(item: Mapping[str, Any]) -> bool:
    """Return True for an item of an answer: a box with a label that is not blank."""
    return is_name_list([item.get("label")]) and _is_box(item.get("bbox_2d"))


READER = Reader(name="vlm_r1", description="VLM-R1's rows (.jsonl)", sniff=sniff, read=read_vlm_r1)
