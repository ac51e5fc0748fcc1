"""Find the items in JSON values: what is a box, with which label, and what is no prediction at all.

An item is an object with a box in the form of its dialect (`JsonForm`). Other forms that a person would take
for a box are read too, each with a fault that says how: other keys, several boxes of one label, a label as the key, a
list of four numbers alone. What holds no box is no prediction (an empty wrapper, a template that is repeated, a number
in braces), unless it stands in a list as an item does.
"""

from __future__ import annotations

import re
import reprlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from visionr1.dialects.base import MAX_BOXES
from visionr1.dialects.reading.box_forms import BoxValue, is_number, normalize_key, read_box, read_corners
from visionr1.dialects.reading.items import Items
from visionr1.dialects.reading.json_form import JsonForm
from visionr1.dialects.reading.loose_json import Object, Values, Word, is_json, read_number, read_values
from visionr1.samples import FaultKind, normalize_label, normalized_labels

BOX_KEYS = frozenset(
    (
        *(
            "bbox2d",
            "bbox",
            "box",
            "boundingbox",
            "bndbox",
            "box2d",
            "boundingbox2d",
            "boundingrect",
            "rect",
            "rectangle",
        ),
        *("position", "location", "region", "coordinates", "coordinate", "coords", "bboxcoordinates", "boxcoordinates"),
        *("xyxy", "bboxxyxy", "bboxes", "boxes", "boundingboxes", "positions", "bboxes2d"),
    )
)
"""Keys of a box, or of several of one label, without case and punctuation."""
LABEL_KEYS = (
    *("label", "name", "category", "objectname", "class", "classname", "categoryname", "labelname", "object"),
    *("classlabel", "categorylabel", "title", "type", "tag", "text", "entity", "description", "sublabel", "phrase"),
    *("labels", "caption", "ref", "objecttype", "objectclass", "item", "element"),
)
"""Keys of a label, the best first."""
_OPENING_QUOTES = "\"'“‘`«「『＂"
_CLOSING_QUOTES = "\"'”’`»」』＂"
_WRAPPERS = frozenset(
    (
        *("objects", "detections", "results", "items", "annotations", "predictions", "data", "answer", "result"),
        *("object", "output", "response", "finalanswer", "target", "targets", "image"),
    )
)
"""Keys of what wraps items: they are no labels."""
_NO_BOX_KEYS = frozenset(("color", "colour", "rgba", "rgb", "imagesize", "size", "padding", "margin"))
"""Keys whose value is no box, though it may be four numbers."""
_NONE = re.compile(r"(?:none|null|nil|nothing|n/?a|empty|not? .{0,60}|无|没有.{0,60})?[.。]?", re.IGNORECASE)
"""A label, or a text in place of an item, that says there is no object."""
_JSON_TEXT = re.compile(r"\s*+(?:```\w*+\s*+)?[\[{]")
_POINT_KEYS = frozenset(("point2d", "points2d", "point", "points"))
"""Keys of a point, which is no box."""
_XYXY_KEYS = frozenset(("xyxy", "bboxxyxy"))
"""Keys that say the order of the numbers."""
_UNKNOWN_ORDER = BoxValue([])
_ORDERS = {
    "box2d": "box_2d is Gemini's key, whose boxes begin with y: they are not read, for their order cannot be known; "
    "name dialect gemini if they begin with y, json:key=box_2d if with x",
    "bbox2d": "bbox_2d is Qwen's key, whose boxes begin with x: they are not read, for their order cannot be known; "
    "name dialect qwen3 if they begin with x, json:order=yxyx if with y",
}
"""Of the two keys whose families write another order: what to say where a dialect of the other order meets one."""


def add_json_items(values: Values, text: str, items: Items) -> None:
    """Add the items of a text's values, in order; those that were cut off are left out."""
    finder = _Finder(text, items)
    for value, in_list in values.whole:
        finder.read_value(value, in_list=in_list)

    # Of what was cut off, what is complete in it counts, but not the parts of an item.
    for container in values.unfinished:
        if not isinstance(container, Object):
            finder.read_list(container)
        elif _is_item(container, items.form):
            return
        else:
            finder.read_groups(container)


def add_item(item: Object, label: str, items: Items) -> None:
    """Add one object that is no JSON, if it has a box; `label` is its label if it has none of its own.

    Words under the key of a box are prose, and no prediction.
    """
    _, value = _find_boxes(item, items.form)
    if value is not None and (value.boxes or value is _UNKNOWN_ORDER):
        _Finder("", items).read_object(item, in_list=False, label=label)


