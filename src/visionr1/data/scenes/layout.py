"""Where things lie in a scene, and their exact boxes: the two families of scenes.

The order of the random draws is part of what a seed means: a change of it changes every scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from visionr1.data.scenes.config import SceneConfig
from visionr1.data.scenes.masks import Mask, blob_mask, shape_mask
from visionr1.data.scenes.surfaces import choose_texture, draw_surface, fill_cell, jitter, random_color
from visionr1.data.scenes.vocabulary import (
    CELL_KINDS,
    COLORS,
    HELD_OUT_PAIRS,
    HELD_OUT_SHAPE,
    HELD_OUT_TEXTURE,
    SHAPES,
)
from visionr1.samples import Size

Rng = np.random.Generator
Box = tuple[int, int, int, int]
"""xyxy in whole pixels."""

MIN_SIDE = 4
"""Pixels; what shows less of itself is not drawn."""


@dataclass(frozen=True, slots=True)
class Thing:
    """An object that was drawn: its tight box, its shape, and its colour and texture ("" for a cell)."""

    xyxy: Box
    shape: str
    color: str
    texture: str = ""

    @property
    def center(self) -> tuple[float, float]:
        """The middle (x, y) of its box."""
        left, top, right, bottom = self.xyxy
        return (left + right) / 2, (top + bottom) / 2

    @property
    def area(self) -> int:
        """Pixels of its box."""
        left, top, right, bottom = self.xyxy
        return (right - left) * (bottom - top)


class Scene:
    """A canvas, its random numbers and the things drawn so far."""

    def __init__(self, rng: Rng, config: SceneConfig) -> None:
        self.rng = rng
        self.config = config
        self.size_wh: Size = (config.width, config.height)
        self.things: list[Thing] = []
        self.image = Image.new("RGB", self.size_wh)

    def place(
        self, mask: Mask, fill: Image.Image, left: int, top: int, shape: str, color: str, texture: str = ""
    ) -> bool:
        """Draw `fill` through `mask` at (left, top), unless it covers too much or is mostly cut off."""
        width, height = self.size_wh

        # The part of the mask inside the canvas, and the box of what it covers there.
        right = min(mask.width, width - left)
        bottom = min(mask.height, height - top)
        part = (max(0, -left), max(0, -top), right, bottom)
        if part[0] >= part[2] or part[1] >= part[3]:
            return False
        tight = mask.crop(part).getbbox()
        if tight is None:
            return False

        # The same box in the canvas.
        x = max(0, left)
        y = max(0, top)
        box = (x + tight[0], y + tight[1], x + tight[2], y + tight[3])
        if min(box[2] - box[0], box[3] - box[1]) < MIN_SIDE or self._is_crowded(box):
            return False

        self.image.paste(fill, (left, top), mask)
        self.things.append(Thing(box, shape, color, texture))
        return True

    def _is_crowded(self, box: Box) -> bool:
        """Return True if `box` and one of the things share too much of the smaller of the two."""
        if not self.things:
            return False

        # The areas that the box shares with each of the things.
        others = np.array([thing.xyxy for thing in self.things])
        sides = np.minimum(others[:, 2:], box[2:]) - np.maximum(others[:, :2], box[:2])
        shared = sides.clip(0).prod(1)

        # Relative to the smaller of the two, so that a small thing is not buried under a large one.
        area = (box[2] - box[0]) * (box[3] - box[1])
        smaller = np.minimum((others[:, 2:] - others[:, :2]).prod(1), area)
        return bool((shared > self.config.max_overlap * smaller).any())


def draw_shapes(scene: Scene) -> None:
    """Draw a few kinds of shapes anywhere on a textured background, with or without clutter."""
    rng, config = scene.rng, scene.config
    color = random_color(rng)
    texture = choose_texture(rng, config, is_background=True)
    scene.image = draw_surface(rng, scene.size_wh, color, texture)
    if rng.random() < config.clutter:
        _draw_clutter(scene)

    # One to four kinds of shapes and of colours in a scene.
    shapes = [HELD_OUT_SHAPE]
    if config.held_out != "shape":
        shapes = rng.permutation(SHAPES)[: rng.integers(1, 5)].tolist()
    colors = rng.permutation(list(COLORS))[: rng.integers(1, 5)].tolist()

    # The more objects, the smaller the largest; in three of ten scenes all are of nearly one size.
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    smallest = config.min_size
    largest = max(smallest, min(config.max_size, 1.6 / max(1, count) ** 0.5))
    is_one_size = rng.random() < 0.3
    common_size = _log_uniform(rng, smallest, largest)

    # A crowded scene may refuse many places: after three tries an object it holds fewer.
    width, height = scene.size_wh
    for _ in range(3 * count):
        if len(scene.things) == count:
            break
        share = common_size * rng.uniform(0.85, 1.15) if is_one_size else _log_uniform(rng, smallest, largest)
        shape = str(rng.choice(shapes))
        color_name, shape = _choose_pair(str(rng.choice(colors)), shape, config)
        mask = shape_mask(rng, shape, max(8, round(share * min(width, height))))
        if mask.width >= width or mask.height >= height:
            continue

        # Its surface, and a place anywhere inside the canvas.
        color = jitter(rng, COLORS[color_name])
        texture = choose_texture(rng, config, is_background=False)
        fill = draw_surface(rng, mask.size, color, texture)
        left = int(rng.integers(0, width - mask.width))
        top = int(rng.integers(0, height - mask.height))
        scene.place(mask, fill, left, top, shape, color_name, texture)


def draw_cells(scene: Scene) -> None:
    """Draw a light ground full of soft discs of one size, with a few large dark blobs and small dots."""
    rng, config = scene.rng, scene.config
    width, height = scene.size_wh
    ground = jitter(rng, (225, 215, 210), 30)
    texture = "shaded"
    if config.held_out == "texture":
        texture = HELD_OUT_TEXTURE
    scene.image = draw_surface(rng, scene.size_wh, ground, texture)

    # All cells of a scene are stained alike and of one scale.
    disc_color = jitter(rng, (205, 150, 150), 45)
    dark_color = jitter(rng, (130, 80, 160), 45)
    radius = float(rng.uniform(0.07, 0.16)) * height
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    shares = [kind.share for kind in CELL_KINDS]
    for _ in range(3 * count):
        if len(scene.things) == count:
            break
        kind = CELL_KINDS[rng.choice(len(CELL_KINDS), p=shares)]
        size = 2 * radius * rng.uniform(kind.min_radius, kind.max_radius)
        mask = blob_mask(rng, size, is_rough=kind.name == "blob")
        is_disc = kind.name == "disc"
        fill = fill_cell(rng, mask.size, disc_color if is_disc else dark_color, is_hollow=is_disc)

        # Cells may be cut off by the border.
        left = int(rng.integers(-mask.width // 2, width - mask.width // 2))
        top = int(rng.integers(-mask.height // 2, height - mask.height // 2))
        scene.place(mask, fill, left, top, kind.name, "")

    if rng.random() < 0.5:
        scene.image = scene.image.filter(ImageFilter.BoxBlur(1))


def _draw_clutter(scene: Scene) -> None:
    """Draw thin lines and specks that nobody asks for."""
    rng = scene.rng
    draw = ImageDraw.Draw(scene.image)
    limit = np.array(scene.size_wh)
    for _ in range(int(rng.integers(1, 6))):
        corners = rng.random((int(rng.integers(2, 4)), 2)) * limit
        color = random_color(rng)
        draw.line(corners.ravel().tolist(), fill=color, width=int(rng.integers(1, 3)))

    # Specks of two by two pixels.
    for x, y in rng.random((int(rng.integers(0, 30)), 2)) * limit:
        draw.rectangle([float(x), float(y), float(x) + 1, float(y) + 1], fill=random_color(rng))


def _choose_pair(color: str, shape: str, config: SceneConfig) -> tuple[str, str]:
    """Return the pair of colour and shape to draw in place of one that was drawn by chance.

    Training never shows `HELD_OUT_PAIRS`: such a shape takes the next colour. The held-out set shows nothing else: a
    colour of one of the pairs keeps its own shape, and any other takes the pair of the shape's place.
    """
    if config.held_out == "pair":
        shape_of_color = dict(HELD_OUT_PAIRS)
        if color in shape_of_color:
            return color, shape_of_color[color]
        return HELD_OUT_PAIRS[SHAPES.index(shape) % len(HELD_OUT_PAIRS)]

    if (color, shape) in HELD_OUT_PAIRS:
        names = list(COLORS)
        color = names[(names.index(color) + 1) % len(names)]
    return color, shape


def _log_uniform(rng: Rng, low: float, high: float) -> float:
    """Draw a size so that its double is as likely as itself: small objects come as often as large ones."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
