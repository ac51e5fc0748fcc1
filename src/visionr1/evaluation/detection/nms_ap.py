"""NMS-AP of OVDEval (Yao et al., arXiv 2308.13177): one object, one answer.

Where labels differ in a word ("red car", "blue car"), a detector that writes every label on every object gets a high
AP. So before AP, of all boxes on a true one, whatever their label, the one of highest score is kept. As the authors'
code (om-ai-lab/OVDEval, eval.py): "on" is IoU `>` 0.5; a box kept for one true box stays even if it loses at another;
boxes on no truth stay. Traps: among equal scores their code keeps the LAST box of the file, so with a constant score
the order of writing decides, and it does here too; pycocotools loses their annotation of id 0, which here counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visionr1.boxes import Array, iou_matrix, xywh_to_xyxy
from visionr1.data.table import BoxTable, Index

ON_TRUTH = 0.5


def best_on_truth(table: BoxTable, image: Index, xywh: Array, score: Array) -> NDArray[np.bool_]:
    """Mark the boxes that stay, of D with `image` (D,) positions in the table, `xywh` (D, 4) and `score` (D,)."""
    # Rows sorted by image, so that those of one image are a slice.
    true_order = np.argsort(table.image, kind="stable")
    order = np.argsort(image, kind="stable")
    sorted_true_image = table.image[true_order]
    sorted_image = image[order]

    kept = np.zeros(len(image), dtype=bool)
    lost = np.zeros(len(image), dtype=bool)
    for place in np.unique(image).tolist():
        true_rows = true_order[_find_run(place, sorted_true_image)]
        rows = order[_find_run(place, sorted_image)]
        overlaps = iou_matrix(xywh_to_xyxy(table.xywh[true_rows]), xywh_to_xyxy(xywh[rows]))
        for overlap in overlaps:
            on_truth = rows[overlap > ON_TRUTH]
            if len(on_truth):
                # Reversed, because `argmax` gives the first of equal scores and their code keeps the last.
                last_first = on_truth[::-1]
                best = last_first[score[last_first].argmax()]
                lost[on_truth] = True
                kept[best] = True
    return kept | ~lost


def _find_run(value: int, ascending: Index) -> slice:
    """Return the slice of `ascending` values that equal `value`."""
    start, stop = np.searchsorted(ascending, [value, value + 1])
    return slice(start, stop)
