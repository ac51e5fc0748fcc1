"""The dialect of PaliGemma and PaliGemma 2: four location tokens, y first, then the label.

    <loc0102><loc0051><loc0358><loc0256> cat ; <loc0256><loc0287><loc0512><loc0492> dog

The tokens are y1 x1 y2 x2, from 0 to 1023, and 1023 is the lower or right edge, as its authors write them (big_vision,
pp/proj/paligemma: `round(bbox * 1023)`). A label stands behind its box, so that its end may be missing unseen. It holds
no semicolon, no `<` and no line break. The empty reply is `None`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from visionr1.boxes import rescale_xyxy
from visionr1.dialects.base import round_to_grid
from visionr1.dialects.reading.brackets import EMPTY, check_labels
from visionr1.dialects.reading.fallback import read_other
from visionr1.dialects.reading.items import Items, skip_thought
from visionr1.dialects.reading.json_form import JsonForm
from visionr1.samples import (
    Boxes,
    FaultKind,
    Reply,
    Size,
    Task,
    compose_text,
    normalize_label,
    normalized_labels,
)

TEMPLATES: dict[Task, str] = {"detection": "detect {}", "grounding": "detect {}", "referring": "detect {}"}
"""Google's page on PaliGemma's prompts, word for word: "detect {object} ; {object}"."""

SPAN_WH = (1023.0, 1023.0)
_Y_FIRST = JsonForm(y_first=True)
_LOCATION = r"<loc([0-9]{4})>"
_ITEM = re.compile(r"\s*+".join([_LOCATION] * 4) + r"((?:\s*+<seg[0-9]{3}>)*+)([^<;]*+)(;?+)\s*+", re.ASCII)
"""A box, the tokens of its mask, its label and the mark behind it."""


@dataclass(frozen=True, slots=True)
class PaliGemma:
    """PaliGemma: location tokens, y first."""

    name: str = "paligemma"
    in_model_px: bool = False
    category_joiner: str = " ; "
    templates: ClassVar[Mapping[Task, str]] = TEMPLATES

    @property
    def tokens(self) -> tuple[str, ...]:
        """See `HasTokens`."""
        return tuple(f"<loc{number:04d}>" for number in range(1024))

    def grid_wh(self, *, size_wh: Size, input_size_wh: Size) -> tuple[float, float]:
        """See `Dialect.grid_wh`: 0 to 1023."""
        return SPAN_WH

    def render(self, boxes: Boxes, *, size_wh: Size, input_size_wh: Size) -> str:
        """See `Dialect.render`; ValueError for a label that is blank or holds a semicolon, a `<` or a line break."""
        check_labels(boxes.labels, (";", "<"))
        numbers = round_to_grid(rescale_xyxy(boxes.xyxy, size_wh, SPAN_WH)).astype(int)
        items = []
        for (x1, y1, x2, y2), label in zip(numbers.tolist(), boxes.labels, strict=True):
            items.append(f"<loc{y1:04d}><loc{x1:04d}><loc{y2:04d}><loc{x2:04d}> {compose_text(label)}")
        return " ; ".join(items) or EMPTY

    def parse(self, text: str, *, size_wh: Size, input_size_wh: Size, categories: Sequence[str] = ()) -> Reply:
        """See `Dialect.parse`. A box is complete without its label, which stands behind it and may be cut off."""
        answer = skip_thought(text).strip()
        items = Items(tuple(categories), _Y_FIRST)
        end = 0
        mark = ";"
        for match in _ITEM.finditer(answer):
            between = answer[end : match.start()].strip()
            if between or mark != ";":
                items.fault(FaultKind.SURROUNDING_TEXT, f"expected ; before a box, found {answer[end:][:60]!r}")
            *numbers, masks, label, mark = match.groups()
            end = match.end()
            if end == len(answer) and _is_cut_off(label, mark, items.categories):
                items.fault(FaultKind.TRUNCATED, f"the last label does not end: {match[0][:80]!r}")
            if masks:
                items.fault(FaultKind.OTHER_SYNTAX, "a mask beside a box", items.count)
            items.add([float(number) for number in numbers], label.strip())
        if not end:
            read_other(answer, items, reads_norm1000=False, own=self.name, reads_numbers=False)
        elif mark == ";" and end == len(answer):
            items.fault(FaultKind.TRUNCATED, f"no box behind the last {mark}")
        _check_rest(answer[end:] if end else "", items)
        if answer != text.strip():
            items.fault(FaultKind.SURROUNDING_TEXT, f"a thought before the answer: {text[:60]!r}")
        return items.reply(SPAN_WH, size_wh)


def _is_cut_off(label: str, mark: str, categories: tuple[str, ...]) -> bool:
    """Say if the last label of a reply is missing, or the beginning of a longer one that was asked for."""
    name = normalize_label(label)
    if mark:
        return False
    if not name:
        return len(categories) != 1
    known = normalized_labels(categories)
    return name not in known and any(category.startswith(name) for category in known)


def _check_rest(rest: str, items: Items) -> None:
    """Note what stands behind the last box: the beginning of a token, or other text."""
    if rest.strip():
        kind = FaultKind.TRUNCATED if "<loc".startswith(rest[:4]) or "<loc" in rest else FaultKind.SURROUNDING_TEXT
        items.fault(kind, f"after the last box: {rest.strip()[:60]!r}")


DIALECT = PaliGemma()
