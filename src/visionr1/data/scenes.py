"""Synthetic scenes: endless samples with exact boxes, a function of seed and index alone.

`SceneStream(seed, SceneConfig(...))[i]` is always the same sample. A scene holds objects of several shapes, colours,
sizes and textures on a textured background, with clutter and with objects that are not asked for, in one of two
families: `shapes` (few kinds of anything anywhere) and `cells` (many alike, touching, cut off by the border). Every box
is measured on the drawn pixels: it is the tightest around all that the object would show if nothing lay over it.

`HELD_OUT_SHAPE` and `HELD_OUT_TEXTURE` are drawn only where a config asks for them: training never does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from pydantic import Field, model_validator

from visionr1.samples import Boxes, Query, Sample, Size
from visionr1.settings import Section, refuse

Rng = np.random.Generator
Mask = Image.Image
Color = tuple[int, int, int]

COLORS: dict[str, Color] = {
    "red": (205, 45, 45),
    "green": (60, 160, 70),
    "blue": (55, 85, 205),
    "yellow": (230, 205, 60),
    "orange": (235, 140, 45),
    "purple": (130, 60, 160),
    "pink": (235, 130, 175),
    "brown": (130, 85, 50),
    "cyan": (70, 200, 215),
    "white": (240, 240, 240),
    "black": (30, 30, 30),
    "gray": (130, 130, 130),
}
SHAPES = "circle square triangle rectangle ring ellipse star pentagon hexagon diamond heart arrow crescent".split()
HELD_OUT_SHAPE = "cross"
TEXTURES = ("plain", "shaded", "striped", "spotted", "outlined", "grainy")
HELD_OUT_TEXTURE = "checkered"
# Kinds of the `cells` family: name, range of radius relative to the scene's cell radius, share of the objects.
CELL_KINDS = (("disc", 0.85, 1.15, 0.80), ("blob", 1.3, 2.2, 0.08), ("dot", 0.3, 0.5, 0.12))


class SceneConfig(Section):
    """What scenes look like and what is asked of them."""

    width: Annotated[int, Field(ge=32)] = 320
    height: Annotated[int, Field(ge=32)] = 240
    min_objects: Annotated[int, Field(ge=0)] = 1
    """Objects to place, drawn evenly from min_objects to max_objects; crowded scenes may hold fewer."""
    max_objects: int = 12
    min_size: Annotated[float, Field(gt=0, le=1)] = 0.06
    """Smallest and largest object, as a share of the shorter side."""
    max_size: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_overlap: float = 0.25
    """Largest share of the smaller of two boxes that may lie in the other."""
    cells: float = 0.3
    """Share of scenes of the `cells` family."""
    clutter: float = 0.5
    """Share of `shapes` scenes with lines and specks over the background."""
    subset: float = 0.3
    """Share of scenes that are asked for some of the categories they hold, or for none of them."""
    held_out: Literal["none", "shape", "texture"] = "none"
    """Draw every object with the shape, or every surface with the texture, that training never shows."""

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        if self.max_objects < self.min_objects:
            raise refuse("max_objects", f"min_objects = {self.min_objects} or more", self.max_objects)
        if self.max_size < self.min_size:
            raise refuse("max_size", f"min_size = {self.min_size} or more", self.max_size)
        return self


@dataclass(frozen=True, slots=True)
class SceneStream:
    """Endless samples; indexing is the only access."""

    seed: int | tuple[int, ...]
    config: SceneConfig = SceneConfig()  # noqa: RUF009, it is frozen

    def __getitem__(self, index: int) -> Sample:
        """Scene `index`: an RGB image in memory, a detection query, and the boxes of what it asks for."""
        rng = np.random.default_rng((*np.atleast_1d(self.seed).tolist(), index))
        scene = _Scene(rng, self.config)
        (_draw_cells if rng.random() < self.config.cells else _draw_shapes)(scene)
        return _sample(f"scene-{index}", scene)


@dataclass(frozen=True, slots=True)
class _Thing:
    """An object that was drawn: its tight box and the names that fit it, from plain to precise."""

    xyxy: tuple[int, int, int, int]
    shape: str
    color: str


class _Scene:
    """A canvas, its random numbers and the things drawn so far."""

    def __init__(self, rng: Rng, config: SceneConfig) -> None:
        self.rng = rng
        self.config = config
        self.size: Size = (config.width, config.height)
        self.things: list[_Thing] = []
        self.image = Image.new("RGB", self.size)

    def place(self, mask: Mask, fill: Image.Image, left: int, top: int, shape: str, color: str) -> bool:
        """Draw `fill` through `mask` at (left, top), unless it covers too much or is mostly cut off."""
        width, height = self.size
        part = (max(0, -left), max(0, -top), min(mask.width, width - left), min(mask.height, height - top))
        tight = mask.crop(part).getbbox() if part[0] < part[2] and part[1] < part[3] else None
        if tight is None:
            return False
        x, y = max(0, left), max(0, top)
        box = (x + tight[0], y + tight[1], x + tight[2], y + tight[3])
        if box[2] - box[0] < 4 or box[3] - box[1] < 4 or self._crowded(box):
            return False
        self.image.paste(fill, (left, top), mask)
        self.things.append(_Thing(box, shape, color))
        return True

    def _crowded(self, box: tuple[int, int, int, int]) -> bool:
        if not self.things:
            return False
        others = np.array([thing.xyxy for thing in self.things])
        wh = np.minimum(others[:, 2:], box[2:]) - np.maximum(others[:, :2], box[:2])
        shared = wh.clip(0).prod(1)
        smaller = np.minimum((others[:, 2:] - others[:, :2]).prod(1), (box[2] - box[0]) * (box[3] - box[1]))
        return bool((shared > self.config.max_overlap * smaller).any())


def _draw_shapes(scene: _Scene) -> None:
    rng, config = scene.rng, scene.config
    scene.image = _surface(rng, scene.size, _random_color(rng), _texture(rng, config, background=True))
    if rng.random() < config.clutter:
        _draw_clutter(scene)
    shapes = (HELD_OUT_SHAPE,) if config.held_out == "shape" else tuple(rng.permutation(SHAPES)[: rng.integers(1, 5)])
    colors = rng.permutation(list(COLORS))[: rng.integers(1, 5)]
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    side = min(scene.size)
    largest = max(config.min_size, min(config.max_size, 1.6 / max(1, count) ** 0.5))
    alike = rng.random() < 0.3
    common = _log_uniform(rng, config.min_size, largest)
    for _ in range(3 * count):
        if len(scene.things) == count:
            break
        share = common * rng.uniform(0.85, 1.15) if alike else _log_uniform(rng, config.min_size, largest)
        shape, color = str(rng.choice(shapes)), str(rng.choice(colors))
        mask = shape_mask(rng, shape, max(8, round(share * side)))
        if mask.width >= scene.size[0] or mask.height >= scene.size[1]:
            continue
        fill = _surface(rng, mask.size, _jitter(rng, COLORS[color]), _texture(rng, config, background=False))
        left = int(rng.integers(0, scene.size[0] - mask.width))
        top = int(rng.integers(0, scene.size[1] - mask.height))
        scene.place(mask, fill, left, top, shape, color)


def _draw_cells(scene: _Scene) -> None:
    """A light ground full of soft discs of one size, with a few large dark blobs and small dots."""
    rng, config = scene.rng, scene.config
    width, height = scene.size
    ground = _jitter(rng, (225, 215, 210), 30)
    texture = HELD_OUT_TEXTURE if config.held_out == "texture" else "shaded"
    scene.image = _surface(rng, scene.size, ground, texture)
    disc = _jitter(rng, (205, 150, 150), 45)
    dark = _jitter(rng, (130, 80, 160), 45)
    radius = float(rng.uniform(0.07, 0.16)) * height
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    shares = [kind[3] for kind in CELL_KINDS]
    for _ in range(3 * count):
        if len(scene.things) == count:
            break
        name, low, high, _ = CELL_KINDS[rng.choice(len(CELL_KINDS), p=shares)]
        size = 2 * radius * rng.uniform(low, high)
        mask = _blob_mask(rng, size, rough=name == "blob")
        color = disc if name == "disc" else dark
        fill = _cell_fill(rng, mask.size, color, hollow=name == "disc")
        left = int(rng.integers(-mask.width // 2, width - mask.width // 2))
        top = int(rng.integers(-mask.height // 2, height - mask.height // 2))
        scene.place(mask, fill, left, top, name, "")
    if rng.random() < 0.5:
        scene.image = scene.image.filter(ImageFilter.BoxBlur(1))


def _sample(name: str, scene: _Scene) -> Sample:
    rng = scene.rng
    names = _names(scene)
    held = sorted(set(names))
    absent = [other for other in _other_names(scene) if other not in held]
    categories = [str(held[i]) for i in rng.permutation(len(held))]
    if rng.random() < scene.config.subset or not categories:
        categories = categories[: int(rng.integers(0, len(categories) + 1))]
        extra = rng.permutation(absent)[: max(int(rng.integers(0, 3)), not categories)]
        categories = [str(c) for c in rng.permutation([*categories, *map(str, extra)])]
    asked = [i for i, label in enumerate(names) if label in categories]
    truth = Boxes.of([scene.things[i].xyxy for i in asked], [names[i] for i in asked])
    return Sample(name, scene.image, Query("detection", tuple(categories)), truth, scene.size)


def _names(scene: _Scene) -> list[str]:
    """What the scene's things are called; all by the same rule."""
    cells = bool(scene.things) and not scene.things[0].color
    rule = scene.rng.random()
    if scene.config.held_out == "shape":
        return ["object" for _ in scene.things]
    if cells:
        return [thing.shape if rule < 0.85 else "object" for thing in scene.things]
    if rule < 0.5:
        return [thing.shape for thing in scene.things]
    if rule < 0.75:
        return [f"{thing.color} {thing.shape}" for thing in scene.things]
    if rule < 0.9:
        return [f"{thing.color} object" for thing in scene.things]
    return ["object" for _ in scene.things]


