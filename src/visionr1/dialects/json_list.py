"""Reading a JSON list of items such as `{"bbox_2d": [x1, y1, x2, y2], "label": "name"}`: strict, then salvaging.

Shared by the dialects that write JSON; they differ in the form of an item and in the coordinate space. A list of
well-formed items alone is read at once. All else goes through one reader of objects (`loose_json.py`) and one of items
(`json_items.py`), whatever stands around the list, so that a broken reply is never read otherwise than the whole one.
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
from visionr1.dialects.reading.json_form import JsonForm
from visionr1.dialects.reading.json_items import add_json_items
from visionr1.dialects.reading.key_lines import read_key_lines
from visionr1.dialects.reading.labelled import read_labelled
from visionr1.dialects.reading.loose_json import Values, read_values, unescape_whole
from visionr1.dialects.reading.other_forms import name_other_form, read_words
from visionr1.dialects.reading.tags import read_tags, with_plain_tags
from visionr1.samples import Fault, FaultKind, Reply, Size, compose_text

_BRACKETED = re.compile(r"\[\s?[0-9][0-9.]{0,20}(?:,\s?[0-9][0-9.]{0,20}){3}\s?\]")
_TAGGED_VALUE = re.compile(r"box\w{0,20}[\"'”]?\s{0,3}[:：]\s{0,3}[\"']?<box>")
FENCE, FENCE_END = "```json", "```"


def render_json_list(
    numbers: Sequence[Sequence[float]], labels: Sequence[str], form: JsonForm, *, label_first: bool = False
) -> str:
    """Return the fenced list in the form of the paper's SFT targets: one item a line, indented by a tab.

    `numbers` are in the order of the `form`. Raises ValueError for a blank label, which no reader of this form accepts,
    for one that no text file can hold, and for several labels where items have none.
    """
    if not labels:
        return "```json\n[]\n```"
    if not form.label_key and len(set(map(compose_text, labels))) > 1:
        found = ", ".join(sorted(set(labels))[:3])
        raise ValueError(f"boxes are labelled {found}, but this dialect writes no labels: ask for one category")
    lines = []
    for index, (box, label) in enumerate(zip(numbers, labels, strict=True)):
        if not label.strip():
            raise ValueError(f"box {index} has a blank label; every box needs a name to be written")
        check_encodable(label)
        pairs = [f'"{form.box_key}": [{", ".join(map(str, box))}]']
        if form.label_key:
            pairs.append(f'"{form.label_key}": {orjson.dumps(compose_text(label)).decode()}')
        if label_first:
            pairs.reverse()
        lines.append(f"\t{{{', '.join(pairs)}}}")
    return "```json\n[\n" + ",\n".join(lines) + "\n]\n```"


def parse_json_list(
    text: str, form: JsonForm, *, grid_wh: tuple[float, float], size_wh: Size, categories: Sequence[str] = ()
) -> Reply:
    """Return the reply in `text`, whose items have the `form` and whose coordinates span `grid_wh`.

    Never raises on text.
    """
    body = text.strip()
    if body.startswith(FENCE) and body.endswith(FENCE_END) and len(body) >= len(FENCE + FENCE_END):
        body = body[len(FENCE) : -len(FENCE_END)].strip()
    try:
        value = orjson.loads(body)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        value = None

    # A list of well-formed items is read at once.
    if isinstance(value, list):
        reply = _read_well_formed(body, value, form, grid_wh, size_wh, categories)
        if reply is not None:
            return reply

    items = Items(tuple(categories), form)
    if value is None:
        _salvage(text, body, items, grid_wh)
    else:
        _read_json(body, value, items)
    return items.reply(grid_wh, size_wh)


def _read_well_formed(
    body: str,
    value: list[object],
    form: JsonForm,
    grid_wh: tuple[float, float],
    size_wh: Size,
    categories: Sequence[str],
) -> Reply | None:
    """Return the reply of a list whose items have exactly a box of four numbers and a label; None for any other."""
    # JSON lets a later key replace an earlier one, so count what the text has.
    box_key, label_key, has_integers = form.box_key, form.label_key, form.has_integers
    if not label_key or any(body.count(f'"{key}"') > len(value) for key in (box_key, label_key)):
        return None

    numbers: list[list[float]] = []
    labels: list[str] = []
    faults: list[Fault] = []
    for position, item in enumerate(value[:MAX_BOXES]):
        if not isinstance(item, dict) or len(item) != 2:
            return None
        box = item.get(box_key)
        label = item.get(label_key)
        if not isinstance(label, str) or not label.strip() or not isinstance(box, list) or len(box) != 4:
            return None

        # Numbers of another form are a fault, but they are a box.
        are_integers = True
        for number in box:
            if type(number) is not int:
                if type(number) is not float or not math.isfinite(number):
                    return None
                are_integers = False
        if has_integers and not are_integers:
            faults.append(Fault(FaultKind.WRONG_NUMBER_FORM, position, f"expected integers, found {box}"))
        numbers.append(form.to_xyxy(box) if form.y_first else box)
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
    elif not items.faults and not all(_is_item(item, items.form) for item in value):
        # What is no prediction has no fault of its own: an empty object, a template, a wrapper in the list.
        items.fault(FaultKind.NOT_A_LIST, "expected a list of items alone, found a list with other things")


def _is_item(value: object, form: JsonForm) -> bool:
    """Say if a value of valid JSON is an object with exactly a box of four numbers and a label."""
    if not isinstance(value, dict) or value.keys() != form.keys:
        return False
    box = value[form.box_key]
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        return False
    label = value[form.label_key] if form.label_key else "none is written"
    return isinstance(label, str) and bool(label.strip())


def _salvage(text: str, body: str, items: Items, grid_wh: tuple[float, float]) -> None:
    """Read the items of a text that is no JSON: those in tags of this space, in lists and objects, or in words."""
    answer = split_boxes(unescape_whole(skip_thought(body)))
    reads_tags = grid_wh == NORM1000_WH and not items.form.y_first
    other_form = name_other_form(answer, reads_norm1000=reads_tags)
    if other_form:
        items.fault(FaultKind.UNREADABLE, other_form)
        return

    # Tags hold boxes of their own, or stand around the box of an object.
    tagged = with_plain_tags(answer)
    if "<box>" in tagged and reads_tags:
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

    bare = body.startswith("[") and body.endswith("]") and FENCE_END not in body
    if num_items and not bare:
        detail = "expected nothing but one list, bare or in one ```json fence"
        return Fault(FaultKind.SURROUNDING_TEXT, None, detail)
    return Fault(FaultKind.UNREADABLE, None, f"cannot be read as JSON: {text[:60]!r}")
