"""Read items whose keys and values stand in lines, attributes or elements, for replies that hold no JSON.

- label: cat
  bbox_2d: [10, 20, 110, 220]

<object label="cat" bbox="10, 20, 110, 220"/>
"""

from __future__ import annotations

import re

from visionr1.dialects.reading.box_forms import CORNER_KEYS, normalize_key
from visionr1.dialects.reading.items import Items
from visionr1.dialects.reading.json_items import BOX_KEYS, LABEL_KEYS, add_item
from visionr1.dialects.reading.labelled import label_before
from visionr1.dialects.reading.loose_json import Object

_KEY = re.compile(
    r"(?<!\w)(?P<key>(?:(?:bounding|object|category|class)[ ])?+[^\W\d]\w{0,30}+)[\"'*`]{0,3}+[ \t]{0,3}+[:=：]"
    r"|<(?P<tag>\w{1,30}+)>(?=[^<>]{1,100}+</)"
)
_VALUE = re.compile(
    r"[ \t\"'*`]{0,4}+"
    r"(?P<value>[\[(]{1,2}[\d.,\s]{3,60}[\])](?:,?\s?[\[(][\d.,\s]{3,40}[\])])?"  # a list, or two points
    r"|(?:\n[ \t]{0,12}+-[ \t]{1,4}+\d{1,10}+){4}"  # a list of YAML
    r"|-?\d[\d., ]{0,60}"
    r"|[^\n,;|\"<>\[\]]{1,200}+)"
)


def read_key_lines(text: str, items: Items) -> None:
    """Add the items of keys and values in `text`; one ends where a key comes again."""
    item = Object(0)
    before = ""
    end = position = 0
    while key := _KEY.search(text, position):
        position = key.end()
        name = normalize_key(key["key"] or key["tag"])
        value = _VALUE.match(text, position)
        if value is None or not (name in BOX_KEYS or name in LABEL_KEYS or name in CORNER_KEYS):
            continue

        # The text before the first key of an item may be its label.
        if any(normalize_key(other) == name for other, _ in item.pairs):
            _add(item, before, items)
            item = Object(0)
        if not item.pairs:
            before = text[end : key.start()]
        item.pairs.append((name, value["value"].strip(" ,*`'")))
        end = position = value.end()
    _add(item, before, items)


def _add(item: Object, before: str, items: Items) -> None:
    """Add an item if it has a box; without a label of its own that of the text before it."""
    if any(name not in LABEL_KEYS for name, _ in item.pairs):
        label = ""
        if not any(name in LABEL_KEYS for name, _ in item.pairs):
            label = label_before(before, items.categories)
        add_item(item, label, items)