@dataclass(frozen=True, slots=True)
class _Finder:
    """Add the items of JSON values to those of a reply; `label` is the key that a value stands under."""

    text: str
    items: Items
    is_nested: bool = False
    """The text stood in a text of another one."""

    def read_value(self, value: object, *, in_list: bool, label: str = "") -> None:
        """Read an object or a list; `in_list` if it stands in a list of items."""
        if isinstance(value, Object):
            for item in _split_repeated(value):
                self.read_object(item, in_list=in_list, label=label)
        elif isinstance(value, list):
            self.read_bare(value, label)

    def read_object(self, item: Object, *, in_list: bool, label: str) -> None:
        """Read an object: an item itself, or what it wraps."""
        items = self.items
        if items.count >= MAX_BOXES and _is_item(item, items.form):
            items.add(None, "")
            return

        keys = [key for key, _ in item.pairs]
        if len(set(keys)) < len(keys) and _is_item(item, items.form):
            repeated = Counter(keys).most_common(1)[0][0]
            self.add_malformed(FaultKind.WRONG_KEYS, f"{repeated!r:.60} stands twice; which is meant is not known")
            return

        key, value = _find_boxes(item, items.form)
        if value is None:
            self.read_wrapper(item, in_list=in_list)
        elif value.unread in (None, []) and not value.boxes and _names_nothing(item):
            return  # it says that there is no object
        elif value is _UNKNOWN_ORDER:
            self.add_malformed(FaultKind.NOT_FOUR_NUMBERS, _ORDERS[normalize_key(key)])
        elif not value.boxes and not value.is_template:
            detail = f"{items.form.box_key} is {reprlib.repr(value.unread)}"
            self.add_malformed(FaultKind.NOT_FOUR_NUMBERS, detail)
        else:
            self.add_boxes(item, key, value, label)

    def add_boxes(self, item: Object, key: str, value: BoxValue, outer_label: str) -> None:
        """Add the boxes of an item; none for a template that the model repeats."""
        label, faults = _read_label(item, key, outer_label, self.items)
        labels = _find_labels(item, len(value.boxes)) or [label] * len(value.boxes)
        beginning = repr(self.text[item.start : item.start + 80])
        if value.form:
            faults.append((FaultKind.OTHER_BOX_FORM, f"{value.form}: {beginning}"))
        if not is_json(self.text[item.start : item.end]):
            faults.append((FaultKind.OTHER_SYNTAX, f"no JSON, but read: {beginning}"))
        x_first = value.has_names or normalize_key(key) in _XYXY_KEYS
        for box, name in zip(value.boxes, labels, strict=True):
            self.add_box(box, name, faults, x_first=x_first)

    def add_box(
        self, box: list[float], label: str, faults: list[tuple[FaultKind, str]], *, x_first: bool = False
    ) -> None:
        """Add one box with its faults; `x_first` as in `Items.add`."""
        items = self.items
        for kind, detail in faults:
            items.fault(kind, detail, items.count)
        if not items.form.fits_numbers(box):
            items.fault(FaultKind.WRONG_NUMBER_FORM, f"expected integers, found {box}", items.count)
        items.add(box, label, x_first=x_first)

    def add_malformed(self, kind: FaultKind, detail: str) -> None:
        """Add an item without a usable box."""
        self.items.fault(kind, detail, self.items.count)
        self.items.add(None, "")

    def read_wrapper(self, item: Object, *, in_list: bool) -> None:
        """Read what an object without a box wraps; in a list of items it is one without a box, unless it is empty."""
        count = self.items.count
        self.read_groups(item)
        is_empty = any(element == [] for _, element in item.pairs)
        if self.items.count == count and in_list and item.pairs and not is_empty:
            points = [key for key, _ in item.pairs if normalize_key(key) in _POINT_KEYS]
            detail = f"{self.items.form.box_key} is None"
            if points:
                detail = f"{points[0]!r:.60} is a point, and no box"
            self.add_malformed(FaultKind.NOT_FOUR_NUMBERS, detail)

    def read_groups(self, item: Object) -> None:
        """Read the values of an object, whose keys may be their labels."""
        for key, value in item.pairs:
            if isinstance(value, Object) or (isinstance(value, list) and normalize_key(key) not in _NO_BOX_KEYS):
                label = key
                if normalize_key(key) in BOX_KEYS | _WRAPPERS:
                    label = ""
                self.read_value(value, in_list=False, label=label)
            elif isinstance(value, str):
                self.read_text(value)

    def read_text(self, text: str) -> bool:
        """Read a list or an object that was written into a text; say if it has an item."""
        count = self.items.count
        if not self.is_nested and _JSON_TEXT.match(text):
            self.items.fault(FaultKind.OTHER_SYNTAX, f"JSON in a text, but read: {text[:60]!r}")
            nested = _Finder(text, self.items, is_nested=True)
            for value, in_list in read_values(text).whole:
                nested.read_value(value, in_list=in_list)
        return self.items.count > count

    def read_bare(self, values: list[object], label: str) -> None:
        """Read a list: a box itself, perhaps with its label among the numbers, or a list of items."""
        names = []
        numbers = []
        for value in values:
            if isinstance(value, str) and not isinstance(value, Word) and read_number(value.strip()) is None:
                names.append(value)
            elif is_number(value):
                numbers.append(value)

        # A box may have its label beside the numbers, or be written in one of the other forms.
        box: BoxValue | None = None
        boxes = [value for value in values if isinstance(value, list)]
        if len(names) == 1 and len(values) == 2 and boxes:
            label = names[0]
            box = read_box(boxes[0])
        elif len(names) == 1 and len(values) == 5:
            label = names[0]
            box = read_box(numbers)
        elif not names and len(values) in (2, 4, 5, 8):
            box = read_box(values)
        if box is None or len(box.boxes) != 1:
            self.read_list(values, label)
        else:
            detail = f"a list where an object is expected: {values}"
            self.add_box(box.boxes[0], label, [(FaultKind.WRONG_KEYS, detail[:120])])

    def read_list(self, values: list[object], label: str = "") -> None:
        """Read a list of items. Texts in place of objects are malformed items; beside objects they are none."""
        holds_items = any(isinstance(value, Object | list) for value in values)
        others = []
        for value in values:
            if isinstance(value, Object | list):
                self.read_value(value, in_list=True, label=label)
                continue

            # An item may be written into a text, or a stray quote may have swallowed one.
            is_text = isinstance(value, str) and not isinstance(value, Word)
            if is_text and self.read_text(str(value)):
                continue
            names_box = not holds_items or self.items.form.box_key in str(value)
            if is_text and names_box and not _NONE.fullmatch(str(value)):
                self.add_malformed(FaultKind.WRONG_KEYS, f"expected an object, found {reprlib.repr(value)}")
            else:
                others.append(value)
        if others and not self.items.has_fault(FaultKind.WRONG_KEYS):
            self.items.fault(FaultKind.WRONG_KEYS, f"expected objects alone, found {reprlib.repr(others[0])}")


