"""How model families write boxes: one file per dialect."""

from visionr1.dialects.base import Dialect
from visionr1.dialects.griffon import Griffon
from visionr1.dialects.internvl import InternVL
from visionr1.dialects.qwen3 import Qwen3
from visionr1.dialects.qwen25 import Qwen25
from visionr1.dialects.think import Think
from visionr1.errors import RecipeError

__all__ = ["DIALECTS", "Dialect", "get_dialect"]

_PLAIN: tuple[Dialect, ...] = (Qwen25(), Qwen3(), Griffon(), InternVL())
DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (*_PLAIN, *map(Think, _PLAIN))}


def get_dialect(name: str) -> Dialect:
    """The dialect called `name`, plain or with think+ before it; RecipeError naming the known ones if there is none."""
    if name not in DIALECTS:
        raise RecipeError(f"unknown dialect {name!r}; known: {', '.join(DIALECTS)}")
    return DIALECTS[name]
