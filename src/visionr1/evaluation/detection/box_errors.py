"""Errors of the boxes: of which kind, at which size, in which crowd, and in which images.

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
from dataclasses import dataclass
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
_DUPLICATE, _WRONG_LABEL, _LOOSE, _LOOSE_AND_WRONG_LABEL, _BACKGROUND = range(len(FALSE_KINDS))
_NO_ERROR = -1
MEANINGS = {
    "duplicate": "a second box on an object that another box has",
    "wrong_label": "lies right, but on an object of another category",
    "loose": f"about an object of its category, but with IoU from {NEAR:g} to the matching's",
    "loose_and_wrong_label": "both: loosely on an object of another category",
    "background": f"on nothing: IoU below {NEAR:g} with every object",
    "missed": "an object without a box, not even a loose one or one of the wrong label",
}
SIZES = {"small": 32.0**2, "medium": 96.0**2, "large": np.inf}
"""COCO's, by the area in square pixels that is too large for the name: of a true box as its file has it, of a false
one width x height."""
CROWDING = {"0 objects": 1, "1 to 4 objects": 5, "5 to 19 objects": 20, "20 objects or more": np.inf}
"""True boxes in the image, and the number that is too many for the name."""
NUM_WORST = 12


@dataclass(frozen=True, slots=True, eq=False)
class _Verdicts:
    """The outcome of each of D predicted boxes and of A true ones."""

    kinds: NDArray[np.int64]
    """(D,) the kind of each false box, as its place in FALSE_KINDS; _NO_ERROR for a right or an excused one."""
    counts: NDArray[np.bool_]
    """(A,) true boxes, crowd regions left out."""
    matched: NDArray[np.bool_]
    """(A,) true boxes that a predicted one has."""
    missed: NDArray[np.bool_]
    """(A,) true boxes that no predicted one has, nor a false one stands for."""


def box_errors(
    table: BoxTable, detections: Detections, pairs: BoxPairs, matching: BoxMatching, threshold: float
) -> dict[str, Any]:
    """Count errors over all, by category, by size and by crowding, and name the worst images; see the top of the file.

    `matching` is that of `threshold`, `pairs` are all overlaps from NEAR on. Rows hold `true_boxes`, `found`, `missed`
    and a count for each of FALSE_KINDS.
    """
    verdicts = _judge_boxes(table, detections, pairs, matching, threshold)

    # The group of each true and of each predicted box, by size and by the number of true boxes in its image.
    all_true = np.zeros(len(table.image), dtype=np.intp)
    all_predicted = np.zeros(len(detections), dtype=np.intp)
    areas = list(SIZES.values())
    predicted_area = detections.xywh[:, 2] * detections.xywh[:, 3]
    crowds = list(CROWDING.values())
    num_true_in_image = np.bincount(table.image[verdicts.counts], minlength=len(table))
    crowding = np.searchsorted(crowds, num_true_in_image, side="right")
    return {
        "all": _count_by_group(["all"], all_true, all_predicted, verdicts).get("all", {}),
        "by_category": _count_by_group(table.categories, table.category, detections.category, verdicts),
        "by_size": _count_by_group(
            list(SIZES),
            np.searchsorted(areas, table.area, side="right"),
            np.searchsorted(areas, predicted_area, side="right"),
            verdicts,
        ),
        "by_crowding": _count_by_group(list(CROWDING), crowding[table.image], crowding[detections.image], verdicts),
        "worst_images": _list_worst_images(table, detections, verdicts),
    }


def _judge_boxes(
    table: BoxTable, detections: Detections, pairs: BoxPairs, matching: BoxMatching, threshold: float
) -> _Verdicts:
    """Find the kind of each false box, and the true boxes that are missed."""
    # Only pairs of a box without a match, on or near the true one.
    has_match = matching.true_of_predicted >= 0
    pairs = pairs.keep((pairs.overlap >= NEAR) & ~has_match[pairs.predicted])
    same_label = detections.category[pairs.predicted] == table.category[pairs.true]
    on_truth = pairs.overlap >= threshold

    # From the last kind to the first, so that the first one that fits stays.
    kinds = np.full(len(detections), _BACKGROUND)
    kinds[pairs.predicted[~same_label & ~on_truth]] = _LOOSE_AND_WRONG_LABEL
    kinds[pairs.predicted[same_label & ~on_truth]] = _LOOSE
    kinds[pairs.predicted[~same_label & on_truth]] = _WRONG_LABEL
    kinds[pairs.predicted[same_label & on_truth]] = _DUPLICATE
    kinds[has_match | matching.excused] = _NO_ERROR

    # A false box stands for a true one that it lies on with a wrong label, or about with the right one.
    kind_of_pair = kinds[pairs.predicted]
    misnames = (kind_of_pair == _WRONG_LABEL) & ~same_label & on_truth
    is_loose = (kind_of_pair == _LOOSE) & same_label & ~on_truth
    counts = ~table.iscrowd
    matched = matching.predicted_of_true >= 0
    missed = counts & ~matched
    missed[pairs.true[misnames | is_loose]] = False
    return _Verdicts(kinds, counts, matched, missed)


def _count_by_group(
    names: Sequence[str], group_of_true: Index, group_of_predicted: Index, verdicts: _Verdicts
) -> dict[str, dict[str, int]]:
    """Count boxes and errors in each named group; a group without any is left out.

    `group_of_true` (A,) and `group_of_predicted` (D,) are places in `names`.
    """

    def count(groups: Index) -> list[int]:
        # An area that overflows is larger than the largest, and so of no group.
        numbers: list[int] = np.bincount(groups, minlength=len(names))[: len(names)].tolist()
        return numbers

    columns = {
        "true_boxes": count(group_of_true[verdicts.counts]),
        "found": count(group_of_true[verdicts.matched]),
        "missed": count(group_of_true[verdicts.missed]),
    }
    for place, kind in enumerate(FALSE_KINDS):
        columns[kind] = count(group_of_predicted[verdicts.kinds == place])

    rows = {}
    for name, *numbers in zip(names, *columns.values(), strict=True):
        if any(numbers):
            rows[name] = dict(zip(columns, numbers, strict=True))
    return rows


def _list_worst_images(table: BoxTable, detections: Detections, verdicts: _Verdicts) -> list[dict[str, Any]]:
    """List the images with most errors: false boxes, and true ones without a match."""
    num_errors = np.bincount(detections.image[verdicts.kinds != _NO_ERROR], minlength=len(table))
    num_errors += np.bincount(table.image[verdicts.counts & ~verdicts.matched], minlength=len(table))

    worst = []
    for place in np.argsort(-num_errors, kind="stable")[:NUM_WORST].tolist():
        if num_errors[place]:
            worst.append({"image_id": table.image_ids[place], "errors": int(num_errors[place])})
    return worst


def image_errors(predicted: Boxes, truth: Boxes, threshold: float = 0.5) -> tuple[list[str], list[bool]]:
    """Return for one image the kind of each predicted box, empty for a right one, and whether no box has a true one."""
    true_labels = tuple(map(normalize_label, truth.labels))
    predicted_labels = tuple(map(normalize_label, predicted.labels))
    names = tuple(dict.fromkeys((*true_labels, *predicted_labels)))

    # A table of this one image; a query needs a category even where there is no box.
    query = Query("detection", names or ("",))
    table = table_of([Sample("", Path(), query, Boxes(truth.xyxy, true_labels), (1, 1))])
    num_predicted = len(predicted_labels)
    detections = Detections(
        image=np.zeros(num_predicted, dtype=np.intp),
        category=np.array([names.index(label) for label in predicted_labels], dtype=np.intp),
        xywh=xyxy_to_xywh(predicted.xyxy),
        score=np.ones(num_predicted),
    )
    pairs = overlapping_pairs(table, detections, min(NEAR, threshold))
    matching = match_boxes(table, detections, pairs, threshold)
    verdicts = _judge_boxes(table, detections, pairs, matching, threshold)

    kinds = []
    for kind in verdicts.kinds.tolist():
        kinds.append("" if kind == _NO_ERROR else FALSE_KINDS[kind])
    return kinds, (~verdicts.matched).tolist()