def _find_boxes(item: Object, form: JsonForm) -> tuple[str, BoxValue | None]:
    """Return the key of an item's box and what it holds; None if the object has no box."""
    best = ""
    for key, value in item.pairs:
        if key == form.box_key or (_is_box_key(key, value, form) and not best):
            best = key
    values = dict(item.pairs)
    if best and _has_unknown_order(best, form):
        return best, _UNKNOWN_ORDER
    if best:
        return best, read_box(values[best])

    # A value whose key was lost, then corners as keys of the item.
    lost = values.get("")
    if isinstance(lost, list) and not any(isinstance(element, Object) for element in lost):
        return "", read_box(lost)
    corners = read_corners(item)
    if corners is not None:
        return "", BoxValue([corners], "corners as keys", has_names=True)

    # The only four numbers beside a label, under whatever key.
    boxes = [pair for pair in item.pairs if _is_other_box(*pair)]
    if len(boxes) == 1 and _find_label(item, form)[1]:
        return boxes[0][0], read_box(boxes[0][1])
    return "", None


def _has_unknown_order(key: str, form: JsonForm) -> bool:
    """Say if `key` is not the dialect's, but that of a family which writes the other order of numbers."""
    name = normalize_key(key)
    if name == normalize_key(form.box_key):
        return False
    return name == ("bbox2d" if form.y_first else "box2d")


def _is_other_box(key: str, value: object) -> bool:
    """Say if a value is four numbers, under a key that may be that of a box."""
    is_box = isinstance(value, list) and len(value) == 4 and all(map(is_number, value))
    return is_box and normalize_key(key) not in _NO_BOX_KEYS


def _names_nothing(item: Object) -> bool:
    """Say if an item's label says that there is no object."""
    labels = [value for key, value in item.pairs if normalize_key(key) in LABEL_KEYS]
    for label in labels:
        if label is not None and not (isinstance(label, str) and _NONE.fullmatch(label)):
            return False
    return bool(labels)


