"""Read JSON as models write it: other quotes, stray quotes, loose commas, comments, missing brackets, prose around.

One pass over the text, in time linear in its length; nothing raises. Objects keep their keys in order and repeated, so
that a reader can see a key that is given twice. What is valid JSON is read as a JSON parser reads it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

MAX_DEPTH = 64
"""Containers beyond this depth are passed over: no reply nests so deep, and time must stay linear."""

_SPACE = r"[\s\u200b\u2060\ufeff]*+"
_COLON = r"(?:=>|[:=：])"
_COMMA = r"[,;，；、]"

# Where the next item begins, inside a string that was never closed: `}, {`, `{"bbox_2d":`, or `}]` at the text's end.
_NEXT_ITEM = (
    rf"""\}}(?={_SPACE},?+{_SPACE}\{{|{_SPACE}\]{_SPACE}(?:```)?+{_SPACE}\Z)|\{{(?={_SPACE}["'“]?+\w++["'”]?+\s*+:)"""
)
# A quote ends its string only where structure follows: a separator, a bracket, a comment, another key, the text's end,
# or one of them behind an escaped line break.
_NEXT_KEY = r"""["'“][\w -]{1,40}["'”]\s*+:"""
_STRUCTURE = rf"{_SPACE}(?:\\?+[}}\]]|{_COMMA}|{_COLON}|\\[nrt]|//|/\*|{_NEXT_KEY}|\Z)"


def _loose_string(opening: str, closing: str) -> str:
    """Return the pattern of a string between quotes; its groups are the body, and the quote that closes it."""
    inner_quote = rf"[{closing}](?!{_STRUCTURE})"
    inner_brace = rf"(?!{_NEXT_ITEM})[{{}}]"
    return rf"[{opening}]((?:[^{closing}\\{{}}]++|\\.|{inner_quote}|{inner_brace})*+)([{closing}])?+"


_EMPTY_RUN = r"(?:(?:\{\s*+\}|\[\s*+\])[\s,]*+){2,}+"
_NUMBER = r"-?+[0-9]++(?:\.[0-9]++)?+"
_NUMBER_LIST = rf"{_NUMBER}(?:\s*+,\s*+{_NUMBER})++"
_NUMBERS = rf"[\[(]\s*+{_NUMBER_LIST}\s*+[\])]"
_WORD_START = r"[^\s{}\[\]｛｝［］,;:=，；、：\"'“”„‘’\\\u200b\u2060\ufeff]"
_WORD_REST = r"[^\s{}\[\]｛｝［］,;:=，；、：\"“”„\\\u200b\u2060\ufeff]*+"
_WORD = rf"{_WORD_START}{_WORD_REST}(?:[ \t]++{_WORD_START}{_WORD_REST})*+"
_COMMENT = r"//[^\r\n]*+|/\*(?:[^*]++|\*(?!/))*+(?:\*/)?+|\#[ ][^\r\n]*+"
# The quote that ends a key whose opening quote was lost, and what a stray quote stands before: a list of numbers, or
# a key of an item whose closing quote was lost.
_KEY_QUOTE = rf"""["'”](?={_SPACE}[:：])"""
_STRAY_QUOTE = rf"""["“](?={_NUMBERS}{_SPACE}[,}}]|(?:bbox_2d|bbox|label){_SPACE}[:：])"""
_STRICT_STRING = r'"((?:[^"\\]++|\\.)*+)(")?+'


def _tokens(double_quoted: str, stray: str = "") -> re.Pattern[str]:
    """Return the pattern of one token behind white space; `_Reader.handlers` says what its groups are."""
    single_quoted = _loose_string("'‘", "'’")
    curly = _loose_string("“”„", '“”"')
    numbers = rf"[\[(]\s*+({_NUMBER_LIST})\s*+[\])]"
    brackets = r"([{\[｛［])|([}\]｝］])"
    strings = f"{double_quoted}|{single_quoted}|{curly}"
    rest = rf"{_COMMA}++|\((?=\()|({_COLON}++)|(?:{_COMMENT})|({_WORD})(?:{_KEY_QUOTE})?+|\\[^{{}}\[\]]|."
    return re.compile(f"{_SPACE}(?:{_EMPTY_RUN}|{numbers}|{brackets}|{stray}{strings}|{rest})", re.DOTALL)


_LOOSE = _tokens(_loose_string('"', '"“”'), stray=f"{_STRAY_QUOTE}|")
_STRICT = _tokens(_STRICT_STRING)
_NUM_LIST, _OPEN, _CLOSE, _KEY_END, _BARE = 1, 2, 3, 10, 11
_STRINGS = (4, 6, 8)
"""Groups of a token: a list of numbers, a bracket, a colon, a word; the bodies of strings in three kinds of quotes."""

# Not one that is empty, or holds neither key nor text nor list: `{2}`.
_CONTAINER = re.compile(r"\[(?!\s*+\])|\{(?![\w\s.,;+-]*+\})|[｛［]")
_NEXT_PAIR = re.compile(rf"""{_SPACE}{_COMMA}{_SPACE}["'“]?+\w{{1,40}}+["'”]?+{_SPACE}[:：]""")
_SIBLING = re.compile(rf"{_SPACE}[,，]{_SPACE}[{{\[｛［]")
_ONE_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_ESCAPED_KEY = re.compile(r"[{\[](?:\s|\\[nrt])*+\\+\"")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_SURROGATES = re.compile("[\ud800-\udfff]")
_BREAK = re.compile(r"[ ]*[\x00-\x1f\x7f]+[ \x00-\x1f]*")
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "b": " ", "f": " "}
_CONSTANTS: dict[str, object] = {"null": None, "None": None, "true": True, "True": True, "false": False, "False": False}


class Word(str):
    """A word without quotes that is no number, such as `x1` in a template that the model repeats."""

    __slots__ = ()


@dataclass(slots=True)
class Object:
    """An object: its pairs in order, a repeated key included, and where it stands in the text."""

    start: int
    pairs: list[tuple[str, object]] = field(default_factory=list)
    end: int = 0
    key: str | None = None
    """Of an object that is being read: the key whose value is to come."""
    has_colon: bool = False
    joins_numbers: bool = False
    """Its last value is a list whose opening bracket was missing."""

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{key!r}: {value!r}" for key, value in self.pairs) + "}"


@dataclass(slots=True)
class Values:
    """The outermost lists and objects of a text."""

    whole: list[tuple[object, bool]] = field(default_factory=list)
    """Each with whether another one stands beside it, joined by a comma as the items of a list are."""
    unfinished: list[Object | list[object]] = field(default_factory=list)
    """Those that are still open at the end of the text, the outermost first."""
    has_prose: bool = False
    """Something besides white space and commas stands outside of them."""
    ends_in_string: bool = False

    @property
    def is_cut(self) -> bool:
        """True if an item, or a list of items, is still open at the end; a bracket in prose is neither."""
        if self.ends_in_string:
            return bool(self.unfinished)
        for container in self.unfinished:
            if isinstance(container, Object):
                if container.pairs or container.key or len(self.unfinished) > 1:
                    return True
            elif not container or any(not isinstance(value, Word) for value in container):
                return True
        return False


def read_values(text: str, *, strict: bool = False) -> Values:
    """Return the lists and objects of `text`; `strict` for valid JSON, whose strings end where JSON says."""
    reader = _Reader(text, _STRICT if strict else _LOOSE)
    values = reader.values
    end = 0
    while opening := _CONTAINER.search(text, end):
        values.has_prose = values.has_prose or bool(text[end : opening.start()].strip(" \t\r\n,"))
        end = reader.read_container(opening.start())
    if not reader.stack:
        values.has_prose = values.has_prose or bool(text[end:].strip(" \t\r\n,"))
    values.unfinished = reader.stack
    return values


def unescape_whole(text: str) -> str:
    """Return a text that was escaped as a whole, `[{\\"bbox_2d\\": ...`, as it was before; any other as it is."""
    if "&quot;" in text:
        text = html.unescape(text)
    for _ in range(3):
        if not _ESCAPED_KEY.search(text):
            break
        text = unescape(text)
    return text


def unescape(body: str) -> str:
    """Return the body of a string without its escapes; an unknown one is the character itself, `\\_` an underscore."""
    if "\\" in body:
        body = _ESCAPE.sub(_unescape_one, body)
        if _SURROGATES.search(body):
            # Two halves are one character; a half alone is none.
            body = body.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return body


def read_number(text: str) -> int | float | None:
    """Return the number that `text` is, None if it is none."""
    if text.isdigit() and text.isascii() and len(text) < 16:
        return int(text)
    if not _ONE_NUMBER.fullmatch(text):
        return None
    if len(text) < 16 and text[1:].isdigit():
        return int(text)
    return float(text)


def is_json(text: str) -> bool:
    """Say if `text` is valid JSON."""
    try:
        orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return False
    return True


class _Reader:
    """The containers that are open while a text is read."""

    def __init__(self, text: str, token: re.Pattern[str]) -> None:
        self.text = text
        self.token = token
        self.values = Values()
        self.stack: list[Object | list[object]] = []
        self.too_deep = 0
        self.after_comma = False

        # By the last group of a token that matched: a closed string has its quote, an open one only its body.
        self.handlers: list[Callable[[re.Match[str]], None] | None] = [None] * (token.groups + 1)
        self.handlers[_NUM_LIST] = self.take_numbers
        self.handlers[_OPEN] = self.open
        self.handlers[_CLOSE] = self.close
        self.handlers[_KEY_END] = self.end_key
        self.handlers[_BARE] = self.take_word
        for body in _STRINGS:
            self.handlers[body] = self.take_open_string
            self.handlers[body + 1] = self.take_string

    def read_container(self, start: int) -> int:
        """Read from the bracket at `start` to where all containers are closed; return the end, or that of the text."""
        match = self.token.match
        text = self.text
        handlers = self.handlers
        stack = self.stack
        position = start
        while token := match(text, position):
            position = token.end()
            handler = handlers[token.lastindex or 0]
            if handler:
                handler(token)
                if not stack:
                    return position
        return len(text)

    def take_numbers(self, token: re.Match[str]) -> None:
        """Take in a list that holds numbers alone: replies hold many."""
        numbers: list[object] = list(map(read_number, token[_NUM_LIST].replace(",", " ").split()))
        if self.stack:
            self.add(numbers)
        else:
            self.finish(numbers, token.end())

    def take_word(self, token: re.Match[str]) -> None:
        """Take in a word without quotes."""
        self.add(_read_word(token[_BARE]))

    def take_string(self, token: re.Match[str]) -> None:
        """Take in a string."""
        self.add(_read_string(token[(token.lastindex or 0) - 1]))

    def take_open_string(self, token: re.Match[str]) -> None:
        """Take in a string that ends where the next item begins, unless the text ends in it."""
        if token.end() >= len(self.text) - 1:
            self.values.ends_in_string = True
        else:
            self.add(_read_string(token[token.lastindex or 0]))

    def open(self, token: re.Match[str]) -> None:
        """Open a container; an object that waits for a key was not closed, so it ends here."""
        stack = self.stack
        if len(stack) >= MAX_DEPTH:
            self.too_deep += 1
            return
        if token[_OPEN] not in "{｛":
            stack.append([])
            return

        start = token.start(_OPEN)
        if stack:
            top = stack[-1]
            if isinstance(top, Object) and not top.has_colon:
                if top.pairs:
                    self.pop(start)
                else:
                    stack.pop()  # two braces for one
        stack.append(Object(start))

    def close(self, token: re.Match[str]) -> None:
        """Close the container that a bracket belongs to, and those that were left open in it."""
        if self.too_deep:
            self.too_deep -= 1
            return
        stack = self.stack
        top = stack[-1]
        end = token.end()
        is_brace = token[_CLOSE] in "}｝"
        if isinstance(top, Object) is is_brace:
            self.pop(end)
            return
        has_brace = isinstance(top, Object) and self.text[top.start] in "{｛"
        if isinstance(top, Object) and top.joins_numbers and has_brace:
            top.joins_numbers = False
            return

        # A wrong bracket before the next key ends a list at most, never the item.
        if _NEXT_PAIR.match(self.text, end) and (has_brace or is_brace):
            if not isinstance(top, Object):
                self.pop(end)
            return

        # A bracket of another kind than the innermost: close all up to its own, if there is one.
        if any(isinstance(container, Object) is is_brace for container in stack):
            while isinstance(stack[-1], Object) is not is_brace:
                self.pop(end - 1)
            self.pop(end)

    def pop(self, end: int) -> None:
        """Give the innermost container to the one around it."""
        container = self.stack.pop()
        if isinstance(container, Object):
            container.end = end
        if self.stack:
            self.add(container)
        else:
            self.finish(container, end)

    def finish(self, value: object, end: int) -> None:
        """Keep an outermost value, and whether it stands in a list without brackets."""
        has_sibling = bool(_SIBLING.match(self.text, end))
        self.values.whole.append((value, has_sibling or self.after_comma))
        self.after_comma = has_sibling

    def add(self, value: object) -> None:
        """Add a value to the innermost container: an element, a key, or the value of one."""
        top = self.stack[-1]
        if not isinstance(top, Object):
            top.append(value)
        elif top.has_colon:
            top.pairs.append((top.key or "", value))
            top.key = None
            top.has_colon = False
        elif isinstance(value, str):
            top.key = str(value)
        elif isinstance(value, list):
            # A value whose key was lost, or the colon behind it; or the second of two points, `(1, 2), (3, 4)`.
            last_key, last = top.pairs[-1] if top.pairs else ("", None)
            if top.key is None and isinstance(last, list) and len(last) == len(value) == 2:
                top.pairs[-1] = (last_key, [*last, *value])
                return
            top.pairs.append((top.key or "", value))
            top.key = None
        elif isinstance(value, int | float) and top.pairs:
            _join_number(top, value)

    def end_key(self, token: re.Match[str]) -> None:
        """Take a colon behind a key. In a list it is that of an object that was not opened, or is not closed."""
        top = self.stack[-1]
        if isinstance(top, Object):
            top.has_colon = top.key is not None
            return
        if not top or not isinstance(top[-1], str):
            return

        # A box was not closed: the key is that of the object around it. Else an object begins without its brace.
        key = str(top.pop())
        around = self.stack[-2] if len(self.stack) > 1 else None
        if isinstance(around, Object) and top and not any(isinstance(value, Object) for value in top):
            self.pop(0)
            around.key = key
            around.has_colon = True
        elif len(self.stack) < MAX_DEPTH:
            self.stack.append(Object(token.start(), key=key, has_colon=True))


def _join_number(item: Object, number: float) -> None:
    """Add a number that has no key to the last value, a list whose opening bracket is missing."""
    key, value = item.pairs[-1]
    if isinstance(value, int | float) and not isinstance(value, bool):
        item.pairs[-1] = (key, [value, number])
        item.joins_numbers = True
    elif item.joins_numbers and isinstance(value, list):
        value.append(number)


def _read_word(text: str) -> object:
    """Return the number or constant that a word is, or the word itself."""
    number = read_number(text)
    if number is not None:
        return number
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    return Word(text)


def _read_string(body: str) -> str:
    """Return the text of a string: without escapes, and with a blank for a line break or another control character."""
    text = unescape(body)
    if not text.isprintable():
        text = _BREAK.sub(" ", text)
        text = _SURROGATES.sub("\ufffd", text)
    return text


def _unescape_one(escape: re.Match[str]) -> str:
    """Return the character of one escape."""
    if escape[1]:
        return chr(int(escape[1], 16))
    return _LETTERS.get(escape[2], escape[2])
