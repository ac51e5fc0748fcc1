"""The dialect of Kosmos-2: a box is the first and the last of the 32 x 32 patches that it covers.

    <phrase>label</phrase><object><patch_index_0044><patch_index_0863></object>

Further boxes of the label follow behind `</delimiter_of_multi_objects/>`. Patches are counted by rows from 0. As in the
authors' code, a box runs from the middle of its first patch to that of its last, and over whole patches where both lie
in one row or column. Where one category was asked for, `<object>` may stand alone, for the prompt then holds the
phrase. The empty reply is `None`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from visionr1.boxes import Array
from visionr1.dialects.base import find_most_alike
from visionr1.dialects.reading.tags import TagForm
from visionr1.dialects.tagged import TaggedDialect
from visionr1.samples import Task

TAGS = ("<phrase>", "</phrase>", "<object>", "</object>")
DELIMITER = "</delimiter_of_multi_objects/>"
SIDE = 32
"""Patches in a row and in a column."""
TEMPLATES: dict[Task, str] = {
    "detection": "<grounding> An image of {}",
    "grounding": "<grounding><phrase>{}</phrase>",
    "referring": "<grounding><phrase>{}</phrase>",
}
"""The model's card (microsoft/kosmos-2-patch14-224): phrase grounding, and the grounded caption, which names no
categories by itself."""

_PAIR = r"<patch_index_([0-9]{1,4})>\s*+<patch_index_([0-9]{1,4})>"
_ONE = _PAIR.replace("(", "(?:")
_BODY = re.compile(rf"\s*+{_ONE}(?:\s*+{DELIMITER}\s*+{_ONE})*+\s*+", re.ASCII)


def read_patches(pair: Sequence[int]) -> list[float]:
    """Return the box from the first to the last patch, in sides of a patch."""
    first_y, first_x = divmod(pair[0], SIDE)
    last_y, last_x = divmod(pair[1], SIDE)
    box: list[float] = _to_box(np.array([first_x, first_y, last_x, last_y])).tolist()
    return box


def _to_box(cells: NDArray[np.intp]) -> Array:
    """Return the boxes (..., 4) from first to last patches, given by column and row (..., 4)."""
    first, last = cells[..., :2], cells[..., 2:]
    is_line = (first == last).any(axis=-1, keepdims=True)
    begin = np.where(is_line, first, first + 0.5)
    end = np.where(is_line, last + 1.0, last + 0.5)
    return np.concatenate([begin, end], axis=-1)


def to_patches(patch_xyxy: Array) -> list[list[int]]:
    """Return the first and the last patch of boxes (N, 4), in sides of a patch: the pair that is read most alike."""
    # Each corner lies in a patch, and the best pair begins and ends there or in one beside it.
    steps = np.array(np.meshgrid(*[[-1, 0, 1]] * 4, indexing="ij")).reshape(4, -1).T  # (81, 4)
    cells = np.clip(np.floor(patch_xyxy).astype(int)[:, None] + steps, 0, SIDE - 1)

    # A pair that begins behind its end is read as an empty box, and never chosen.
    best = find_most_alike(_to_box(cells), patch_xyxy)
    chosen = np.take_along_axis(cells, best[:, None, None], axis=1)[:, 0]
    columns, rows = chosen[:, 0::2], chosen[:, 1::2]
    pairs: list[list[int]] = (rows * SIDE + columns).tolist()
    return pairs


def _write(pairs: Sequence[Sequence[int]]) -> str:
    """Return boxes as pairs of tokens."""
    return DELIMITER.join(f"<patch_index_{first:04d}><patch_index_{last:04d}>" for first, last in pairs)


DIALECT = TaggedDialect(
    "kosmos2",
    TEMPLATES,
    write_boxes=_write,
    form=TagForm(TAGS, _BODY, re.compile(_PAIR, re.ASCII), read_numbers=read_patches, needs_reference=False),
    span_wh=(float(SIDE), float(SIDE)),
    to_numbers=to_patches,
    reads_numbers=False,
    more_tokens=(DELIMITER, *(f"<patch_index_{index:04d}>" for index in range(SIDE * SIDE))),
)
