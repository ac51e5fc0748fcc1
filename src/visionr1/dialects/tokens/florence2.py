"""The dialect of Florence-2: the label, then four location tokens for each of its boxes.

    cat<loc_50><loc_100><loc_250><loc_350>dog<loc_280><loc_250><loc_480><loc_500><loc_740><loc_550><loc_940><loc_800>

The tokens are x1 y1 x2 y2 as bins 0 to 999 of the image, and stand for the middle of their bin, as its authors' code
reads them (transformers, processing_florence2.py). Nothing stands between items. A label holds no `<` and no line
break. The empty reply is `None`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from visionr1.boxes import rescale_xyxy
from visionr1.dialects.base import NORM1000_WH, round_to_grid
from visionr1.dialects.reading.brackets import EMPTY, check_labels
from visionr1.dialects.reading.fallback import read_other
from visionr1.dialects.reading.items import Items, skip_thought
from visionr1.samples import Boxes, FaultKind, Reply, Size, Task, compose_text

TEMPLATES: dict[Task, str] = {
    "detection": "Locate the phrases in the caption: {}",
    "grounding": "Locate {} in the image.",
    "referring": "Locate {} in the image.",
}
"""The words that its processor writes for <CAPTION_TO_PHRASE_GROUNDING>, the task that finds several phrases, and for
<OPEN_VOCABULARY_DETECTION> (transformers, processing_florence2.py)."""

_TOKEN = r"<loc_([0-9]{1,9})>"
_BOX = re.compile(r"\s*+".join([_TOKEN] * 4), re.ASCII)
_RUN = re.compile(r"(?:<loc_[0-9]{1,9}>\s*+)++", re.ASCII)
"""The location tokens behind a label."""
_OPEN_TOKEN = re.compile(r"(?:<l?o?c?_?[0-9]{0,9})?")
_CUT_OFF = re.compile(r"<l?o?c?_?[0-9]{0,9}\Z")
"""The beginning of a token, at the end of a reply."""
_MARKS = re.compile(r"</?s>|<pad>")
"""Tokens of its tokenizer that its own processor removes."""


@dataclass(frozen=True, slots=True)
class Florence2:
    """Florence-2: location tokens behind the label."""

    name: str = "florence2"
    in_model_px: bool = False
    templates: ClassVar[Mapping[Task, str]] = TEMPLATES

    @property
    def tokens(self) -> tuple[str, ...]:
        """See `HasTokens`."""
        return tuple(f"<loc_{number}>" for number in range(1000))

    def grid_wh(self, *, size_wh: Size, input_size_wh: Size) -> tuple[float, float]:
        """See `Dialect.grid_wh`: 1000 bins."""
        return NORM1000_WH

    def render(self, boxes: Boxes, *, size_wh: Size, input_size_wh: Size) -> str:
        """See `Dialect.render`: neighbours of one label share it.

        ValueError for a label that is blank or holds a `<` or a line break.
        """
        check_labels(boxes.labels, ("<",))

        # The middle of bin k is k + 0.5; a box that ends in the last bin begins before it.
        bins = round_to_grid(rescale_xyxy(boxes.xyxy, size_wh, NORM1000_WH) - 0.5)
        bins = np.clip(bins, [0, 0, 1, 1], [998, 998, 999, 999]).astype(int)
        parts: list[str] = []
        label_before = None
        for box, label in zip(bins.tolist(), boxes.labels, strict=True):
            if label != label_before:
                parts.append(compose_text(label))
            parts += [f"<loc_{number}>" for number in box]
            label_before = label
        return "".join(parts) or EMPTY

    def parse(self, text: str, *, size_wh: Size, input_size_wh: Size, categories: Sequence[str] = ()) -> Reply:
        """See `Dialect.parse`."""
        answer = _MARKS.sub("", skip_thought(text)).strip()
        items = Items(tuple(categories))
        end = 0
        for run in _RUN.finditer(answer):
            prose, mark, label = answer[end : run.start()].rpartition(">")
            if mark:
                items.fault(FaultKind.SURROUNDING_TEXT, f"before a label: {prose[:60]!r}")
            end = run.end()
            is_last = _OPEN_TOKEN.fullmatch(answer, end) is not None
            _read_run(run[0], label.strip(), items, is_last=is_last)
        if not end:
            read_other(answer, items, reads_norm1000=False, own=self.name)

        # Behind the last box there should be nothing but what was cut off.
        rest = answer[end:].strip() if end else ""
        if rest:
            kind = FaultKind.TRUNCATED if _CUT_OFF.search(rest) else FaultKind.SURROUNDING_TEXT
            items.fault(kind, f"after the last box: {rest[:60]!r}")
        if skip_thought(text) != text:
            items.fault(FaultKind.SURROUNDING_TEXT, f"a thought before the answer: {text[:60]!r}")
        return items.reply(NORM1000_WH, size_wh)


def _read_run(tokens: str, label: str, items: Items, *, is_last: bool) -> None:
    """Add the boxes of one label; tokens that are left over are one that was cut off, or an item without a box."""
    end = 0
    for box in _BOX.finditer(tokens):
        items.add([int(number) + 0.5 for number in box.groups()], label)
        end = box.end()
    rest = tokens[end:].strip()
    if rest and is_last:
        items.fault(FaultKind.TRUNCATED, f"the last box does not end: {rest[:60]!r}")
    elif rest:
        items.fault(FaultKind.NOT_FOUR_NUMBERS, f"expected four tokens, found {rest[:60]!r}", items.count)
        items.add(None, label)


DIALECT = Florence2()
