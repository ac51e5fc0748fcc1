"""The items of a reply as they are read, one after the other: boxes, labels and faults, whatever the syntax."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from visionr1.dialects.base import MAX_BOXES, read_reply
from visionr1.dialects.reading.json_form import QWEN_FORM, JsonForm
from visionr1.samples import Fault, FaultKind, Reply, Size

_NAMES = "think|thinking|thought|reasoning|seed:think"
_THOUGHT = re.compile(
    rf"\s*+(?:<\s?(?:{_NAMES})\s?>|◁think▷|<\|begin_of_thought\|>|<\|channel\|>analysis)", re.IGNORECASE
)
_THOUGHT_END = re.compile(
    rf"</\s?(?:{_NAMES})\s?>|◁/think▷|<\|end_of_thought\|>|<\|channel\|>final<\|message\|>", re.IGNORECASE
)
"""Tags of thoughts: those of DeepSeek-R1 and Qwen, of prompts that name others, of Kimi-VL, Sky-T1 and gpt-oss."""


@dataclass(slots=True)
class Items:
    """The items of a reply with their faults.

    `categories` are those asked for: a box without a label is of the one category, if only one was asked for.
    `form` is how the dialect writes items of JSON, and the order of a box's numbers in any syntax.
    """

    categories: tuple[str, ...]
    form: JsonForm = QWEN_FORM
    faults: list[Fault] = field(default_factory=list)
    numbers: list[list[float]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    count: int = 0
    known_faults: set[tuple[FaultKind, int | None]] = field(default_factory=set)

    def fault(self, kind: FaultKind, detail: str, item: int | None = None) -> None:
        """Note what is wrong with the text or with one item, once for each kind of fault."""
        if (kind, item) not in self.known_faults and (item or 0) <= MAX_BOXES:
            self.known_faults.add((kind, item))
            self.faults.append(Fault(kind, item, detail))

    def has_fault(self, kind: FaultKind) -> bool:
        """Say if a fault of this kind is noted of the next item."""
        return (kind, self.count) in self.known_faults

    def add(self, numbers: list[float] | None, label: str, *, x_first: bool = False) -> None:
        """Add one complete item: its box in the dialect's coordinates, None for an item without a usable one.

        `x_first`: the numbers say themselves that x comes first, whatever the dialect's order.
        """
        position = self.count
        self.count += 1
        if position >= MAX_BOXES or numbers is None:
            return  # it counts as a prediction that matches nothing

        if not label.strip():
            label = self._label_for_none(position)
        self.numbers.append(numbers if x_first else self.form.to_xyxy(numbers))
        self.labels.append(label)
        self.positions.append(position)

    def reply(self, grid_wh: tuple[float, float], size_wh: Size) -> Reply:
        """Return what was read, in original pixels."""
        if self.count > MAX_BOXES:
            detail = f"{self.count} items; {MAX_BOXES} are read"
            self.fault(FaultKind.TOO_MANY_BOXES, detail, MAX_BOXES)
        return read_reply(
            self.numbers,
            self.labels,
            self.positions,
            num_malformed=self.count - len(self.numbers),
            faults=self.faults,
            grid_wh=grid_wh,
            size_wh=size_wh,
            categories=self.categories,
        )

    def _label_for_none(self, position: int) -> str:
        """Return the label of a box that has none: the one category that was asked for, else nothing."""
        if len(self.categories) == 1 and not self.form.label_key:
            return self.categories[0]
        if len(self.categories) == 1:
            detail = f"a box without a label, read as {self.categories[0]!r}, all that was asked for"
            self.fault(FaultKind.ASSUMED_LABEL, detail, position)
            return self.categories[0]
        self.fault(FaultKind.WRONG_KEYS, "a box without a label", position)
        return ""


def skip_thought(text: str) -> str:
    """Return what stands behind the last thought in `text`, `<think>..</think>`; nothing if the thought never ends.

    The opening tag may be missing, because some chat templates write it into the prompt.
    """
    end = None
    for closing in _THOUGHT_END.finditer(text):
        end = closing.end()
    if end is not None:
        return text[end:]
    if _THOUGHT.match(text):
        return ""
    return text


def is_open_thought(text: str) -> bool:
    """Say if `text` begins with a thought that never ends."""
    return _THOUGHT.match(text) is not None and _THOUGHT_END.search(text) is None
