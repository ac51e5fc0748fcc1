"""The query of a scene: names for its things, and which of the names are asked for."""

from __future__ import annotations

from visionr1.data.scenes.layout import Scene
from visionr1.data.scenes.vocabulary import CELL_KINDS, COLORS, SHAPES
from visionr1.samples import Boxes, Query, Sample


def ask_scene(name: str, scene: Scene) -> Sample:
    """Return the sample of a scene: the categories asked for, and the boxes of the things that have them."""
    rng = scene.rng
    names = _name_things(scene)
    present = sorted(set(names))
    absent = [other for other in _other_names(scene) if other not in present]
    categories = [str(present[i]) for i in rng.permutation(len(present))]

    # A share of the scenes is asked for some of what they hold, and for what they do not hold.
    if rng.random() < scene.config.subset or not categories:
        categories = categories[: int(rng.integers(0, len(categories) + 1))]
        extra = rng.permutation(absent)[: max(int(rng.integers(0, 3)), not categories)].tolist()
        categories = rng.permutation([*categories, *extra]).tolist()

    truth = Boxes.of([thing.xyxy for thing in scene.things], names)
    asked = [i for i, label in enumerate(names) if label in categories]
    return Sample(name, scene.image, Query("detection", tuple(categories)), truth.take(asked), scene.size_wh)


def _name_things(scene: Scene) -> list[str]:
    """Name every thing of a scene by one rule: by shape, by colour, by both, or just "object"."""
    rule = scene.rng.random()
    is_cells = bool(scene.things) and not scene.things[0].color
    if scene.config.held_out == "shape":
        return ["object" for _ in scene.things]
    if is_cells:
        return [thing.shape if rule < 0.85 else "object" for thing in scene.things]
    if rule < 0.5:
        return [thing.shape for thing in scene.things]
    if rule < 0.75:
        return [f"{thing.color} {thing.shape}" for thing in scene.things]
    if rule < 0.9:
        return [f"{thing.color} object" for thing in scene.things]
    return ["object" for _ in scene.things]


def _other_names(scene: Scene) -> list[str]:
    """Return names that might be asked for in vain."""
    used = {thing.shape for thing in scene.things}
    free = [shape for shape in (*SHAPES, *(kind.name for kind in CELL_KINDS)) if shape not in used]
    return free + [f"{color} {shape}" for color, shape in zip(COLORS, free, strict=False)]
