"""The query of a scene: what is asked of it, and the boxes or the answer that are right."""

from __future__ import annotations

from visionr1.data.scenes.grammar import absent_description, draw_expression
from visionr1.data.scenes.layout import Scene, Thing
from visionr1.data.scenes.questions import draw_question
from visionr1.data.scenes.vocabulary import CELL_KINDS, COLORS, SHAPES
from visionr1.samples import Boxes, Query, Sample, Task

ABSENT_SHARE = 0.15
"""Of the queries for one category or one expression: nothing in the scene is meant."""


def ask_scene(name: str, scene: Scene) -> Sample:
    """Return the sample of a scene, whose query is of a kind drawn as its config says."""
    task = _draw_task(scene)

    # Of an empty scene nothing but categories can be asked.
    if task == "detection" or not scene.things:
        return _ask_categories(name, scene)
    if task == "grounding":
        return _ask_one_category(name, scene)
    if task == "referring":
        return _ask_expression(name, scene)
    question = draw_question(scene.rng, scene.things)
    query = Query("question", (question.text,))
    return Sample(f"{name}:{question.kind}", scene.image, query, Boxes.empty(), scene.size_wh, answer=question.answer)


def _draw_task(scene: Scene) -> Task:
    """Draw the kind of query; nothing is drawn where there is one kind, so that seeds keep their meaning."""
    shares = {task: share for task, share in sorted(scene.config.queries.items()) if share}
    tasks = list(shares)
    if len(tasks) == 1:
        return tasks[0]

    # The first whose share, with those before it, exceeds the draw.
    rest = scene.rng.random() * sum(shares.values())
    for task in tasks:
        rest -= shares[task]
        if rest < 0:
            return task
    return tasks[-1]


def _ask_one_category(name: str, scene: Scene) -> Sample:
    """Ask for one of the scene's categories, or for one that it does not hold."""
    labels = _name_things(scene)
    present = sorted(set(labels))
    category = present[int(scene.rng.integers(len(present)))]
    if scene.rng.random() < ABSENT_SHARE:
        names = [other for other in _list_other_names(scene) if other not in present]
        category = names[int(scene.rng.integers(len(names)))]
    rows = [row for row, label in enumerate(labels) if label == category]
    truth = Boxes.of([thing.xyxy for thing in scene.things], labels).take(rows)
    return Sample(name, scene.image, Query("grounding", (category,)), truth, scene.size_wh)


def _ask_expression(name: str, scene: Scene) -> Sample:
    """Ask for the things that an expression names; sometimes there are none."""
    expression = draw_expression(scene.rng, scene.things)
    if scene.rng.random() < ABSENT_SHARE:
        expression = absent_description(scene.rng, scene.things)
    xyxy = [scene.things[row].xyxy for row in expression.rows]
    truth = Boxes.of(xyxy, [expression.text] * len(xyxy))
    return Sample(name, scene.image, Query("referring", (expression.text,)), truth, scene.size_wh)


def _ask_categories(name: str, scene: Scene) -> Sample:
    """Ask for all categories of a scene, or for some of them and for some that it does not hold."""
    rng = scene.rng
    labels = _name_things(scene)
    present = sorted(set(labels))
    absent = [category for category in _list_other_names(scene) if category not in present]
    categories = [present[position] for position in rng.permutation(len(present))]

    # A share of the scenes is asked for some of what they hold, and for what they do not hold.
    if rng.random() < scene.config.subset or not categories:
        categories = categories[: int(rng.integers(0, len(categories) + 1))]
        extra = rng.permutation(absent)

        # At least one category is asked for.
        num_extra = max(int(rng.integers(0, 3)), not categories)
        categories = rng.permutation([*categories, *extra[:num_extra].tolist()]).tolist()

    truth = Boxes.of([thing.xyxy for thing in scene.things], labels)
    asked_rows = [row for row, label in enumerate(labels) if label in categories]
    query = Query("detection", tuple(categories))
    return Sample(name, scene.image, query, truth.take(asked_rows), scene.size_wh)


def _name_things(scene: Scene) -> list[str]:
    """Name every thing of a scene by one rule: by shape, by colour, by both, or just "object"."""
    # Drawn whether it is needed or not: the draws after it must not depend on the scene.
    rule = scene.rng.random()
    names = []
    for thing in scene.things:
        if scene.config.held_out == "shape":
            names.append("object")  # the shape that training never shows has no name there
        else:
            names.append(_name_thing(thing, rule))
    return names


def _name_thing(thing: Thing, rule: float) -> str:
    """Return the name of a thing by a rule, 0 to 1, which the things of a scene share."""
    # A cell has no colour, and its shape is its kind.
    if not thing.color:
        return thing.shape if rule < 0.85 else "object"

    if rule < 0.5:
        return thing.shape
    if rule < 0.75:
        return f"{thing.color} {thing.shape}"
    if rule < 0.9:
        return f"{thing.color} object"
    return "object"


def _list_other_names(scene: Scene) -> list[str]:
    """Return names that might be asked for in vain: shapes and cells, and then shapes with a colour."""
    used = {thing.shape for thing in scene.things}
    names = []
    for shape in (*SHAPES, *(kind.name for kind in CELL_KINDS)):
        if shape not in used:
            names.append(shape)

    # One shape for each colour, as far as there are shapes.
    for color, shape in zip(COLORS, tuple(names), strict=False):
        names.append(f"{color} {shape}")
    return names