def _other_names(scene: _Scene) -> list[str]:
    """Names that might be asked for in vain."""
    shapes = [*SHAPES, *(kind[0] for kind in CELL_KINDS)]
    used = {thing.shape for thing in scene.things}
    free = [shape for shape in shapes if shape not in used]
    return free + [f"{color} {shape}" for color, shape in zip(COLORS, free, strict=False)]


# ---- shapes -------------------------------------------------------------------------------------------------------


def shape_mask(rng: Rng, shape: str, size: int) -> Mask:
    """An "L" image, 255 inside a `shape` about `size` pixels across, randomly turned where it has no upright."""
    if shape in ("circle", "ellipse", "ring"):
        return _round_mask(rng, shape, size)
    if shape == "crescent":
        mask = _round_mask(rng, "circle", size)
        shift = size * 0.35 * _unit(rng)
        away = [shift[0], shift[1], size - 1 + shift[0], size - 1 + shift[1]]
        ImageDraw.Draw(mask).ellipse(away, fill=0)
        return mask.crop(mask.getbbox())
    points = _OUTLINES[shape](rng)
    angle = 0.0 if shape == "heart" else rng.uniform(0, 2 * np.pi)
    if shape in ("square", "rectangle", "diamond") and rng.random() < 0.6:
        angle = 0.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = points @ turn.T
    points -= points.min(0)
    points *= (size - 1) / points.max()
    mask = Image.new("L", (int(points[:, 0].max()) + 2, int(points[:, 1].max()) + 2))
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in points], fill=255)
    return mask


