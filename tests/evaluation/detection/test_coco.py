"""The twelve figures equal pycocotools' and faster-coco-eval's, on the real sets and on random problems."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.detection_problems import (
    Problem,
    faster_figures,
    for_problems,
    pycocotools_figures,
    random_problem,
    read_problem,
)
from visionr1.assets import embedded_path
from visionr1.data import read_table
from visionr1.evaluation import COCO_RESULTS, Protocol
from visionr1.evaluation.detection.coco import Detections, coco_figures

SHARED = Path(__file__).parents[4] / "shared/data"
SETS = [
    embedded_path("bccd"),
    *(path for path in sorted(SHARED.glob("*")) if (path / "valid").is_dir() and path.name != "BCCD"),
]


def figures(truth: dict[str, Any], results: list[dict[str, Any]], protocol: Protocol = COCO_RESULTS) -> np.ndarray:
    return np.array(coco_figures(*read_problem((truth, results)), protocol)[0])


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.name)
def test_real_sets_equal_both_oracles(path: Path) -> None:
    truth = json.loads((path / "valid/annotations_without_background.json").read_text())
    rng = np.random.default_rng(0)
    results = []
    for row in truth["annotations"]:
        for _ in range(rng.integers(0, 3)):
            x, y, width, height = row["bbox"]
            box = np.array([x + 0.1 * width * rng.normal(), y + 0.1 * height * rng.normal(), width, height])
            category = row["category_id"] if rng.random() < 0.8 else truth["categories"][0]["id"]
            found = {"image_id": row["image_id"], "category_id": category, "bbox": box.tolist()}
            results.append({**found, "score": float(rng.integers(1, 9)) / 8})
    mine = figures(truth, results)
    assert mine[0] > 0.1  # the problem is neither trivial nor hopeless
    np.testing.assert_allclose(mine, pycocotools_figures(truth, results), rtol=0, atol=1e-12)
    np.testing.assert_allclose(mine, faster_figures(truth, results), rtol=0, atol=1e-12)


@for_problems
def test_random_problems_equal_both_oracles(problem: Problem) -> None:
    truth, results = problem
    if not results or not truth["annotations"]:
        return
    mine = figures(truth, results)
    np.testing.assert_allclose(mine, pycocotools_figures(truth, results), rtol=0, atol=1e-12)
    np.testing.assert_allclose(mine, faster_figures(truth, results), rtol=0, atol=1e-12)


def test_annotation_id_0_is_a_truth_like_any_other() -> None:
    truth, _ = random_problem(1, crowd=0)
    perfect = [
        {k: row[k] for k in ("image_id", "category_id", "bbox")} | {"score": 1.0} for row in truth["annotations"]
    ]
    for number, row in enumerate(truth["annotations"]):
        row["id"] = number
    assert pycocotools_figures(truth, perfect)[0] < 0.99  # what the others make of id 0
    assert figures(truth, perfect)[0] == pytest.approx(1)


@for_problems
def test_ids_as_strings_and_repeated_annotation_ids_change_nothing(problem: Problem) -> None:
    truth, results = problem
    plain = figures(truth, results)
    for number, row in enumerate(truth["annotations"]):
        row["image_id"], row["id"] = str(row["image_id"]), number % 2
    for row in results:
        row["category_id"] = str(row["category_id"])
    np.testing.assert_array_equal(figures(truth, results), plain)


@for_problems
def test_missing_area_and_iscrowd_are_box_area_and_0(problem: Problem) -> None:
    truth, results = problem
    for row in truth["annotations"]:
        row["area"], row["iscrowd"] = row["bbox"][2] * row["bbox"][3], 0
    stated = figures(truth, results)
    for row in truth["annotations"]:
        del row["area"], row["iscrowd"]
    np.testing.assert_array_equal(figures(truth, results), stated)


@for_problems
def test_no_predictions_score_0_and_no_truth_minus_1(problem: Problem) -> None:
    truth, results = problem
    assert figures(truth, [])[0] == (0 if any(not row["iscrowd"] for row in truth["annotations"]) else -1)
    assert figures({**truth, "annotations": []}, results)[0] == -1


@for_problems
def test_a_category_absent_from_the_split_leaves_the_mean(problem: Problem) -> None:
    truth, results = problem
    before = figures(truth, results)
    truth["categories"].append({"id": 9, "name": "absent"})
    stray = {"image_id": truth["images"][0]["id"], "category_id": 9, "bbox": [0.0, 0.0, 9.0, 9.0], "score": 1.0}
    np.testing.assert_array_equal(figures(truth, [*results, stray]), before)


def test_max_dets_beyond_100_hold_for_every_figure() -> None:
    box = {"image_id": 1, "category_id": 1, "bbox": [10.0, 10.0, 50.0, 50.0]}
    truth = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 99, "height": 99}],
        "categories": [{"id": 1, "name": "c"}],
        "annotations": [{"id": 1, **box}],
    }
    strays = [{**box, "bbox": [80.0, 80.0, 5.0, 5.0], "score": 0.9}] * 150
    protocol = Protocol(name="test", scores="file", max_dets=(100, 300, 1000))
    wide = figures(truth, [*strays, {**box, "score": 0.5}], protocol)
    assert wide[:3] == pytest.approx([1 / 151] * 3)
    assert figures(truth, [*strays, {**box, "score": 0.5}])[0] == 0


def test_order_decides_ties() -> None:
    rows = [{"id": i, "file_name": f"{i}.jpg", "width": 99, "height": 99} for i in (2, 1)]
    truth = {
        "images": rows,
        "categories": [{"id": 1, "name": "c"}],
        "annotations": [{"id": 1, "image_id": 2, "category_id": 1, "bbox": [0, 0, 9, 9]}],
    }
    results = [{"image_id": i, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 1} for i in (1, 2)]
    by_file = Protocol(name="test", scores="file", order="file")
    assert figures(truth, results, by_file)[0] == pytest.approx(1)  # image 2 stands first in the file
    assert figures(truth, results)[0] == pytest.approx(0.5)  # image 1 by id


def test_nan_is_refused(tmp_path: Path) -> None:
    truth, _ = random_problem(6)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    zero = np.zeros(1, dtype=np.intp)
    with pytest.raises(ValueError, match="finite"):
        coco_figures(
            read_table(tmp_path / "truth.json"),
            Detections(zero, zero, np.full((1, 4), np.nan), np.ones(1)),
            COCO_RESULTS,
        )
