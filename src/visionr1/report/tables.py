"""Tables as the templates draw them."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: its text, what stands behind it in a soft colour, and its `tone`: "", "up" (good) or "down" (bad)."""

    text: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Heads, and rows whose first cell is the header of its row; `kind` is a class of `report.css`."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    kind: str = ""
    title: str = ""


def make_text_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "", title: str = "") -> Table:
    """Make a table of plain texts."""
    cells = [list(map(Cell, row)) for row in rows]
    return Table(heads, cells, kind, title)
