"""Write values as TOML, which Python only reads."""

import json
import re
from collections.abc import Mapping
from datetime import date, time
from typing import Any

from visionr1.errors import RecipeError


def toml_value(value: Any) -> str:
    """Return a value as TOML writes it, in one line."""
    if isinstance(value, Mapping):
        entries = [f"{toml_key(key)} = {toml_value(item)}" for key, item in value.items()]
        return "{" + ", ".join(entries) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        _check_encodable(value)
        # The escapes of JSON are TOML's, which wants this one more.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    raise RecipeError(
        f"a recipe cannot hold {value!r:.80}: expected numbers, texts, true or false, dates, lists or tables of them"
    )


def _check_encodable(text: str) -> None:
    """Raise RecipeError for a text that no TOML file can hold, as the name of a file can be that is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RecipeError(
            f"a recipe cannot hold {text!r:.200}: expected text in UTF-8; if it is the name of a file, rename that"
        ) from error


def toml_key(key: str) -> str:
    """Return a key as TOML writes it: bare, or in quotes."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", key):
        return key
    return toml_value(key)
