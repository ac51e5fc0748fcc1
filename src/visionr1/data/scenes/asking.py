"""The query of a scene: names for its things, and which of the names are asked for."""

from __future__ import annotations

from visionr1.data.scenes.layout import Scene, Thing
from visionr1.data.scenes.vocabulary import CELL_KINDS, COLORS, SHAPES
from visionr1.samples import Boxes, Query, Sample


def ask_scene(name: str, scene: Scene) -> Sample:
    """Return the sample of a scene: the categories asked for, and the boxes of the things that have them."""
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
