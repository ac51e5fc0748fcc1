"""Read a reply as Vision-R1's released evaluation does: one list, whole or cut off at its end, or nothing.

The text between a line "```json" and the next fence, or all of it, is read as a Python literal; where that fails, once
more, cut off behind the last `"}` and closed (jefferyZhan/Griffon, Vision-R1/eval/eval_localization.py). So one item
that is no literal costs all the others, which `salvage=items` reads.
"""

from __future__ import annotations

import ast
import json
import warnings

_ITEM_END = '"}'
_NO_BOX = "no box"
_LONGEST = 1 << 16
"""Characters; a longer reply is read as nothing."""


def release_list(text: str) -> str:
    """Return the list that the release reads in `text`, as JSON; empty if it reads none. Never raises on text."""
    lines = text.splitlines()
    if "```json" in lines:
        text = "\n".join(lines[lines.index("```json") + 1 :]).partition("```")[0]
    closed = text[: text.rfind(_ITEM_END) + len(_ITEM_END)] + "]"
    for literal in (text, closed):
        if len(literal) > _LONGEST:
            continue
        try:
            # Python warns of escapes that it does not know.
            with warnings.catch_warnings(action="ignore"):
                value = ast.literal_eval(literal)
            if not isinstance(value, list):
                return "[]"
            return json.dumps([item if _is_box(item) else _NO_BOX for item in value])
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
    return "[]"


def _is_box(item: object) -> bool:
    """Say if the release takes an item for a box: other keys and forms, which `salvage=items` reads, are none to it."""
    if not isinstance(item, dict) or not isinstance(item.get("label"), str):
        return False
    box = item.get("bbox_2d")
    if not isinstance(box, list) or len(box) != 4 or not all(type(number) in (int, float) for number in box):
        return False
    return bool(box[0] < box[2] and box[1] < box[3])
