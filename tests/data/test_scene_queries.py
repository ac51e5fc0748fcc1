"""What scenes are asked besides categories: every expression and answer, checked by a second reading of the words."""

from collections import Counter

import numpy as np
import pytest

from visionr1.data.scenes import SceneConfig, SceneStream
from visionr1.data.scenes.grammar import absent_description, describe_things, draw_expression
from visionr1.data.scenes.layout import Thing
from visionr1.data.scenes.questions import QUESTIONS, Question, draw_question
from visionr1.data.scenes.vocabulary import COLORS, HELD_OUT_PAIRS, HELD_OUT_SHAPE, SHAPES, TEXTURES
from visionr1.errors import RecipeError
from visionr1.samples import Boxes, Sample

ALL_QUERIES = {"detection": 1, "grounding": 1, "referring": 1, "question": 1}


def random_things(seed: int) -> list[Thing]:
    """One to twelve things, of few kinds, so that descriptions are often shared."""
    rng = np.random.default_rng(seed)
    shapes = rng.choice(SHAPES, 3)
    colors = rng.choice(list(COLORS), 3)
    things = []
    for _ in range(int(rng.integers(1, 13))):
        x, y, width, height = rng.integers((0, 0, 8, 8), (240, 160, 80, 80)).tolist()
        texture = str(rng.choice(TEXTURES))
        things.append(Thing((x, y, x + width, y + height), str(rng.choice(shapes)), str(rng.choice(colors)), texture))
    return things


def meant(text: str, things: list[Thing]) -> list[Thing]:
    """The things that a description or an expression is true of, by what its words say."""
    for relation, is_so in RELATIONS.items():
        head, found, anchor_text = text.partition(f" {relation} the ")
        if found:
            (anchor,) = meant(anchor_text, things)
            return [thing for thing in meant(head, things) if thing is not anchor and is_so(thing, anchor)]

    word, _, rest = text.partition(" ")
    if word in EXTREMES:
        candidates = meant(rest, things)
        values = [EXTREMES[word](thing) for thing in candidates]
        assert values.count(min(values)) == 1
        return [candidates[values.index(min(values))]]
    return [thing for thing in things if has_words(thing, text.split())]


def has_words(thing: Thing, words: list[str]) -> bool:
    return all(word in ("object", thing.shape, thing.color, thing.texture) for word in words)


EXTREMES = {
    "leftmost": lambda thing: thing.center[0],
    "rightmost": lambda thing: -thing.center[0],
    "topmost": lambda thing: thing.center[1],
    "bottommost": lambda thing: -thing.center[1],
    "smallest": lambda thing: thing.area,
    "largest": lambda thing: -thing.area,
}
RELATIONS = {
    "left of": lambda one, other: one.center[0] < other.center[0],
    "right of": lambda one, other: one.center[0] > other.center[0],
    "above": lambda one, other: one.center[1] < other.center[1],
    "below": lambda one, other: one.center[1] > other.center[1],
    "smaller than": lambda one, other: one.area < other.area,
    "larger than": lambda one, other: one.area > other.area,
}
COMPARATIVES = {
    "further left": "left of",
    "further right": "right of",
    "higher": "above",
    "lower": "below",
    "smaller": "smaller than",
    "larger": "larger than",
}


def test_an_expression_means_what_its_words_say() -> None:
    kinds = Counter()
    for seed in range(400):
        things = random_things(seed)
        expression = draw_expression(np.random.default_rng(seed), things)
        assert [things[row] for row in expression.rows] == meant(expression.text, things)
        kinds["relation" if " the " in expression.text else expression.text.split()[0] in EXTREMES] += 1
    assert min(kinds.values()) > 40 and len(kinds) == 3


def test_a_description_that_is_absent_is_true_of_nothing() -> None:
    for seed in range(200):
        things = random_things(seed)
        absent = absent_description(np.random.default_rng(seed), things)
        assert absent.rows == () and meant(absent.text, things) == []


def test_descriptions_are_those_of_the_things_and_their_rows_are_complete() -> None:
    for seed in range(100):
        things = random_things(seed)
        for description in describe_things(things):
            assert [things[row] for row in description.rows] == meant(description.text, things)


