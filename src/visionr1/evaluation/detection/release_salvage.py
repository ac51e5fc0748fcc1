"""What Vision-R1's released evaluation reads of a reply: one list, whole or cut off at its end, or nothing.

The text between a line "```json" and the next fence, or all of it, is read as a Python literal; where that fails, once
more, cut off behind the last `"}` and closed (jefferyZhan/Griffon, Vision-R1/eval/eval_localization.py). So one item
that is no literal costs all the others, which `salvage=items` reads.
"""

from __future__ import annotations

import ast
import json
import warnings

_ITEM_END = '"}'
_LONGEST = 1 << 16
"""Characters; a longer reply is read as nothing."""


def release_list(text: str) -> str:
    """The list that the release reads in `text`, as JSON. Never raises on text."""
    lines = text.splitlines()
    if "```json" in lines:
        text = "\n".join(lines[lines.index("```json") + 1 :]).partition("```")[0]
    for said in (text, text[: text.rfind(_ITEM_END) + len(_ITEM_END)] + "]"):
        try:
            with warnings.catch_warnings(action="ignore"):  # of escapes that Python does not know
                value = ast.literal_eval(said if len(said) <= _LONGEST else "")
            return json.dumps(value) if isinstance(value, list) else "[]"
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
    return "[]"
