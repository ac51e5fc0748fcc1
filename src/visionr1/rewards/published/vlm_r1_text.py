"""Read replies as VLM-R1's public code does: tags, fences, lists of items. Linear in the text; nothing raises on it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from visionr1.dialects.reading.loose_json import Object, read_values
from visionr1.samples import compose_text

_LIST_START = re.compile(r"\[\s*+\{")
_LIST_END = re.compile(r"\}\s*+\]")


def blocks(text: str, opening: str, closing: str) -> Iterator[str]:
    """Yield what stands between `opening` and the next `closing`, one block after the other."""
    start = text.find(opening)
    while start >= 0:
        end = text.find(closing, start + len(opening))
        if end < 0:
            return
        yield text[start + len(opening) : end]
        start = text.find(opening, end + len(closing))


def last_fence(text: str) -> str:
    """Return what stands in the last ```json fence; nothing if there is none."""
    fences = list(blocks(text, "```json", "```"))
    if not fences:
        return ""
    return fences[-1]


def read_list(text: str) -> list[object] | None:
    """Return the JSON list that `text` is; None if it is none."""
    try:
        value = json.loads(text.strip())
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    return value


def says_no_object(answer: str, items: list[object] | None) -> bool:
    """Return True if a reply says that there is no object: None or an empty list, bare or in a fence."""
    bare = next(blocks(answer, "```", "```"), answer).removeprefix("json")
    return items == [] or normalize_answer(bare) == "none" or read_list(bare) == []


def normalize_answer(text: str) -> str:
    """Put an answer on one line, without final dots, in lower case, as the public code does for weighted_sum."""
    # A line break after white space vanishes; any other becomes a space.
    without_breaks = re.sub(r"(?<=\s)[\r\n]", "", text)
    one_line = re.sub(r"(?<!\s)[\r\n]", " ", without_breaks)
    return one_line.strip().rstrip(".").lower()


def read_box(item: object) -> list[float] | None:
    """Return the first four numbers of an item's box; None where there are no four."""
    if not isinstance(item, dict):
        return None
    box = item.get("bbox_2d")
    if not isinstance(box, list) or len(box) < 4:
        return None

    numbers = []
    for number in box[:4]:
        if not isinstance(number, int | float) or not abs(number) <= 1e100:  # NaN is not
            return None
        numbers.append(float(number))
    return numbers


def read_label(item: object) -> str | None:
    """Return an item's label, composed (NFC) as true labels are; None where it has none that is a text."""
    if not isinstance(item, dict):
        return None
    label = item.get("label")
    if not isinstance(label, str):
        return None
    return compose_text(label)


def read_first_items(text: str) -> list[str] | None:
    """Return box and label of each item of the first list, as text; None if there is no list with anything in it."""
    list_text = _find_first_list(text)
    try:
        items = json.loads(list_text)
    except ValueError:
        items = _complete_objects(list_text)
        if not items and list_text.startswith("[") and "{" in list_text:
            return []  # a list whose first item was cut off
    except RecursionError:
        return None
    if not isinstance(items, list) or not items:
        return None

    written = []
    try:
        for item in items:
            if isinstance(item, dict) and "bbox_2d" in item and "label" in item:
                written.append(f"{item['bbox_2d']}_{item['label']}")
    except RecursionError:  # nested as deep as can be read, and too deep to be written
        return None
    return written


def _complete_objects(text: str) -> list[object]:
    """Return the objects of a list that is no JSON, those that are complete, as dictionaries."""
    values = read_values(text)
    found: list[object] = []
    for container in [*(value for value, _ in values.whole), *values.unfinished]:
        elements = container if isinstance(container, list) else [container]
        for element in elements:
            # An object that is still open has no end.
            if isinstance(element, Object) and element.end:
                found.append(dict(element.pairs))
    return found


def _find_first_list(text: str) -> str:
    """Return what may be a list: the first ```json fence, else the first fence, else `[ {` to `} ]` around a box."""
    for json_fence in blocks(text, "```json", "```"):
        return json_fence.strip()

    fence = next(blocks(text, "```", "```"), "").strip()
    if fence:
        return fence

    # Without a fence, the list must hold a box and, after it, a label.
    start = _LIST_START.search(text)
    if start is None:
        return ""
    box = text.find('"bbox_2d"', start.end())
    if box < 0:
        return ""
    label = text.find('"label"', box)
    if label < 0:
        return ""
    end = _LIST_END.search(text, label)
    if end is None:
        return ""
    return text[start.start() : end.end()]
