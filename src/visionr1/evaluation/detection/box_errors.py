"""What is wrong with the boxes: which kind of error, at which size and in which crowd, and which images are worst.

The kinds are those of TIDE (Bolya et al., 2020) on the one-to-one matching that precision and recall use. A false box
is of the first kind that fits; IoU is with the true boxes of its image, crowd regions aside:

- `duplicate`: IoU >= 0.5 with a true box of its category, which another box has.
- `wrong_label`: IoU >= 0.5 with a true box of another category.
- `loose`: IoU from 0.1 to 0.5 with a true box of its category.
- `loose_and_wrong_label`: IoU from 0.1 to 0.5 with a true box of another category.
- `background`: IoU < 0.1 with all.

A true box without a match is `missed` unless a false one stands for it (its wrong label, or a loose box of its
category). 0.5 is the protocol's `match_iou`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionr1.boxes import xyxy_to_xywh
from visionr1.data.table import BoxTable, Index, table_of
from visionr1.evaluation.detection.coco import Detections
from visionr1.evaluation.detection.matching import BoxMatching, BoxPairs, match_boxes, overlapping_pairs
from visionr1.samples import Boxes, Query, Sample, normalize_label

NEAR = 0.1
"""IoU from which a box is about an object at all."""
FALSE_KINDS = ("duplicate", "wrong_label", "loose", "loose_and_wrong_label", "background")
MEANINGS = {
    "duplicate": "a second box on an object that another box has",
    "wrong_label": "lies right, but on an object of another category",
    "loose": f"about an object of its category, but with IoU from {NEAR:g} to the matching's",
    "loose_and_wrong_label": "both: loosely on an object of another category",
    "background": f"on nothing: IoU below {NEAR:g} with every object",
    "missed": "an object without a box, not even a loose one or one of the wrong label",
}
SIZES = {"small": 32.0**2, "medium": 96.0**2, "large": np.inf}
"""COCO's: a true box by its area in the file, a false one by its own; below 32 x 32 and below 96 x 96 pixels."""
CROWDING = {"0 objects": 1, "1 to 4 objects": 5, "5 to 19 objects": 20, "20 objects or more": np.inf}
"""True boxes in the image, and the number that is too many for the name."""
NUM_WORST = 12


def box_errors(
    table: BoxTable, detections: Detections, pairs: BoxPairs, matching: BoxMatching, threshold: float
) -> dict[str, Any]:
    """Counts of errors: over all, by category, by size and by crowding, and the worst images; see the top of the file.

    `matching` is that of `threshold`, `pairs` are all overlaps from NEAR on. Rows hold `true_boxes`, `found`, `missed`
    and a count for each of FALSE_KINDS.
    """
    kinds, missed = _kinds(table, detections, pairs, matching, threshold)
    truth = ~table.iscrowd
    own_area = detections.xywh[:, 2] * detections.xywh[:, 3]
    per_image = np.bincount(table.image[truth], minlength=len(table))
    wrong = np.bincount(detections.image[kinds >= 0], minlength=len(table))
    wrong += np.bincount(table.image[truth & (matching.predicted_of_true < 0)], minlength=len(table))
    worst = np.argsort(-wrong, kind="stable")[:NUM_WORST]

    def rows(names: Sequence[str], of_true: Index, of_found: Index) -> dict[str, dict[str, int]]:
        number = len(names)
        columns = {
            "true_boxes": np.bincount(of_true[truth], minlength=number),
            "found": np.bincount(of_true[matching.predicted_of_true >= 0], minlength=number),
            "missed": np.bincount(of_true[missed], minlength=number),
            **{kind: np.bincount(of_found[kinds == index], minlength=number) for index, kind in enumerate(FALSE_KINDS)},
        }
        counted = {name: {key: int(column[i]) for key, column in columns.items()} for i, name in enumerate(names)}
        return {name: row for name, row in counted.items() if any(row.values())}

    sizes, crowds = list(SIZES.values()), list(CROWDING.values())
    every_true, every_found = np.zeros(len(truth), dtype=np.intp), np.zeros(len(kinds), dtype=np.intp)
    return {
        "all": rows(["all"], every_true, every_found).get("all", {}),
        "by_category": rows(table.categories, table.category, detections.category),
        "by_size": rows(
            list(SIZES),
            np.searchsorted(sizes, table.area, side="right"),
            np.searchsorted(sizes, own_area, side="right"),
        ),
        "by_crowding": rows(
            list(CROWDING),
            np.searchsorted(crowds, per_image[table.image], side="right"),
            np.searchsorted(crowds, per_image[detections.image], side="right"),
        ),
        "worst_images": [
            {"image_id": table.image_ids[place], "errors": int(wrong[place])} for place in worst if wrong[place]
        ],
    }


def _kinds(
    table: BoxTable, detections: Detections, pairs: BoxPairs, matching: BoxMatching, threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The kind (D,) of each false box as a place in FALSE_KINDS (-1: right or excused), and which true are missed."""
    pairs = pairs.keep((pairs.overlap >= NEAR) & (matching.true_of_predicted[pairs.predicted] < 0))
    same = detections.category[pairs.predicted] == table.category[pairs.true]
    lies = pairs.overlap >= threshold
    kinds = np.full(len(detections), FALSE_KINDS.index("background"))
    for index, fits in reversed(list(enumerate((same & lies, ~same & lies, same & ~lies, ~same & ~lies)))):
        kinds[pairs.predicted[fits]] = index
    kinds[(matching.true_of_predicted >= 0) | matching.excused] = -1
    stands = (kinds[pairs.predicted] == 1) & ~same & lies | (kinds[pairs.predicted] == 2) & same & ~lies
    missed = (matching.predicted_of_true < 0) & ~table.iscrowd
    missed[pairs.true[stands]] = False
    return kinds, missed


def image_errors(predicted: Boxes, truth: Boxes, threshold: float = 0.5) -> tuple[list[str], list[bool]]:
    """For one image, the kind of each predicted box, empty for a right one, and whether each true one is not found."""
    said, true = (tuple(map(normalize_label, boxes.labels)) for boxes in (predicted, truth))
    names = tuple(dict.fromkeys((*true, *said)))
    query = Query("detection", names or ("",))
    table = table_of([Sample("", Path(), query, Boxes(truth.xyxy, true), (1, 1))])
    category = np.array([names.index(label) for label in said], dtype=np.intp)
    xywh = xyxy_to_xywh(predicted.xyxy)
    found = Detections(np.zeros(len(said), dtype=np.intp), category, xywh, np.ones(len(said)))
    pairs = overlapping_pairs(table, found, min(NEAR, threshold))
    matching = match_boxes(table, found, pairs, threshold)
    kinds, _ = _kinds(table, found, pairs, matching, threshold)
    return ["" if kind < 0 else FALSE_KINDS[kind] for kind in kinds.tolist()], (matching.predicted_of_true < 0).tolist()
