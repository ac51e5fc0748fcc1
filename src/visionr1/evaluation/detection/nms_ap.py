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
    """Which of D boxes (`image` (D,) positions in the table, `xywh` (D, 4), `score` (D,)) stay."""
    kept, lost = np.zeros((2, len(image)), dtype=bool)
    true_order, order = np.argsort(table.image, kind="stable"), np.argsort(image, kind="stable")
    for place in np.unique(image).tolist():
        rows = order[slice(*np.searchsorted(image[order], [place, place + 1]))]
        truths = true_order[slice(*np.searchsorted(table.image[true_order], [place, place + 1]))]
        for overlap in iou_matrix(xywh_to_xyxy(table.xywh[truths]), xywh_to_xyxy(xywh[rows])):
            on = rows[overlap > ON_TRUTH]
            if len(on):
                best = on[::-1][score[on[::-1]].argmax()]  # the last of those with the highest score
                lost[on] = True
                kept[best] = True
    return kept | ~lost
