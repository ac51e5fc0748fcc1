"""The outlines of objects: an "L" image each, 255 inside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Rng = np.random.Generator
Mask = Image.Image
Points = NDArray[np.float64]
"""Corners (N, 2) of a polygon, in any unit."""


def shape_mask(rng: Rng, shape: str, size: int) -> Mask:
    """Return the mask of a `shape` about `size` pixels across, randomly turned where it has no upright."""
    if shape in ("circle", "ellipse", "ring"):
        return _round_mask(rng, shape, size)
    if shape == "crescent":
        return _crescent_mask(rng, size)

    points = _OUTLINES[shape](rng)
    angle = 0.0
    if shape != "heart":
        angle = rng.uniform(0, 2 * np.pi)

    # Most things with four corners stand upright in the world.
    if shape in ("square", "rectangle", "diamond") and rng.random() < 0.6:
        angle = 0.0

    # Turned, moved to the origin, and scaled to the size.
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = points @ turn.T
    points -= points.min(0)
    points *= (size - 1) / points.max()
    return _fill_polygon(points)


def _fill_polygon(points: Points) -> Mask:
    """Return the mask of a polygon whose smallest coordinates are 0."""
    mask = Image.new("L", (int(points[:, 0].max()) + 2, int(points[:, 1].max()) + 2))
    ImageDraw.Draw(mask).polygon(points.ravel().tolist(), fill=255)
    return mask


def _crescent_mask(rng: Rng, size: int) -> Mask:
    """Return the mask of a disc from which another, shifted one is cut."""
    mask = _round_mask(rng, "circle", size)
    angle = rng.uniform(0, 2 * np.pi)
    x, y = size * 0.35 * np.array([np.cos(angle), np.sin(angle)])
    ImageDraw.Draw(mask).ellipse([x, y, size - 1 + x, size - 1 + y], fill=0)
    return mask.crop(mask.getbbox())


def _round_mask(rng: Rng, shape: str, size: int) -> Mask:
    """Return the mask of a circle, an ellipse or a ring."""
    sides = [size, size]
    if shape == "ellipse":
        shorter = max(4, round(size * rng.uniform(0.4, 0.7)))
        sides[int(rng.integers(2))] = shorter
    width, height = sides
    mask = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask)
    draw.ellipse([0, 0, width - 1, height - 1], fill=255)
    if shape == "ring":
        inner = size * rng.uniform(0.2, 0.3)
        draw.ellipse([inner, inner, size - 1 - inner, size - 1 - inner], fill=0)
    return mask


def blob_mask(rng: Rng, size: float, *, is_rough: bool) -> Mask:
    """Return the mask of a nearly round outline, bumpy where `is_rough`."""
    angles = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    radii = np.ones_like(angles)

    # Waves with two to four bumps around, the more bumps the lower.
    roughness = 0.10 if is_rough else 0.045
    for bumps in (2, 3, 4):
        radii += roughness * rng.normal() / (bumps - 1) * np.cos(bumps * angles + rng.uniform(0, 6.3))

    # From angles and radii to corners, moved to the origin and scaled.
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
    points -= points.min(0)
    points *= size / 2
    return _fill_polygon(points)


def _regular(corners: int) -> Callable[[Rng], Points]:
    """Return the outline of a polygon with equal sides and angles."""

    def outline(rng: Rng) -> Points:
        angles = 2 * np.pi * np.arange(corners) / corners + np.pi / corners
        return np.stack([np.sin(angles), np.cos(angles)], 1)

    return outline


def _rectangle(rng: Rng) -> Points:
    ratio = rng.uniform(0.35, 0.65)
    points = np.array([[0, 0], [1, 0], [1, ratio], [0, ratio]])

    # Lying, or with x and y swapped, standing.
    return points[:, :: int(rng.choice([1, -1]))]


def _star(rng: Rng) -> Points:
    angles = np.pi * np.arange(10) / 5
    radii = np.where(np.arange(10) % 2, 0.42, 1.0)
    return np.stack([np.sin(angles), -np.cos(angles)], 1) * radii[:, None]


def _heart(rng: Rng) -> Points:
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], 1)


def _cross(rng: Rng) -> Points:
    a, b = 1 / 3, 2 / 3
    return np.array([[a, 0], [b, 0], [b, a], [1, a], [1, b], [b, b], [b, 1], [a, 1], [a, b], [0, b], [0, a], [a, a]])


_OUTLINES: dict[str, Callable[[Rng], Points]] = {
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
