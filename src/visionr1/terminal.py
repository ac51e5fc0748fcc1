"""Text for a terminal: control characters from files cannot command it, and no encoding of it ends a command."""

import io
import json
import logging
import sys
import traceback
from types import TracebackType

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


def printable_line(text: object) -> str:
    r"""Return `text` as `printable` does, in one line: a line break in a name could otherwise forge a line of ours."""
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")


def printable_message(text: object) -> str:
    """Return `text` as `printable` does, every line but the first indented, so that none looks like another message."""
    return printable(text).replace("\n", "\n  ")


def printable_json(value: object) -> str:
    r"""Return `value` as indented JSON in its own script, with what `printable` escapes as JSON's escapes (`\u001b`).

    Where standard output cannot write that script, all that is not ASCII is escaped so.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    return printable_toml(text)


def printable_toml(text: str) -> str:
    r"""Return a TOML or JSON text with what `printable` escapes as their own escapes (`\u009b`).

    Both have such characters in strings alone.
    """
    return text.translate(_JSON_ESCAPES)


class PrintableFormatter(logging.Formatter):
    """Format log records for a terminal: they name samples and files."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text as `printable_message` does."""
        return printable_message(super().format(record))


def print_unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of an error that nobody caught, as `sys.excepthook` does, but printable."""
    lines = traceback.format_exception(kind, error, trace)
    print(printable("".join(lines)), end="", file=sys.stderr)


def make_output_safe() -> None:
    """Prepare the standard streams, and what Python itself writes there, for text of any kind."""
    for stream in (sys.stdout, sys.stderr):
        # What an encoding lacks is written as an escape: a result must not be lost for a letter.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    # The handler of warnings where a program has set up no logging.
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(PrintableFormatter())
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = print_unexpected
