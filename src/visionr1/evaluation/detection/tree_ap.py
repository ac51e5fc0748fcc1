"""AP over a tree of categories, as V3Det defines it: a box that is more precise than the annotation costs nothing.

An object annotated as an ancestor ("bird") may be found as a descendant ("robin"): the truth is then copied into the
descendant's category to be ignored there, so that a box matched to it is neither right nor wrong. As V3Det's code
(V3Det/V3Det, evaluation/cocoeval_mp.py): copies only where the image has a box of that category; one box a copy; a box
of an ANCESTOR of the annotated category stays false, though the code's option is called ignore_parent_child_gts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from visionr1.data.table import BoxTable, Index

IGNORED_AREA = 1e11
"""Beyond COCO's largest area range (1e10), which makes the engine ignore a truth without taking it for a crowd."""


def with_excused(table: BoxTable, image: Index, category: Index) -> BoxTable:
    """Add the copies that D boxes (`image` and `category` (D,), positions) call for; return the table with them."""
    if not table.descendants:
        return table
    predicted_in: dict[int, set[int]] = {}
    for place, predicted in set(zip(image.tolist(), category.tolist(), strict=True)):
        predicted_in.setdefault(place, set()).add(predicted)

    # Each true box is copied into the categories below its own that its image has boxes of.
    nothing: frozenset[int] = frozenset()
    copied_rows: list[int] = []
    new_categories: list[int] = []
    for row, (place, annotated) in enumerate(zip(table.image.tolist(), table.category.tolist(), strict=True)):
        below = table.descendants.get(annotated, nothing) & predicted_in.get(place, nothing)
        copied_rows += [row] * len(below)
        new_categories += sorted(below)
    if not copied_rows:
        return table

    rows = np.array(copied_rows, dtype=np.intp)
    return replace(
        table,
        image=np.concatenate([table.image, table.image[rows]]),
        category=np.concatenate([table.category, np.array(new_categories, dtype=np.intp)]),
        xywh=np.concatenate([table.xywh, table.xywh[rows]]),
        area=np.concatenate([table.area, np.full(len(rows), IGNORED_AREA)]),
        iscrowd=np.concatenate([table.iscrowd, table.iscrowd[rows]]),
    )