def check_answer(question: Question, things: list[Thing]) -> None:
    """Compare a question's answer with what the words say of the things."""
    words = question.text.removesuffix("?")
    if question.kind == "presence":
        assert question.answer == yes_no(bool(meant(words.removeprefix("Is there any "), things)))
    elif question.kind == "count":
        counted = words.removeprefix("How many ").removesuffix(" are there")
        assert question.answer == str(len(meant(singular(counted), things)))
    elif question.kind in ("color", "shape"):
        (thing,) = meant(words.split(" is the ")[1], things)
        assert question.answer == getattr(thing, question.kind)
    elif question.kind == "relation":
        (relation,) = [name for name in RELATIONS if f" {name} the " in words]
        first, second = words.removeprefix("Is the ").split(f" {relation} the ")
        assert question.answer == yes_no(compare(relation, first, second, things))
    elif question.kind == "which":
        comparative, _, both = words.removeprefix("Which is ").partition(", the ")
        first, second = both.split(" or the ")
        is_first = compare(COMPARATIVES[comparative], first, second, things)
        assert question.answer == (first if is_first else second)
    else:
        first, second = words.removeprefix("Are there more ").split(" than ")
        counts = [len(meant(singular(text), things)) for text in (first, second)]
        assert counts[0] != counts[1] and question.answer == yes_no(counts[0] > counts[1])


def compare(relation: str, first: str, second: str, things: list[Thing]) -> bool:
    (one,), (other,) = meant(first, things), meant(second, things)
    return RELATIONS[relation](one, other)


def yes_no(is_true: bool) -> str:
    return "yes" if is_true else "no"


def singular(plural: str) -> str:
    return plural.removesuffix("es") if plural.endswith("ses") and not plural.endswith("ellipses") else plural[:-1]


def test_answers_are_right_and_yes_is_as_frequent_as_no() -> None:
    kinds = Counter()
    answers = Counter()
    for seed in range(1500):
        things = random_things(seed)
        question = draw_question(np.random.default_rng(seed), things)
        check_answer(question, things)
        kinds[question.kind] += 1
        answers[question.kind, question.answer] += 1
    assert set(kinds) == set(QUESTIONS) and min(kinds.values()) > 60
    for kind in ("presence", "relation", "more"):
        assert 0.4 < answers[kind, "yes"] / kinds[kind] < 0.6


def draw(count: int, seed: int = 0, **settings: object) -> list[Sample]:
    stream = SceneStream(seed, SceneConfig(**settings))  # type: ignore[arg-type]
    return [stream[index] for index in range(count)]


def test_kinds_of_queries_come_as_often_as_asked_for() -> None:
    samples = draw(300, queries={"detection": 3, "question": 1})
    shares = Counter(sample.query.task for sample in samples)
    assert set(shares) == {"detection", "question"} and 190 < shares["detection"] < 260
    for sample in samples:
        is_question = sample.query.task == "question"
        assert bool(sample.answer) == is_question
        assert not is_question or sample.truth == Boxes.empty()


def test_what_is_asked_changes_no_image() -> None:
    plain, asked = draw(20, max_objects=6), draw(20, max_objects=6, queries=ALL_QUERIES)
    assert [s.load_image().tobytes() for s in plain] == [s.load_image().tobytes() for s in asked]


@pytest.mark.parametrize("task", ["grounding", "referring"])
def test_one_thing_is_asked_for_and_every_box_has_its_name(task: str) -> None:
    samples = draw(200, queries={task: 1})
    for sample in samples:
        assert sample.query.task == task
        assert set(sample.truth.labels) <= set(sample.query.categories)
    num_absent = sum(not len(sample.truth) for sample in samples)
    assert 10 < num_absent < 60


def test_the_shape_without_a_name_is_an_object() -> None:
    for sample in draw(60, held_out="shape", cells=0.0, queries={"referring": 1, "question": 1}):
        assert HELD_OUT_SHAPE not in " ".join((*sample.query.categories, sample.answer))


def test_an_empty_scene_is_asked_for_categories() -> None:
    samples = draw(20, min_objects=0, max_objects=0, queries={"question": 1})
    assert {sample.query.task for sample in samples} == {"detection"}


def pairs(**settings: object) -> set[str]:
    """The names of things by colour and shape, of scenes that ask for nothing else."""
    names: set[str] = set()
    for sample in draw(300, cells=0.0, subset=0.0, **settings):
        names |= set(sample.truth.labels)
    return {name for name in names if name.split()[0] in COLORS and name.split()[-1] in SHAPES}


def test_pairs_that_are_held_out_are_drawn_where_they_are_asked_for_alone() -> None:
    held_out = {f"{color} {shape}" for color, shape in HELD_OUT_PAIRS}
    assert len(pairs()) > 80 and not pairs() & held_out
    assert pairs(held_out="pair") == held_out


def test_queries_need_a_share_above_0() -> None:
    for queries in ({}, {"detection": 0}):
        with pytest.raises(RecipeError, match="queries: expected a share above 0 of at least one kind"):
            SceneConfig(queries=queries)
    with pytest.raises(RecipeError, match="queries"):
        SceneConfig(queries={"masks": 1})
