"""Reading a JSON list of `{"bbox_2d": [x1, y1, x2, y2], "label": "name"}` from model text: strict, then salvaging.

Shared by the dialects that write JSON; they differ in the coordinate space only. Two paths: a well-formed list is read
at once; from anything else every complete `{...}` without a brace inside is salvaged by one pass over the text.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Sequence

import orjson

from visionr1.dialects.base import MAX_BOXES, check_encodable, read_reply
from visionr1.samples import Fault, FaultKind, Reply, Size, compose_text

_FENCE, _FENCE_END = "```json", "```"
# One pass: strings hide their braces. None goes across a line, which JSON forbids; a cut-off one ends with its line.
_TOKEN = re.compile(r'"(?:[^"\\\r\n]++|\\.)*+"?|[{}]')


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
    faults: list[Fault] = []
    items = _read_list(text, faults)
    num_malformed = 0
    numbers: list[list[float]] = []
    labels: list[str] = []
    positions: list[int] = []
    for position, item in enumerate(items[:MAX_BOXES]):
        box = _read_box(item, position, faults)
        if box is None:
            num_malformed += 1
            continue
        numbers.append(box)
        labels.append(_read_label(item, position, faults))
        positions.append(position)

    # The items beyond the limit are predictions without a box.
    if len(items) > MAX_BOXES:
        num_malformed += len(items) - MAX_BOXES
        detail = f"{len(items)} items; {MAX_BOXES} are read"
        faults.append(Fault(FaultKind.TOO_MANY_BOXES, MAX_BOXES, detail))
    return read_reply(
        numbers,
        labels,
        positions,
        num_malformed=num_malformed,
        faults=faults,
        grid_wh=grid_wh,
        size_wh=size_wh,
        categories=categories,
    )


def _read_list(text: str, faults: list[Fault]) -> list[object]:
    """Return the items of the list in `text`: all of a well-formed one, else every complete object."""
    body = text.strip()
    if body.startswith(_FENCE) and body.endswith(_FENCE_END) and len(body) >= len(_FENCE + _FENCE_END):
        body = body[len(_FENCE) : -len(_FENCE_END)].strip()
    try:
        value = orjson.loads(body)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        value = None

    # A well-formed list. JSON lets a later key replace an earlier one, so count what the text has.
    if isinstance(value, list) and not any(isinstance(item, list) for item in value):
        if body.count('"bbox_2d"') > len(value) or body.count('"label"') > len(value):
            return _without_repeated_keys(body, value)
        return value

    items = salvage_objects(body)
    faults.append(_fault_of_text(text, body, value, len(items)))
    return items


def _without_repeated_keys(body: str, value: list[object]) -> list[object]:
    """Replace an item of `value` that gives a key twice by None: which of the two is meant cannot be known."""
    # With nested objects the texts do not fit the items; the items' extra keys are faulted later.
    texts = complete_objects(body)
    if len(texts) != len(value):
        return value

    items = list(value)
    for index, text in enumerate(texts):
        if len(re.findall(r'"(?:bbox_2d|label)"\s*+:', text)) > 2:
            items[index] = None
    return items


def complete_objects(text: str) -> list[str]:
    """Return every `{...}` of `text` that holds no other brace outside its strings, in order; linear in the text."""
    objects: list[str] = []
    first = text.find("{")
    if first < 0:
        return objects

    # A brace inside an open object starts anew, so that only the innermost object is returned.
    start = -1
    for token in _TOKEN.finditer(text, first):
        if token[0] == "{":
            start = token.start()
        elif token[0] == "}" and start >= 0:
            objects.append(text[start : token.end()])
            start = -1
    return objects


def salvage_objects(text: str) -> list[object]:
    """Return every complete object of `text` (at most MAX_BOXES are read), None for one that is no JSON."""
    items: list[object] = []
    for candidate in complete_objects(text):
        try:
            items.append(orjson.loads(candidate) if len(items) < MAX_BOXES else None)
        except (orjson.JSONDecodeError, UnicodeEncodeError):
            items.append(None)
    return items


def _fault_of_text(text: str, body: str, value: object, num_items: int) -> Fault:
    """Return why `text` is not a well-formed list."""
    if value is not None:
        return Fault(
            FaultKind.NOT_A_LIST,
            None,
            f"expected a flat list of objects, found {type(value).__name__}",
        )

    # The list does not end if what follows the last object opens as many lists as it closes.
    start = body.find("[")
    tail = body[max(start, body.rfind("}")) + 1 :]
    if start >= 0 and tail.count("]") <= tail.count("["):
        return Fault(FaultKind.TRUNCATED, None, "the list does not end")

    bare = body.startswith("[") and body.endswith("]") and _FENCE_END not in body
    if num_items and not bare:
        detail = "expected nothing but one list, bare or in one ```json fence"
        return Fault(FaultKind.SURROUNDING_TEXT, None, detail)
    return Fault(FaultKind.UNREADABLE, None, f"cannot be read as JSON: {text[:60]!r}")


def _read_box(item: object, position: int, faults: list[Fault]) -> list[float] | None:
    """Return the four numbers of an item, or None (with a fault) if it has none."""
    if not isinstance(item, dict):
        detail = f"expected an object, found {reprlib.repr(item)}"
        faults.append(Fault(FaultKind.WRONG_KEYS, position, detail))
        return None
    box = item.get("bbox_2d")
    if not isinstance(box, list) or len(box) != 4:
        detail = f"bbox_2d is {reprlib.repr(box)}"
        faults.append(Fault(FaultKind.NOT_FOUR_NUMBERS, position, detail))
        return None

    # Numbers of another form are a fault, but they are a box.
    are_integers = True
    for number in box:
        if type(number) is int:
            continue
        if type(number) is not float or not math.isfinite(number):
            detail = f"bbox_2d holds {reprlib.repr(number)}"
            faults.append(Fault(FaultKind.NOT_FOUR_NUMBERS, position, detail))
            return None
        are_integers = False
    if not are_integers:
        detail = f"expected integers, found {box}"
        faults.append(Fault(FaultKind.WRONG_NUMBER_FORM, position, detail))
    return box


def _read_label(item: object, position: int, faults: list[Fault]) -> str:
    """Return the label of an item that has a box, or an empty one (with a fault)."""
    assert isinstance(item, dict)
    label = item.get("label")
    has_name = isinstance(label, str) and bool(label.strip())
    if len(item) != 2 or not has_name:
        detail = f"expected exactly bbox_2d and a non-empty label, found keys {sorted(item)[:6]}"
        faults.append(Fault(FaultKind.WRONG_KEYS, position, detail))
    return label if isinstance(label, str) and has_name else ""
