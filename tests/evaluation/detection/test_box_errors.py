"""Matching of a whole set at once, and each kind of error by size, crowding and category."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from support.detection_problems import Problem, for_problems, random_problem, read_problem
from visionr1.boxes import iou_matrix
from visionr1.data import table_of
from visionr1.evaluation import COCO_RESULTS, Detections, Result, evaluate_boxes
from visionr1.evaluation.detection import matching
from visionr1.evaluation.detection.box_errors import FALSE_KINDS, MEANINGS
from visionr1.evaluation.detection.matching import match_boxes, overlapping_pairs
from visionr1.samples import Boxes, Query, Sample


def xyxy(xywh: np.ndarray) -> np.ndarray:
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


@for_problems
def test_the_matching_is_that_of_an_assignment_image_by_image(problem: Problem) -> None:
    table, found = read_problem(problem)
    mine = match_boxes(table, found, overlapping_pairs(table, found, 0.1), 0.3)
    total, number = 0.0, 0
    for image in range(len(table)):
        rows, truths = np.flatnonzero(found.image == image), np.flatnonzero((table.image == image) & ~table.iscrowd)
        iou = iou_matrix(xyxy(found.xywh[rows]), xyxy(table.xywh[truths]))
        iou[(iou < 0.3) | (found.category[rows][:, None] != table.category[truths])] = 0
        row, column = linear_sum_assignment(iou, maximize=True)
        total, number = total + iou[row, column].sum(), number + int((iou[row, column] > 0).sum())
    matched = np.flatnonzero(mine.true_of_predicted >= 0)
    own = [
        iou_matrix(xyxy(found.xywh[[d]]), xyxy(table.xywh[[mine.true_of_predicted[d]]]))[0, 0] for d in matched.tolist()
    ]
    assert sum(own) == pytest.approx(total, abs=1e-9)
    assert len(matched) == number or sum(own) == pytest.approx(total)  # equal totals may differ in number
    assert all(mine.predicted_of_true[mine.true_of_predicted[d]] == d for d in matched.tolist())


def test_pairs_do_not_depend_on_how_many_are_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    table, found = read_problem(random_problem(3, images=8))
    whole = overlapping_pairs(table, found, 0.1)
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", 3)
    parts = overlapping_pairs(table, found, 0.1)
    assert len(whole.predicted) > 10
    for name in ("predicted", "true", "overlap"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def evaluate(truths: list[tuple[str, list[float]]], *said: tuple[str, list[float]], crowd: int = -1) -> Result:
    """One image of 500 x 500 with categories cat and dog."""
    boxes = Boxes.of([box for _, box in truths], [label for label, _ in truths])
    table = table_of([Sample("a", Path("none.jpg"), Query("detection", ("cat", "dog")), boxes, (500, 500), 7)])
    table.iscrowd[crowd : crowd + 1 or None] = crowd >= 0
    xywh = np.array([[x1, y1, x2 - x1, y2 - y1] for _, (x1, y1, x2, y2) in said], dtype=np.float64).reshape(-1, 4)
    labels = np.array([("cat", "dog").index(label) for label, _ in said], dtype=np.intp)
    found = Detections(np.zeros(len(said), dtype=np.intp), labels, xywh, np.ones(len(said)))
    return evaluate_boxes(table, found, protocol=COCO_RESULTS, num_resamples=0)


CAT = ("cat", [0.0, 0, 20, 20])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([CAT], {}),
        ([], {"missed": 1}),
        ([CAT, ("cat", [0, 0, 20, 19])], {"duplicate": 1}),
        ([("dog", [0, 0, 20, 20])], {"wrong_label": 1}),  # the cat is not missed: a box stands for it
        ([("cat", [0, 0, 20, 9])], {"loose": 1}),  # IoU .45
        ([("cat", [0, 0, 20, 10])], {}),  # IoU .5 is right
        ([("dog", [0, 0, 20, 9])], {"loose_and_wrong_label": 1, "missed": 1}),
        ([("cat", [15, 15, 35, 35])], {"background": 1, "missed": 1}),  # IoU below .1
        ([("cat", [300, 300, 320, 320])], {"background": 1, "missed": 1}),
        ([CAT, ("dog", [0, 0, 20, 20])], {"wrong_label": 1}),  # on an object that is found
        ([CAT, CAT, CAT], {"duplicate": 2}),
    ],
)
def test_each_kind(said: list[tuple[str, list[float]]], expected: dict[str, int]) -> None:
    result = evaluate([CAT], *said)
    row = result.extras["errors"]["all"]
    assert {kind: row[kind] for kind in ("missed", *FALSE_KINDS) if row[kind]} == expected
    assert row["true_boxes"] == 1 and row["found"] == (result.metrics["recall"] == 1)
    false = sum(row[kind] for kind in FALSE_KINDS)
    assert false == result.counts["predicted_boxes"] - row["found"]
    assert result.extras["errors"]["worst_images"] == (
        [{"image_id": 7, "errors": false + 1 - row["found"]}] if false + 1 - row["found"] else []
    )


def test_crowd_regions_are_no_truth_and_excuse() -> None:
    crowd = ("cat", [0.0, 0, 100, 100])
    result = evaluate([crowd, ("dog", [200, 200, 240, 240])], ("cat", [10, 10, 30, 30]), crowd=0)
    assert result.extras["errors"]["all"] == {"true_boxes": 1, "found": 0, "missed": 1, **dict.fromkeys(FALSE_KINDS, 0)}
    other = evaluate([crowd, ("dog", [200, 200, 240, 240])], ("dog", [10, 10, 30, 30]), crowd=0)
    assert other.extras["errors"]["all"]["background"] == 1  # a crowd excuses its own category


def test_rows_by_size_category_and_crowding_add_up() -> None:
    truths = [CAT, ("dog", [100.0, 100, 150, 150]), ("cat", [200.0, 200, 400, 400])]
    result = evaluate(truths, CAT, ("cat", [100, 100, 150, 150]), ("dog", [0, 0, 500, 500]))
    errors = result.extras["errors"]
    assert {name: row["true_boxes"] for name, row in errors["by_size"].items()} == {"small": 1, "medium": 1, "large": 1}
    assert errors["by_size"]["medium"]["wrong_label"] == 1  # a false box by its own area
    assert list(errors["by_crowding"]) == ["1 to 4 objects"]
    assert errors["by_category"]["dog"]["loose_and_wrong_label"] == 1  # IoU .16 with the large cat
    for group in ("by_size", "by_category", "by_crowding"):
        for key, total in errors["all"].items():
            assert sum(row[key] for row in errors[group].values()) == total
    assert set(MEANINGS) == {"missed", *FALSE_KINDS}


def test_errors_survive_json_and_old_results_have_none() -> None:
    result = evaluate([CAT], ("dog", [0, 0, 20, 20]))
    record = json.loads(json.dumps(result.to_json()))
    assert Result.from_json(record).extras["errors"] == result.extras["errors"]
    del record["errors"]
    assert Result.from_json(record).extras.get("errors") is None
