"""The dialect of GLM-4.1V, 4.5V and 4.6V: a JSON list, integers 0 to 1000, marked as the answer by two tokens.

    <|begin_of_box|>[{"label": "name", "bbox_2d": [x1, y1, x2, y2]}, ...]<|end_of_box|>

The list may stand without the tokens, and in one ```json fence. Where one category was asked for, plain boxes are as
right, `[[x1, y1, x2, y2], ...]`, for so the models answer unless JSON is asked for. The empty reply is `[]`.
The form is its authors' (README of zai-org/GLM-V, "Grounding", and its skill glmv-grounding).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from visionr1.dialects.base import NORM1000_WH
from visionr1.dialects.json_dialect import JsonDialect
from visionr1.dialects.json_list import FENCE, FENCE_END
from visionr1.dialects.reading.brackets import BRACKETS
from visionr1.dialects.reading.items import Items, skip_thought
from visionr1.dialects.reading.labelled import label_before
from visionr1.samples import Boxes, Fault, FaultKind, Reply, Size, Task

_FORM = " Output a JSON list: [{'label': 'category', 'bbox_2d': [x1, y1, x2, y2]}, ...]"
_TEMPLATE = "Help me to locate {} in the image and give me its bounding boxes." + _FORM
TEMPLATES: dict[Task, str] = {"detection": _TEMPLATE, "grounding": _TEMPLATE, "referring": _TEMPLATE}
"""A prompt of the authors' README with the JSON of their skill glmv-grounding ("Objects Detection JSON")."""

BEGIN, END = "<|begin_of_box|>", "<|end_of_box|>"
_NUMBER = r"\s*+-?+[0-9]{1,9}\s*+"
_ONE_BOX = rf"\s*+\[{_NUMBER}(?:,{_NUMBER}){{3}}\]\s*+"
_PLAIN_BOXES = re.compile(rf"\s*+(?:\[{_ONE_BOX}(?:,{_ONE_BOX})*+\]|{_ONE_BOX})\s*+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Glm:
    """GLM-4.xV: JSON or plain boxes between two tokens."""

    name: str = "glm"
    in_model_px: bool = False
    templates: ClassVar[Mapping[Task, str]] = TEMPLATES
    tokens: ClassVar[tuple[str, ...]] = (BEGIN, END)
    _json: ClassVar[JsonDialect] = JsonDialect("glm", TEMPLATES, label_first=True)

    def grid_wh(self, *, size_wh: Size, input_size_wh: Size) -> tuple[float, float]:
        """See `Dialect.grid_wh`: 0 to 1000."""
        return NORM1000_WH

    def render(self, boxes: Boxes, *, size_wh: Size, input_size_wh: Size) -> str:
        """See `Dialect.render`; labels must not be blank (ValueError), nor hold one of the two tokens."""
        for index, label in enumerate(boxes.labels):
            if BEGIN in label or END in label:
                raise ValueError(f"box {index} is labelled {label!r}, but this dialect cannot write one with {BEGIN}")
        fenced = self._json.render(boxes, size_wh=size_wh, input_size_wh=input_size_wh)
        lines = fenced.removeprefix(FENCE).removesuffix(FENCE_END).split("\n")
        items = [line.strip().rstrip(",") for line in lines if line.lstrip().startswith("{")]
        return f"{BEGIN}[{', '.join(items)}]{END}"

    def parse(self, text: str, *, size_wh: Size, input_size_wh: Size, categories: Sequence[str] = ()) -> Reply:
        """See `Dialect.parse`. Only what stands between the tokens is read, if they are there."""
        sizes = {"size_wh": size_wh, "input_size_wh": input_size_wh}
        answer = skip_thought(text)
        before, *marked = answer.split(BEGIN)
        if not marked:
            reply = _read_plain([("", text)], size_wh, categories)
            return reply or self._json.parse(text, **sizes, categories=categories)

        # Each marked part with the text before it, which may name its label.
        parts: list[tuple[str, str]] = []
        num_open = 0
        for part in marked:
            body, closing, rest = part.partition(END)
            parts.append((before, body))
            before = rest
            num_open += not closing
        reply = _read_plain(parts, size_wh, categories)
        if reply is None:
            bodies = "\n".join(body for _, body in parts)
            reply = self._json.parse(bodies, **sizes, categories=categories)

        faults = list(reply.faults)
        is_alone = len(parts) == 1 and not parts[0][0].strip() and not before.strip() and answer == text
        if not is_alone:
            faults.append(Fault(FaultKind.SURROUNDING_TEXT, None, f"beside the marked answer: {text[:60]!r}"))
        if num_open and FaultKind.TRUNCATED not in [fault.kind for fault in faults]:
            faults.append(Fault(FaultKind.TRUNCATED, None, f"no {END} behind the answer"))
        return replace(reply, faults=tuple(faults))


def _read_plain(parts: Sequence[tuple[str, str]], size_wh: Size, categories: Sequence[str]) -> Reply | None:
    """Return the reply of parts, each with the text before it, that are plain boxes alone; None if one is not.

    They are of the one category that was asked for, else of that which the text before them names.
    """
    if not all(_PLAIN_BOXES.fullmatch(body) for _, body in parts):
        return None
    items = Items(tuple(categories))
    for before, body in parts:
        label = categories[0] if len(categories) == 1 else label_before(before, items.categories)
        for box in BRACKETS.findall(body):
            items.add([float(number) for number in box[1:-1].split(",")], label)
    return items.reply(NORM1000_WH, size_wh)


DIALECT = Glm()
