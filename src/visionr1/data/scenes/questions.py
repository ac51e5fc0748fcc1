"""Questions about a scene with short answers: is there, how many, of what colour or shape, where, which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from visionr1.data.scenes.grammar import (
    ORDERS,
    Description,
    Order,
    absent_description,
    describe_things,
    draw_extreme,
    noun,
)
from visionr1.data.scenes.layout import Thing

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its kind and its answer."""

    kind: str
    text: str
    answer: str


Ask = Callable[[Rng, Sequence[Thing], Sequence[Description]], tuple[str, str] | None]
"""Draws a question of one kind and its answer; None if the scene has none."""


def draw_question(rng: Rng, things: Sequence[Thing]) -> Question:
    """Draw a question about things, at least one: of a kind drawn evenly, or of the next that the scene allows."""
    descriptions = describe_things(things)
    kinds = list(QUESTIONS)
    for number in rng.permutation(len(kinds)).tolist():
        kind = kinds[number]
        drawn = QUESTIONS[kind](rng, things, descriptions)
        if drawn:
            return Question(kind, *drawn)
    raise AssertionError("a question of presence can always be asked")


def _ask_presence(rng: Rng, things: Sequence[Thing], descriptions: Sequence[Description]) -> tuple[str, str]:
    """Ask whether something is there: yes as often as no."""
    if rng.random() < 0.5:
        return f"Is there any {absent_description(rng, things).text}?", "no"
    return f"Is there any {_draw(rng, descriptions).text}?", "yes"


def _ask_count(rng: Rng, things: Sequence[Thing], descriptions: Sequence[Description]) -> tuple[str, str]:
    """Ask for a number, one time in ten of what is not there."""
    description = _draw(rng, descriptions)
    if rng.random() < 0.1:
        description = absent_description(rng, things)
    return f"How many {description.plural} are there?", str(len(description.rows))


def _ask_color(rng: Rng, things: Sequence[Thing], descriptions: Sequence[Description]) -> tuple[str, str] | None:
    """Ask for the colour of the one thing that a description without a colour names."""
    colors = {thing.color for thing in things}
    without_color = [one for one in descriptions if one.text.split()[0] not in colors]
    chosen = _draw_one_thing(rng, things, without_color)
    if chosen is None:
        return None
    color = things[chosen.rows[0]].color
    return (f"What color is the {chosen.text}?", color) if color else None


def _ask_shape(rng: Rng, things: Sequence[Thing], descriptions: Sequence[Description]) -> tuple[str, str] | None:
    """Ask for the shape of the one thing that a description without a shape names."""
    chosen = _draw_one_thing(rng, things, [one for one in descriptions if one.text.endswith("object")])
    if chosen is None:
        return None
    shape = noun(things[chosen.rows[0]])
    return (f"What shape is the {chosen.text}?", shape) if shape != "object" else None


def _ask_relation(rng: Rng, things: Sequence[Thing], descriptions: Sequence[Description]) -> tuple[str, str] | None:
    """Ask whether one thing lies on a side of another, or is larger: yes as often as no."""
    drawn = _draw_comparison(rng, things, descriptions)
    if drawn is None:
        return None
    question = f"Is the {drawn.one} {drawn.order.relation} the {drawn.other}?"
    return question, "yes" if drawn.one_is_first else "no"


def _ask_which(rng: Rng, things: Sequence[Thing], descriptions: Sequence[Description]) -> tuple[str, str] | None:
    """Ask which of two things lies further to a side, or is larger."""
    drawn = _draw_comparison(rng, things, descriptions)
    if drawn is None:
        return None
    question = f"Which is {drawn.order.comparative}, the {drawn.one} or the {drawn.other}?"
    return question, drawn.one if drawn.one_is_first else drawn.other


def _ask_more(rng: Rng, things: Sequence[Thing], descriptions: Sequence[Description]) -> tuple[str, str] | None:
    """Ask whether there is more of one thing than of another."""
    named = [one for one in descriptions if one.text != "object"]
    if len(named) < 2:
        return None
    first, second = (named[number] for number in rng.permutation(len(named))[:2].tolist())
    if len(first.rows) == len(second.rows):
        return None
    answer = "yes" if len(first.rows) > len(second.rows) else "no"
    return f"Are there more {first.plural} than {second.plural}?", answer


QUESTIONS: dict[str, Ask] = {
    "presence": _ask_presence,
    "count": _ask_count,
    "color": _ask_color,
    "shape": _ask_shape,
    "relation": _ask_relation,
    "which": _ask_which,
    "more": _ask_more,
}
"""Each kind of question by its name."""


def _draw(rng: Rng, descriptions: Sequence[Description]) -> Description:
    return descriptions[int(rng.integers(len(descriptions)))]


def _draw_one_thing(rng: Rng, things: Sequence[Thing], descriptions: Sequence[Description]) -> Description | None:
    """Draw a description of exactly one thing, made so by an extreme where it names several; None if there is none."""
    numbers: list[int] = rng.permutation(len(descriptions)).tolist()
    for number in numbers:
        description = descriptions[number]
        if len(description.rows) == 1 and (len(things) == 1 or description.text != "object"):
            return description
        extreme = draw_extreme(rng, things, description)
        if extreme:
            return extreme
    return None


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Two things by their descriptions, and an order in which one of them clearly comes first."""

    one: str
    other: str
    order: Order
    one_is_first: bool


def _draw_comparison(rng: Rng, things: Sequence[Thing], descriptions: Sequence[Description]) -> _Comparison | None:
    """Draw two things and an order; None if there are no two, or if they differ too little to be seen."""
    pair = _draw_pair(rng, descriptions)
    if pair is None:
        return None
    order = ORDERS[int(rng.integers(len(ORDERS)))]
    first, second = (things[one.rows[0]] for one in pair)
    one_is_first = order.clearly_first(first, second)
    if not one_is_first and not order.clearly_first(second, first):
        return None
    return _Comparison(pair[0].text, pair[1].text, order, one_is_first)


def _draw_pair(rng: Rng, descriptions: Sequence[Description]) -> tuple[Description, Description] | None:
    """Draw two descriptions of one thing each, not of the same; None if there are none."""
    unique = [one for one in descriptions if len(one.rows) == 1]
    order: list[int] = rng.permutation(len(unique)).tolist()
    for number in order[1:]:
        first, second = unique[order[0]], unique[number]
        if second.rows != first.rows:
            return first, second
    return None
