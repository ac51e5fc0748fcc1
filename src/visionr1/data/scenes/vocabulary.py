"""The vocabulary of scenes: colours, shapes, textures, kinds of cells."""

from typing import NamedTuple

Color = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

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
NAMED_TEXTURES = ("striped", "spotted", "outlined")
"""Those that can be told apart at any size, so that words may name them."""
HELD_OUT_PAIRS = (
    ("red", "star"),
    ("green", "triangle"),
    ("blue", "heart"),
    ("yellow", "ring"),
    ("orange", "hexagon"),
    ("purple", "square"),
    ("white", "arrow"),
    ("black", "circle"),
)
"""Colours and shapes that training shows, but never in one object."""


class CellKind(NamedTuple):
    """One kind of object of the `cells` family."""

    name: str
    min_radius: float
    """Relative to the scene's cell radius."""
    max_radius: float
    share: float
    """Share of the objects, 0 to 1."""


CELL_KINDS = (
    CellKind("disc", 0.85, 1.15, 0.80),
    CellKind("blob", 1.3, 2.2, 0.08),
    CellKind("dot", 0.3, 0.5, 0.12),
)
