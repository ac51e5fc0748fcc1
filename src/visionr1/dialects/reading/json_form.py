"""The form of one item of JSON in a dialect: the names of its keys, the order of its numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JsonForm:
    """How a dialect writes one item, `{"bbox_2d": [x1, y1, x2, y2], "label": "name"}` unless it says otherwise."""

    box_key: str = "bbox_2d"
    label_key: str = "label"
    """Empty where an item has its box alone, and is of the one category that was asked for."""
    y_first: bool = False
    """The numbers are y1, x1, y2, x2."""
    has_integers: bool = True
    """The numbers are integers; else any number is right."""

    @property
    def keys(self) -> frozenset[str]:
        """The keys that an item has, and no others."""
        return frozenset(filter(None, (self.box_key, self.label_key)))

    def describe_keys(self) -> str:
        """Say in words what an item holds."""
        return f"{self.box_key} and a non-empty label" if self.label_key else f"{self.box_key} alone"

    def fits_numbers(self, numbers: list[float]) -> bool:
        """Say if a box's numbers are written as the dialect writes them."""
        return not self.has_integers or all(type(number) is int for number in numbers)

    def to_xyxy(self, numbers: list[float]) -> list[float]:
        """Return four numbers in the dialect's order as x1, y1, x2, y2; those are turned back in the same way."""
        if not self.y_first:
            return numbers
        first, second, third, fourth = numbers
        return [second, first, fourth, third]


QWEN_FORM = JsonForm()
"""The form of Qwen2.5-VL and Qwen3-VL, in which dialects that are no JSON read it too."""
