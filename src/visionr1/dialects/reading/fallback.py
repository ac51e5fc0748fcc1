"""Read replies that hold no item of a dialect that is no JSON: the empty one, another syntax, or no box at all."""

from __future__ import annotations

import re

from visionr1.dialects.reading.brackets import EMPTY
from visionr1.dialects.reading.items import Items
from visionr1.dialects.reading.json_items import add_json_items
from visionr1.dialects.reading.key_lines import read_key_lines
from visionr1.dialects.reading.loose_json import read_values, unescape_whole
from visionr1.dialects.reading.other_forms import holds_json, name_other_form, read_words
from visionr1.samples import FaultKind

_OPEN_TAG = re.compile(
    r"<[^<>\s]{0,30}\Z|<(?:loc_?|patch_index_)?[0-9]{1,9}>\Z|<[a-z|_]{3,20}>[^<>\n]{0,200}\Z", re.ASCII
)
"""A text that ends in a tag or a coordinate, or behind an opening tag: in a dialect of tags it was cut off."""


def read_other(text: str, items: Items, *, reads_norm1000: bool, own: str = "", reads_numbers: bool = True) -> None:
    """Read a reply without an item of the dialect: the empty one, one in another syntax, or one that has no box.

    `reads_norm1000` and `own` are as in `name_other_form`. Without `reads_numbers` no other syntax is read: plain
    numbers are not in the dialect's space.
    """
    stripped = text.strip()
    if stripped == EMPTY:
        return
    other_form = name_other_form(text, reads_norm1000=reads_norm1000, own=own)
    if other_form:
        items.fault(FaultKind.UNREADABLE, other_form)
        return

    # JSON in the dialect's own space, then keys in lines and words.
    if reads_numbers and holds_json(text):
        answer = unescape_whole(text)
        add_json_items(read_values(answer), answer, items)
    if reads_numbers and items.count == 0:
        read_key_lines(text, items)
    if reads_numbers and items.count == 0:
        read_words(text, items)
    if items.count:
        items.fault(FaultKind.OTHER_SYNTAX, f"not the dialect's form, but read: {text[:60]!r}")
        return

    # A box without its end, or the beginning of the empty reply, was cut off.
    _, bracket, rest = text.rpartition("[")
    ends_in_box = bool(bracket) and not rest.strip(" \t\r\n0123456789.,-")
    ends_in_box = ends_in_box or (bool(own) and _OPEN_TAG.search(stripped) is not None)
    is_cut_off = ends_in_box or (bool(stripped) and EMPTY.startswith(stripped))
    kind = FaultKind.TRUNCATED if is_cut_off else FaultKind.UNREADABLE
    items.fault(kind, f"no box and not {EMPTY!r}: {text[:60]!r}")
