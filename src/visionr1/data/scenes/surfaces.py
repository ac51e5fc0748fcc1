"""The surfaces of objects and backgrounds: RGB images in one colour with a texture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionr1.data.scenes.config import SceneConfig
from visionr1.data.scenes.vocabulary import HELD_OUT_TEXTURE, TEXTURES, Color
from visionr1.samples import Size

Rng = np.random.Generator


def choose_texture(rng: Rng, config: SceneConfig, *, is_background: bool) -> str:
    """Draw a texture; a background has no outline."""
    if config.held_out == "texture":
        return HELD_OUT_TEXTURE
    textures = list(TEXTURES)
    if is_background:
        textures.remove("outlined")
    return str(rng.choice(textures))


def draw_surface(rng: Rng, size_wh: Size, color: Color, texture: str) -> Image.Image:
    """Return an image in `color` with `texture`, whose other colour is lighter or darker."""
    base = np.array(color, dtype=np.float32)
    second = base + rng.choice([-1, 1]) * rng.uniform(20, 60)
    if texture == "plain":
        return Image.new("RGB", size_wh, color)
    if texture == "shaded":
        return _draw_clouds(rng, size_wh, base, rng.uniform(5, 25))
    if texture == "grainy":
        width, height = size_wh
        grain = rng.integers(-25, 26, (height, width, 1), dtype=np.int16)
        return Image.fromarray((base.astype(np.int16) + grain).clip(0, 255).astype(np.uint8))
    if texture == "outlined":
        return _draw_outlined(size_wh, color, _to_color(second))

    # The other textures alternate between the two colours.
    is_base = _draw_pattern(rng, size_wh, texture)
    table = np.array([_to_color(base), _to_color(second)], dtype=np.uint8)
    return Image.fromarray(table[is_base.astype(np.uint8)])


def _draw_outlined(size_wh: Size, edge_color: Color, inner_color: Color) -> Image.Image:
    """Return an image with an edge of one colour around the other, if there is room for it."""
    width, height = size_wh
    margin = max(2, min(size_wh) // 8)
    image = Image.new("RGB", size_wh, edge_color)
    if width > 2 * margin and height > 2 * margin:
        image.paste(inner_color, (margin, margin, width - margin, height - margin))
    return image


def _draw_pattern(rng: Rng, size_wh: Size, texture: str) -> NDArray[np.bool_]:
    """Return a pattern (H, W) of stripes, spots or squares, as true and false."""
    x = np.arange(size_wh[0])[None]  # (1, W)
    y = np.arange(size_wh[1])[:, None]  # (H, 1)
    period = rng.uniform(5, 16)
    pattern: NDArray[np.bool_]
    if texture == "striped":
        angle = rng.uniform(0, np.pi)
        phase = np.cos(angle) * x + np.sin(angle) * y
        pattern = phase % period < period / 2
    elif texture == "spotted":
        from_middle = (x % period - period / 2) ** 2 + (y % period - period / 2) ** 2
        pattern = from_middle < period**2 / 10
    else:  # checkered
        pattern = (x // period + y // period) % 2 == 0
    return pattern


def _draw_clouds(rng: Rng, size_wh: Size, base: NDArray[np.float32], strength: float) -> Image.Image:
    """Return `base` under slow changes of light: a coarse grid of noise, interpolated."""
    coarse = base + rng.normal(0, strength, (5, 6, 1)) + rng.normal(0, strength / 4, (5, 6, 3))
    small = Image.fromarray(coarse.clip(0, 255).astype(np.uint8))
    return small.resize(size_wh, Image.Resampling.BILINEAR)


def fill_cell(rng: Rng, size_wh: Size, color: Color, *, is_hollow: bool) -> Image.Image:
    """Return the inside of a cell: pale in the middle where `is_hollow`, mottled where not."""
    if not is_hollow:
        return _draw_clouds(rng, size_wh, np.array(color, dtype=np.float32), 22)

    width, height = size_wh
    shade = np.array(color, dtype=np.float32) + rng.uniform(-12, 12)
    pale = shade + rng.uniform(5, 45)

    # The squared distance from the middle of the cell, whose sides are 1: (H, W).
    x = np.arange(width) / width - 0.5
    y = np.arange(height) / height - 0.5
    distance = (x**2)[None] + (y**2)[:, None]

    # The pale colour fades into the other towards the edge.
    weight = np.clip(1 - distance / rng.uniform(0.05, 0.15), 0, 1)[..., None]
    mixed = shade + (pale - shade) * weight
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def random_color(rng: Rng) -> Color:
    """Draw any colour."""
    return _to_color(rng.integers(0, 256, 3))


def jitter(rng: Rng, color: Color, amount: int = 18) -> Color:
    """Draw a colour near `color`: each channel within `amount` of it."""
    return _to_color(np.array(color) + rng.integers(-amount, amount + 1, 3))


def _to_color(values: NDArray[np.generic]) -> Color:
    red, green, blue = np.asarray(values).clip(0, 255).astype(int).tolist()
    return red, green, blue