def _round_mask(rng: Rng, shape: str, size: int) -> Mask:
    wh = [size, size]
    if shape == "ellipse":
        wh[int(rng.integers(2))] = max(4, round(size * rng.uniform(0.4, 0.7)))
    mask = Image.new("L", (wh[0], wh[1]))
    draw = ImageDraw.Draw(mask)
    draw.ellipse([0, 0, wh[0] - 1, wh[1] - 1], fill=255)
    if shape == "ring":
        inner = size * rng.uniform(0.2, 0.3)
        draw.ellipse([inner, inner, size - 1 - inner, size - 1 - inner], fill=0)
    return mask


def _blob_mask(rng: Rng, size: float, rough: bool) -> Mask:
    """A nearly round outline, bumpy where `rough`."""
    angles = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    radii = np.ones_like(angles)
    for k in (2, 3, 4):
        radii += (0.10 if rough else 0.045) * rng.normal() / (k - 1) * np.cos(k * angles + rng.uniform(0, 6.3))
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
    points -= points.min(0)
    points *= size / 2
    mask = Image.new("L", (int(points[:, 0].max()) + 2, int(points[:, 1].max()) + 2))
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in points], fill=255)
    return mask


def _regular(corners: int) -> Callable[[Rng], NDArray[np.float64]]:
    def outline(rng: Rng) -> NDArray[np.float64]:
        angles = 2 * np.pi * np.arange(corners) / corners + np.pi / corners
        return np.stack([np.sin(angles), np.cos(angles)], 1)

    return outline


def _rectangle(rng: Rng) -> NDArray[np.float64]:
    ratio = rng.uniform(0.35, 0.65)
    return np.array([[0, 0], [1, 0], [1, ratio], [0, ratio]])[:, :: int(rng.choice([1, -1]))]


def _star(rng: Rng) -> NDArray[np.float64]:
    angles = np.pi * np.arange(10) / 5
    radii = np.where(np.arange(10) % 2, 0.42, 1.0)
    return np.stack([np.sin(angles), -np.cos(angles)], 1) * radii[:, None]


def _heart(rng: Rng) -> NDArray[np.float64]:
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], 1)


def _cross(rng: Rng) -> NDArray[np.float64]:
    a, b = 1 / 3, 2 / 3
    return np.array([[a, 0], [b, 0], [b, a], [1, a], [1, b], [b, b], [b, 1], [a, 1], [a, b], [0, b], [0, a], [a, a]])