def _is_box_key(key: str, value: object, form: JsonForm) -> bool:
    """Say if `key` is that of a box, and not of a list of items."""
    if key != form.box_key and normalize_key(key) not in BOX_KEYS:
        return False
    if isinstance(value, Object):
        return read_corners(value) is not None
    if not isinstance(value, list):
        return True
    return not any(isinstance(element, Object) for element in value) and (bool(value) or not key.endswith("s"))


def _is_item(item: Object, form: JsonForm) -> bool:
    """Say if an object is an item, perhaps one that is still being read."""
    if item.key is not None and (item.key == form.box_key or normalize_key(item.key) in BOX_KEYS):
        return not item.key.lower().endswith("s")
    for key, value in item.pairs:
        if _is_box_key(key, value, form) or key == form.label_key or normalize_key(key) in LABEL_KEYS:
            return True
    return False


def _split_repeated(item: Object) -> list[Object]:
    """Return the items in an object whose keys come again in the same order: items that lost the braces between."""
    keys = [key for key, _ in item.pairs]
    length = len(set(keys))
    num_items, rest = divmod(len(keys), length or 1)
    if num_items < 2 or rest or length < 2 or keys != keys[:length] * num_items:
        return [item]
    starts = range(0, len(keys), length)
    return [Object(item.start, item.pairs[start : start + length], item.start) for start in starts]


def _read_label(item: Object, box_key: str, outer_label: str, items: Items) -> tuple[str, list[tuple[FaultKind, str]]]:
    """Return an item's label, empty if it has none, and what is wrong with its keys."""
    form = items.form
    keys = [key for key, _ in item.pairs]
    label_key, label = _find_label(item, form)
    if not label:
        label_key, label = _find_category(item, items.categories)
    faults: list[tuple[FaultKind, str]] = []
    if not label and outer_label:
        label = outer_label
        label_key = outer_label

    other_keys = []
    for key, wanted in ((box_key, form.box_key), (label_key, form.label_key)):
        if key and wanted and key != wanted:
            other_keys.append(key)
    if other_keys:
        expected = " and ".join(filter(None, (form.box_key, form.label_key)))
        faults.append((FaultKind.OTHER_KEY, f"expected {expected}, read {', '.join(other_keys):.60}"))
    has_label = not form.label_key or isinstance(dict(item.pairs).get(label_key), str)
    if len(keys) != len(form.keys) or box_key not in keys or not has_label:
        detail = f"expected exactly {form.describe_keys()}, found keys {sorted(keys)[:6]}"
        faults.append((FaultKind.WRONG_KEYS, detail))
    return label, faults


def _find_label(item: Object, form: JsonForm) -> tuple[str, str]:
    """Return the key of an item's label and the label, both empty if there is none."""
    labels: dict[str, tuple[str, str]] = {}
    for key, value in item.pairs:
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, Object) and normalize_key(key) in LABEL_KEYS and len(value.pairs) == 1:
            value = value.pairs[0][1]
        if isinstance(value, str) and value.strip():
            name = key if key == form.label_key else normalize_key(key)
            labels.setdefault(name, (key, _strip_quotes(value)))
    for name in (form.label_key, *LABEL_KEYS):
        if name and name in labels:
            return labels[name]
    return "", ""


def _find_category(item: Object, categories: Sequence[str]) -> tuple[str, str]:
    """Return the key, whatever it is, whose text is a category that was asked for, and the text; else both empty."""
    known = normalized_labels(tuple(categories))
    for key, value in item.pairs:
        if isinstance(value, str) and normalize_label(_strip_quotes(value)) in known:
            return key, _strip_quotes(value)
    return "", ""


def _find_labels(item: Object, num_boxes: int) -> list[str]:
    """Return the labels of an item that lists as many as boxes, `{"boxes": [..], "labels": [..]}`; else none."""
    for key, value in item.pairs:
        if normalize_key(key) in LABEL_KEYS and isinstance(value, list) and len(value) == num_boxes > 1:
            labels = [name for name in value if isinstance(name, str)]
            return labels if len(labels) == num_boxes else []
    return []


def _strip_quotes(label: str) -> str:
    """Return a label without quotes around it, or the end of such."""
    if len(label) > 2 and label[0] in _OPENING_QUOTES and label[-1] in _CLOSING_QUOTES:
        return label[1:-1]
    stripped = label.rstrip()
    if len(stripped) > 1 and stripped[-1] in _CLOSING_QUOTES and not any(map(stripped[:-1].count, _CLOSING_QUOTES)):
        digit_before = stripped[-2].isdigit()  # 15" is a length
        return stripped if digit_before or stripped[-2] == "s" else stripped[:-1]
    return str(label)
