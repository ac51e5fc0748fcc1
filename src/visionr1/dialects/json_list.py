"""Reading a JSON list of `{"bbox_2d": [x1, y1, x2, y2], "label": "name"}` from model text: strict, then salvaging.

Shared by the dialects that write JSON; they differ in the coordinate space only. A list of well-formed items alone is
read at once. All else goes through one reader of objects (`loose_json.py`) and one of items (`json_items.py`),
whatever stands around the list, so that a broken reply is never read otherwise than the whole one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import orjson

from visionr1.dialects.base import MAX_BOXES, NORM1000_WH, check_encodable, read_reply
from visionr1.dialects.reading.box_forms import is_number
from visionr1.dialects.reading.brackets import split_boxes
from visionr1.dialects.reading.items import Items, is_open_thought, skip_thought
from visionr1.dialects.reading.json_items import add_json_items
from visionr1.dialects.reading.key_lines import read_key_lines
from visionr1.dialects.reading.labelled import read_labelled
from visionr1.dialects.reading.loose_json import Values, read_values, unescape_whole
from visionr1.dialects.reading.other_forms import name_other_form, read_words
from visionr1.dialects.reading.tags import read_tags, with_plain_tags
from visionr1.samples import Fault, FaultKind, Reply, Size, compose_text

_BRACKETED = re.compile(r"\[\s?[0-9][0-9.]{0,20}(?:,\s?[0-9][0-9.]{0,20}){3}\s?\]")
_TAGGED_VALUE = re.compile(r"box\w{0,20}[\"'”]?\s{0,3}[:：]\s{0,3}[\"']?<box>")
_FENCE, _FENCE_END = "```json", "```"


def render_json_list(numbers: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """Return the fenced list in the form of the paper's SFT targets: one item a line, indented by a tab.

    Raises ValueError for a blank label, which no reader of this form accepts, and for one that no text file can hold.
    """
    if not labels:
        return "```json\n[]\n```"
    lines = []
    for index, (box, label) in enumerate(zip(numbers, labels, strict=True)):
        if not label.strip():
            raise ValueError(f"box {index} has a blank label; every box needs a name to be written")
        check_encodable(label)
        corners = ", ".join(map(str, box))
        lines.append(f'\t{{"bbox_2d": [{corners}], "label": {orjson.dumps(compose_text(label)).decode()}}}')
    return "```json\n[\n" + ",\n".join(lines) + "\n]\n```"


def parse_json_list(text: str, *, grid_wh: tuple[float, float], size_wh: Size, categories: Sequence[str] = ()) -> Reply:
    """Return the reply in `text`, whose coordinates are integers that span `grid_wh`. Never raises on text."""
    body = text.strip()
    if body.startswith(_FENCE) and body.endswith(_FENCE_END) and len(body) >= len(_FENCE + _FENCE_END):
        body = body[len(_FENCE) : -len(_FENCE_END)].strip()
    try:
        value = orjson.loads(body)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        value = None

    # A list of well-formed items is read at once.
    if isinstance(value, list):
        reply = _read_well_formed(body, value, grid_wh, size_wh, categories)
        if reply is not None:
            return reply

    items = Items(tuple(categories))
    if value is None:
        _salvage(text, body, items, grid_wh)
    else:
        _read_json(body, value, items)
    return items.reply(grid_wh, size_wh)


def _read_well_formed(
    body: str, value: list[object], grid_wh: tuple[float, float], size_wh: Size, categories: Sequence[str]
) -> Reply | None:
    """Return the reply of a list whose items have exactly a box of four numbers and a label; None for any other."""
    # JSON lets a later key replace an earlier one, so count what the text has.
    if body.count('"bbox_2d"') > len(value) or body.count('"label"') > len(value):
        return None

    numbers: list[list[float]] = []
    labels: list[str] = []
    faults: list[Fault] = []
    for position, item in enumerate(value[:MAX_BOXES]):
        if not isinstance(item, dict) or len(item) != 2:
            return None
        box = item.get("bbox_2d")
        label = item.get("label")
        if not isinstance(label, str) or not label.strip() or not isinstance(box, list) or len(box) != 4:
            return None

        # Numbers of another form are a fault, but they are a box.
        are_integers = True
        for number in box:
            if type(number) is not int:
                if type(number) is not float or not math.isfinite(number):
                    return None
                are_integers = False
        if not are_integers:
            faults.append(Fault(FaultKind.WRONG_NUMBER_FORM, position, f"expected integers, found {box}"))
        numbers.append(box)
        labels.append(label)

    # The items beyond the limit are predictions without a box.
    num_beyond = len(value) - len(numbers)
    if num_beyond:
        detail = f"{len(value)} items; {MAX_BOXES} are read"
        faults.append(Fault(FaultKind.TOO_MANY_BOXES, MAX_BOXES, detail))
    return read_reply(
        numbers,
        labels,
        range(len(numbers)),
        num_malformed=num_beyond,
        faults=faults,
        grid_wh=grid_wh,
        size_wh=size_wh,
        categories=categories,
    )


def _read_json(body: str, value: object, items: Items) -> None:
    """Read the items of valid JSON that is not a list of well-formed items."""
    if isinstance(value, str):
        # The list was written into a string.
        body = unescape_whole(value)
        add_json_items(read_values(body), body, items)
    else:
        add_json_items(read_values(body, strict=True), body, items)
    if not isinstance(value, list) or any(isinstance(item, list) for item in value):
        detail = f"expected a flat list of objects, found {type(value).__name__}"
        items.fault(FaultKind.NOT_A_LIST, detail)
    elif not items.faults and not all(map(_is_item, value)):
        # What is no prediction has no fault of its own: an empty object, a template, a wrapper in the list.
        items.fault(FaultKind.NOT_A_LIST, "expected a list of items alone, found a list with other things")


def _is_item(value: object) -> bool:
    """Say if a value of valid JSON is an object with exactly a box of four numbers and a label."""
    if not isinstance(value, dict) or value.keys() != {"bbox_2d", "label"}:
        return False
    box, label = value["bbox_2d"], value["label"]
    is_box = isinstance(box, list) and len(box) == 4 and all(map(is_number, box))
    return is_box and isinstance(label, str) and bool(label.strip())


def _salvage(text: str, body: str, items: Items, grid_wh: tuple[float, float]) -> None:
    """Read the items of a text that is no JSON: those in tags of this space, in lists and objects, or in words."""
    answer = split_boxes(unescape_whole(skip_thought(body)))
    other_form = name_other_form(answer, reads_norm1000=grid_wh == NORM1000_WH)
    if other_form:
        items.fault(FaultKind.UNREADABLE, other_form)
        return

    # Tags hold boxes of their own, or stand around the box of an object.
    tagged = with_plain_tags(answer)
    if "<box>" in tagged and grid_wh == NORM1000_WH:
        if _TAGGED_VALUE.search(tagged):
            answer = tagged.replace("<box>", "").replace("</box>", "")
        else:
            read_tags(tagged, items)

    values = read_values(answer)
    if items.count == 0 and "{" not in answer:
        read_key_lines(answer, items)
        if items.count == 0 and values.has_prose and _BRACKETED.search(answer):
            read_labelled(answer, items)
    if items.count == 0:
        add_json_items(values, answer, items)
    if items.count == 0:
        read_words(answer, items)

    fault = _fault_of_text(text, body, values, items.count)
    items.fault(fault.kind, fault.detail)


def _fault_of_text(text: str, body: str, values: Values, num_items: int) -> Fault:
    """Return why `text` is not a well-formed list."""
    if values.is_cut or is_open_thought(body):
        return Fault(FaultKind.TRUNCATED, None, "the list does not end")
    if num_items and not values.has_prose and not body.startswith("[") and skip_thought(body) == body:
        return Fault(FaultKind.NOT_A_LIST, None, "expected one list, found objects without one around them")

    bare = body.startswith("[") and body.endswith("]") and _FENCE_END not in body
    if num_items and not bare:
        detail = "expected nothing but one list, bare or in one ```json fence"
        return Fault(FaultKind.SURROUNDING_TEXT, None, detail)
    return Fault(FaultKind.UNREADABLE, None, f"cannot be read as JSON: {text[:60]!r}")
