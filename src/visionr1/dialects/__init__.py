"""How model families write boxes: one file per dialect."""

from visionr1.dialects.base import Dialect
from visionr1.dialects.qwen25 import Qwen25

__all__ = ["DIALECTS", "Dialect", "get_dialect"]

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (Qwen25(),)}


def get_dialect(name: str) -> Dialect:
    """The dialect called `name`; ValueError naming the known ones if there is none."""
    if name not in DIALECTS:
        raise ValueError(f"unknown dialect {name!r}; known: {', '.join(sorted(DIALECTS))}")
    return DIALECTS[name]
