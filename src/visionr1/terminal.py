"""Text for a terminal: control characters from files cannot command it."""

import json

_KEPT = "\n\t"
_CONTROL = [*range(0x20), *range(0x7F, 0xA0)]
"""C0 and C1: among them ESC, which begins a sequence, and 0x9B, which is one in eight bits."""
_DIRECTION = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
"""Overrides of the writing direction, which make text look like another."""

_SURROGATES = range(0xD800, 0xE000)
"""Halves of characters, as in names that are not UTF-8, which no terminal's encoding can print."""


def _escapes() -> dict[int, str]:
    """Map the code of each character that is not printed to its escape, as `str.translate` takes it."""
    escapes = {}
    for code in (*_CONTROL, *_DIRECTION, *_SURROGATES):
        if chr(code) not in _KEPT:
            # Python's own escape, without the quotes around it.
            escapes[code] = repr(chr(code))[1:-1]
    return escapes


_ESCAPES = _escapes()
_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in _ESCAPES}


def printable(text: object) -> str:
    r"""Return `text` with every control character, but newlines and tabs, written as its escape (`\x1b`).

    For names, labels and completions on their way to a terminal: an escape sequence in a file could otherwise move the
    cursor, recolour what follows or set the window's title.
    """
    return str(text).translate(_ESCAPES)


def printable_json(value: object) -> str:
    r"""Return `value` as indented JSON in its own script, with what `printable` escapes as JSON's escapes (``)."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return text.translate(_JSON_ESCAPES)
