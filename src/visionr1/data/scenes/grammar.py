"""Words for the things of a scene: descriptions by shape, colour and texture, and expressions with places and sizes.

A description is what names things by what they are ("red star"); an expression adds how they lie or compare ("leftmost
red star", "star above the blue ring"). Each comes with the rows of the things that it is true of. An expression is only
made where it is clear: what is nearly as far left, or nearly as large, as another is never told apart from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visionr1.data.scenes.layout import Thing
from visionr1.data.scenes.vocabulary import CELL_KINDS, COLORS, HELD_OUT_SHAPE, NAMED_TEXTURES, SHAPES

Rng = np.random.Generator

CLEAR_PIXELS = 12.0
"""Two middles that are nearer than this along an axis are not ordered along it."""
CLEAR_RATIO = 1.4
"""Two areas of less than this ratio are not ordered by size."""


@dataclass(frozen=True, slots=True)
class Description:
    """A text in the singular, and the rows of the things that it is true of."""

    text: str
    rows: tuple[int, ...]

    @property
    def plural(self) -> str:
        """The text in the plural: every noun here takes an s, or es after another s."""
        return f"{self.text}es" if self.text.endswith("s") else f"{self.text}s"


@dataclass(frozen=True, slots=True)
class Order:
    """An order of things: by a coordinate of their middles, or by their size."""

    superlative: str
    """As in "leftmost star"."""
    relation: str
    """As in "star left of the ring"."""
    comparative: str
    """As in "Which is further left?"."""
    axis: int
    """0 for x, 1 for y, 2 for the area."""
    sign: int
    """1 where the least comes first, -1 where the greatest does."""

    def clearly_first(self, first: Thing, second: Thing) -> bool:
        """Return True if `first` comes before `second`, by a difference that can be seen."""
        if self.axis == 2:
            larger, smaller = (first, second) if self.sign < 0 else (second, first)
            return larger.area >= CLEAR_RATIO * smaller.area
        difference = second.center[self.axis] - first.center[self.axis]
        return self.sign * difference >= CLEAR_PIXELS


ORDERS = (
    Order("leftmost", "left of", "further left", 0, 1),
    Order("rightmost", "right of", "further right", 0, -1),
    Order("topmost", "above", "higher", 1, 1),
    Order("bottommost", "below", "lower", 1, -1),
    Order("smallest", "smaller than", "smaller", 2, 1),
    Order("largest", "larger than", "larger", 2, -1),
)


def describe_things(things: Sequence[Thing]) -> list[Description]:
    """Return every description of one or two words that is true of some of the things, in a fixed order."""
    rows_of_text: dict[str, list[int]] = {}
    for row, thing in enumerate(things):
        for text in _texts_of(thing):
            rows_of_text.setdefault(text, []).append(row)
    return [Description(text, tuple(rows)) for text, rows in sorted(rows_of_text.items())]


def noun(thing: Thing) -> str:
    """Return the name of a thing's shape, "object" for the one that training never shows."""
    return "object" if thing.shape == HELD_OUT_SHAPE else thing.shape


def _texts_of(thing: Thing) -> list[str]:
    """Return the descriptions of a thing, each once."""
    texts = {"object", noun(thing)}
    if thing.color:
        texts |= {f"{thing.color} {noun(thing)}", f"{thing.color} object"}
    if thing.texture in NAMED_TEXTURES:
        texts |= {f"{thing.texture} {noun(thing)}", f"{thing.texture} object"}
    return sorted(texts)


def absent_description(rng: Rng, things: Sequence[Thing]) -> Description:
    """Draw a description that is true of none of the things, yet of a kind that might be."""
    present = {description.text for description in describe_things(things)}
    cells = [kind.name for kind in CELL_KINDS]
    candidates = [name for name in (*SHAPES, *cells) if name not in present]

    # A colour and a shape that are both there, but not in one object, are the hard case.
    shapes = sorted({noun(thing) for thing in things if thing.color}) or list(SHAPES)
    colors = sorted({thing.color for thing in things if thing.color}) or list(COLORS)
    for color in colors:
        for shape in shapes:
            if f"{color} {shape}" not in present:
                candidates += [f"{color} {shape}"] * 2
    candidates += [f"{color} object" for color in COLORS if f"{color} object" not in present]
    return Description(candidates[int(rng.integers(len(candidates)))], ())


def draw_expression(rng: Rng, things: Sequence[Thing]) -> Description:
    """Draw an expression for some of the things: by what they are, by an extreme, or by their relation to another."""
    descriptions = describe_things(things)
    kind = rng.random()
    for number in rng.permutation(len(descriptions)).tolist():
        description = descriptions[number]
        expression = None
        if kind < 0.4:
            expression = draw_extreme(rng, things, description)
        elif kind < 0.8:
            expression = _draw_relation(rng, things, description, descriptions)
        elif description.text != "object":
            expression = description
        if expression:
            return expression
    return descriptions[int(rng.integers(len(descriptions)))]


def draw_extreme(rng: Rng, things: Sequence[Thing], description: Description) -> Description | None:
    """Draw an extreme of the things described, such as the leftmost; None if there are not two, or none is clear."""
    if len(description.rows) < 2:
        return None
    for number in rng.permutation(len(ORDERS)).tolist():
        order = ORDERS[number]
        for row in description.rows:
            others = [other for other in description.rows if other != row]
            if all(order.clearly_first(things[row], things[other]) for other in others):
                return Description(f"{order.superlative} {description.text}", (row,))
    return None


def _draw_relation(
    rng: Rng, things: Sequence[Thing], description: Description, anchors: Sequence[Description]
) -> Description | None:
    """Draw a relation of the things described to one that a description names alone; None if none is clear."""
    unique = [anchor for anchor in anchors if len(anchor.rows) == 1 and anchor.text != description.text]
    for number in rng.permutation(len(unique)).tolist()[:4]:
        anchor = unique[number]
        order = ORDERS[int(rng.integers(4))]
        (anchor_row,) = anchor.rows
        candidates = [row for row in description.rows if row != anchor_row]

        # Every candidate lies clearly on one side or on the other.
        related = [row for row in candidates if order.clearly_first(things[row], things[anchor_row])]
        opposite = [row for row in candidates if _is_clearly_after(order, things[row], things[anchor_row])]
        if related and len(related) + len(opposite) == len(candidates):
            text = f"{description.text} {order.relation} the {anchor.text}"
            return Description(text, tuple(related))
    return None


def _is_clearly_after(order: Order, first: Thing, second: Thing) -> bool:
    return order.clearly_first(second, first)
