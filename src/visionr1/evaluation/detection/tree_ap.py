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
    """The table with the copies that D boxes (`image` and `category` (D,), positions) call for."""
    if not table.descendants:
        return table
    predicted = set(zip(image.tolist(), category.tolist(), strict=True))
    by_image: dict[int, set[int]] = {}
    for place, below in predicted:
        by_image.setdefault(place, set()).add(below)
    none: frozenset[int] = frozenset()
    copies = [
        (row, below)
        for row, (place, own) in enumerate(zip(table.image.tolist(), table.category.tolist(), strict=True))
        for below in sorted(table.descendants.get(own, none) & by_image.get(place, none))
    ]
    if not copies:
        return table
    rows, below = np.array(copies, dtype=np.intp).T
    return replace(
        table,
        image=np.concatenate([table.image, table.image[rows]]),
        category=np.concatenate([table.category, below]),
        xywh=np.concatenate([table.xywh, table.xywh[rows]]),
        area=np.concatenate([table.area, np.full(len(rows), IGNORED_AREA)]),
        iscrowd=np.concatenate([table.iscrowd, table.iscrowd[rows]]),
    )
