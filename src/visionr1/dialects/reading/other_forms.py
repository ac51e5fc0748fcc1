"""Boxes in forms that no dialect writes, for replies in which nothing else can be read.

Forms that no family owns, such as XML, are read in the dialect's own space. Those of families whose numbers mean
something else than the dialect's are named instead.
"""

from __future__ import annotations

import re

from visionr1.dialects.reading.items import Items
from visionr1.dialects.reading.labelled import label_before
from visionr1.dialects.reading.loose_json import read_number
from visionr1.samples import FaultKind

_OTHER_FAMILIES = (
    (re.compile(r"<loc\d{4}>"), "the location tokens of PaliGemma", "paligemma"),
    (re.compile(r"<loc_\d+>"), "the location tokens of Florence-2", "florence2"),
    (re.compile(r"<patch_index_\d+>"), "the location tokens of Kosmos-2", "kosmos2"),
)
"""Tokens, whose they are, and the dialect that reads them."""
_REX_TOKENS = re.compile(r"(?:<\d{1,3}>){4}", re.ASCII)
_POINTS = re.compile(r"<points?(?:>|\s+(?:[xy]\d?|coords|alt)\s?=)")
_NORM1000_TAGS = re.compile(r"<\|(?:box_start|det)\|>|<box>\s*+[\[(0-9]")

_JSON_OBJECT = re.compile(r"""\{\s*+["'“]?+\w++["'”]?+\s*+:""")
_NUMBER = r"(-?[0-9]{1,20}(?:\.[0-9]{1,20})?)"
_FOUR = r"\s{0,3}[,;]?\s{0,3}".join([rf"\(?{_NUMBER}\)?"] * 4)
_ONLY_FOUR = re.compile(rf"[\s(\[]*+{_FOUR}[\s)\].]*+")
_SEPARATOR = r"[ \t,;|]{1,4}"
_CORNER = r"(?:the\s)?(?:(?:bottom|lower)[\s-]right)?(?:\scorner)?\s?(?:at|is|[:=])?\s?"
_SIDES = re.compile(r"[\s,;]{1,4}".join(rf"{side}\s?[=:]\s?{_NUMBER}" for side in ("x1", "y1", "x2", "y2")))
_PATTERNS = (
    re.compile(rf"<(?P<label>[^<>/\s]{{1,60}})>\s*<(?:bbox|box|bounding_box)>\s*{_FOUR}\s*</"),
    re.compile(rf"<(?:bbox|box)\s+\w+\s*=\s*[\"'](?P<label>[^\"'<>]{{1,200}})[\"']\s*>\s*{_FOUR}\s*</"),
    re.compile(rf"<(?:bbox|box|bounding_box)>\s*{_FOUR}\s*</"),
    _SIDES,
    re.compile(
        rf"\({_NUMBER},\s?{_NUMBER}\)\s?(?:,|to|and|[-–→])?\s?{_CORNER}\({_NUMBER},\s?{_NUMBER}\)", re.IGNORECASE
    ),
    re.compile(r"[({]" + r",\s?".join([_NUMBER] * 4) + r"[)}]"),
    re.compile(
        rf"^(?P<label>(?:\|?[ \t]*+\d{{1,3}}[ \t]*+\|)?[^\n\d\[\](){{}}]{{1,60}}?)[ \t,:|]{{1,4}}"
        rf"{_SEPARATOR.join([_NUMBER] * 4)}[ \t|]*+$",
        re.MULTILINE,
    ),
)
"""Forms that no family owns: XML, HTML, sides by name, two points, four numbers, rows of a table."""
_ASCII_MARKS = str.maketrans("（）｛｝，：；", "(){},:;")


def name_other_form(text: str, *, reads_norm1000: bool, own: str = "") -> str:
    """Return, in words, whose tokens a reply is written in, if no dialect in this space can read them; empty if none.

    `reads_norm1000`: the dialect's coordinates run from 0 to 1000, as those of box tags do. `own` is its name, whose
    tokens are not another's.
    """
    if "bbox" in text or "<" not in text:
        return ""
    for pattern, family, dialect in _OTHER_FAMILIES:
        if dialect != own and pattern.search(text):
            return f"{family}, which this dialect does not write (dialect {dialect} does): {text[:60]!r}"
    if _POINTS.search(text):
        return f"the points of Molmo or Qwen2.5-VL, and points are no boxes: {text[:60]!r}"
    if not reads_norm1000 and _REX_TOKENS.search(text):
        return f"the coordinate tokens of Rex-Omni (dialect rex), from 0 to 999: {text[:60]!r}"
    if not reads_norm1000 and _NORM1000_TAGS.search(text):
        return f"box tags as Qwen2-VL and InternVL write them, from 0 to 1000: {text[:60]!r}"
    return ""


def holds_json(text: str) -> bool:
    """Say if an object with a key begins somewhere in `text`."""
    return "{" in text and _JSON_OBJECT.search(text) is not None


def read_words(text: str, items: Items) -> None:
    """Add the boxes that stand in XML, HTML or words, by the first form that is there."""
    text = text.translate(_ASCII_MARKS)
    for pattern in _PATTERNS:
        end = 0
        for match in pattern.finditer(text):
            named = match.groupdict().get("label") or ""
            label = label_before(named or text[end : match.start()], items.categories)
            _add(match, items, named, label, x_first=pattern is _SIDES)
            end = match.end()
        if items.count:
            return
    whole = _ONLY_FOUR.fullmatch(text.strip()[:200])
    if whole:
        _add(whole, items, "", "")


def _add(match: re.Match[str], items: Items, named: str, label: str, *, x_first: bool = False) -> None:
    """Add the box in a match: its last four groups that are numbers, and not the one that is `named`.

    `x_first`: each number has the name of its side.
    """
    numbers = []
    for text in match.groups():
        if text is not None and text != named:
            number = read_number(text)
            if number is not None:
                numbers.append(number)
    items.fault(FaultKind.OTHER_SYNTAX, f"read as a box: {match[0][:80]}", items.count)
    items.add(numbers[-4:], label, x_first=x_first)