_OUTLINES: dict[str, Callable[[Rng], NDArray[np.float64]]] = {
    "square": _regular(4),
    "triangle": _regular(3),
    "pentagon": _regular(5),
    "hexagon": _regular(6),
    "rectangle": _rectangle,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "diamond": lambda rng: np.array([[0.0, 0.5], [0.3, 0.0], [0.6, 0.5], [0.3, 1.0]]),
    "arrow": lambda rng: np.array(
        [[0, 0.35], [0.55, 0.35], [0.55, 0.1], [1, 0.5], [0.55, 0.9], [0.55, 0.65], [0, 0.65]]
    ),
}


# ---- surfaces -----------------------------------------------------------------------------------------------------


def _texture(rng: Rng, config: SceneConfig, *, background: bool) -> str:
    if config.held_out == "texture":
        return HELD_OUT_TEXTURE
    return str(rng.choice([t for t in TEXTURES if not (background and t == "outlined")]))


def _surface(rng: Rng, size: Size, color: Color, texture: str) -> Image.Image:
    """A `size` image in `color` with `texture`."""
    width, height = size
    base = np.array(color, dtype=np.float32)
    second = base + rng.choice([-1, 1]) * rng.uniform(20, 60)
    if texture == "plain":
        return Image.new("RGB", size, color)
    if texture == "shaded":
        return _clouds(rng, size, base, rng.uniform(5, 25))
    if texture == "grainy":
        grain = rng.integers(-25, 26, (height, width, 1), dtype=np.int16)
        return Image.fromarray((base.astype(np.int16) + grain).clip(0, 255).astype(np.uint8))
    if texture == "outlined":
        inner = Image.new("RGB", size, _bytes(second))
        margin = max(2, min(size) // 8)
        edge = Image.new("RGB", size, color)
        if width > 2 * margin and height > 2 * margin:
            edge.paste(inner.crop((0, 0, width - 2 * margin, height - 2 * margin)), (margin, margin))
        return edge
    x, y = np.arange(width), np.arange(height)
    period = rng.uniform(5, 16)
    if texture == "striped":
        angle = rng.uniform(0, np.pi)
        phase = np.cos(angle) * x[None] + np.sin(angle) * y[:, None]
        choose = phase % period < period / 2
    elif texture == "spotted":
        choose = (x[None] % period - period / 2) ** 2 + (y[:, None] % period - period / 2) ** 2 < period**2 / 10
    else:
        choose = (x[None] // period + y[:, None] // period) % 2 == 0
    table = np.array([_bytes(base), _bytes(second)], dtype=np.uint8)
    return Image.fromarray(table[choose.astype(np.uint8)])


def _clouds(rng: Rng, size: Size, base: NDArray[np.float32], strength: float) -> Image.Image:
    """Slow changes of light."""
    coarse = base + rng.normal(0, strength, (5, 6, 1)) + rng.normal(0, strength / 4, (5, 6, 3))
    small = Image.fromarray(coarse.clip(0, 255).astype(np.uint8))
    return small.resize(size, Image.Resampling.BILINEAR)


def _cell_fill(rng: Rng, size: Size, color: Color, *, hollow: bool) -> Image.Image:
    """A disc's inside: pale in the middle where `hollow`, mottled where not."""
    if not hollow:
        return _clouds(rng, size, np.array(color, dtype=np.float32), 22)
    width, height = size
    shade = np.array(color, dtype=np.float32) + rng.uniform(-12, 12)
    pale = shade + rng.uniform(5, 45)
    r2 = ((np.arange(width) / width - 0.5) ** 2)[None] + ((np.arange(height) / height - 0.5) ** 2)[:, None]
    weight = np.clip(1 - r2 / rng.uniform(0.05, 0.15), 0, 1)[..., None]
    return Image.fromarray((shade + (pale - shade) * weight).clip(0, 255).astype(np.uint8))


def _draw_clutter(scene: _Scene) -> None:
    """Thin lines and specks that nobody asks for."""
    rng, draw = scene.rng, ImageDraw.Draw(scene.image)
    limit = np.array(scene.size)
    for _ in range(int(rng.integers(1, 6))):
        ends = rng.random((int(rng.integers(2, 4)), 2)) * limit
        draw.line([(float(x), float(y)) for x, y in ends], fill=_random_color(rng), width=int(rng.integers(1, 3)))
    for x, y in rng.random((int(rng.integers(0, 30)), 2)) * limit:
        draw.rectangle([float(x), float(y), float(x) + 1, float(y) + 1], fill=_random_color(rng))


def _log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _unit(rng: Rng) -> NDArray[np.float64]:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _random_color(rng: Rng) -> Color:
    return _bytes(rng.integers(0, 256, 3))


def _jitter(rng: Rng, color: Color, amount: int = 18) -> Color:
    return _bytes(np.array(color) + rng.integers(-amount, amount + 1, 3))


def _bytes(values: NDArray[np.generic]) -> Color:
    red, green, blue = np.asarray(values).clip(0, 255).astype(int).tolist()
    return red, green, blue
