"""NMS-AP of OVDEval, against its definition written out in loops and scored by pycocotools."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.detection_problems import pycocotools_figures, random_problem
from support.evaluating import evaluate_file
from visionr1.data import BoxTable, read_table
from visionr1.evaluation.detection.nms_ap import best_on_truth

Rows = list[dict[str, Any]]


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared) if shared else 0.0


def as_the_authors(truths: Rows, results: Rows) -> Rows:
    """For each image and each truth: of the boxes over IoU 0.5 keep the best, the last of equals; delete the others."""
    left = []
    for image in {row["image_id"] for row in results}:
        boxes = [row for row in results if row["image_id"] == image]
        keep, remove = set(), set()
        for truth in (row for row in truths if row["image_id"] == image):
            on = [i for i, row in enumerate(boxes) if iou(truth["bbox"], row["bbox"]) > 0.5]
            if on:
                best = max(on, key=lambda i: (boxes[i]["score"], i))
                keep.add(best)
                remove |= set(on) - {best}
        left += [row for i, row in enumerate(boxes) if i not in remove - keep]
    return left


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_twelve_figures_are_those_of_the_authors_procedure(
    tmp_path_factory: pytest.TempPathFactory, seed: int, constant: bool
) -> None:
    truth, results = random_problem(seed, crowd=0, categories=4, constant=constant)
    folder = tmp_path_factory.mktemp("nms")
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    protocol = ["coco_results", "suppression=truth"]
    found = evaluate_file(folder / "results.json", folder / "truth.json", protocol=protocol, num_resamples=0)
    left = as_the_authors(truth["annotations"], results)
    if left and truth["annotations"]:
        np.testing.assert_allclose(found.extras["coco"], pycocotools_figures(truth, left), rtol=0, atol=1e-12)
    assert "NMS-AP" in found.protocol.line()


def table(folder: Path, *boxes: list[float]) -> BoxTable:
    annotations = [{"id": i, "image_id": 0, "category_id": 0, "bbox": box} for i, box in enumerate(boxes)]
    content = {
        "images": [{"id": 0, "file_name": "0.jpg", "width": 100, "height": 100}],
        "categories": [{"id": 0, "name": "a red car"}, {"id": 1, "name": "a blue car"}],
        "annotations": annotations,
    }
    (folder / "truth.json").write_text(json.dumps(content))
    return read_table(folder / "truth.json")


TRUE, FAR = [0, 0, 10, 10], [50, 50, 10, 10]
CASES = [
    ([[0, 0, 10, 10], [0, 0, 10, 9]], [0.5, 0.9], [False, True]),  # the better score stays, not the better box
    ([[0, 0, 10, 10], [0, 0, 10, 9]], [0.9, 0.9], [False, True]),  # of equals the last
    ([[0, 0, 10, 10], [0, 0, 10, 5]], [0.5, 0.9], [True, True]),  # IoU of just 0.5 is not on the truth
    ([[0, 0, 10, 10], FAR], [0.5, 0.9], [True, True]),  # on no truth
]


@pytest.mark.parametrize(("boxes", "scores", "stay"), CASES)
def test_what_stays(tmp_path: Path, boxes: list[list[float]], scores: list[float], stay: list[bool]) -> None:
    image = np.zeros(len(boxes), dtype=np.intp)
    assert best_on_truth(table(tmp_path, TRUE), image, np.array(boxes, float), np.array(scores)).tolist() == stay


def test_the_best_at_one_truth_stays_although_it_loses_at_another(tmp_path: Path) -> None:
    truths = table(tmp_path, [0, 0, 10, 10], [0, 3, 10, 10])
    boxes = np.array([[0, -1, 10, 10], [0, 1.5, 10, 10]], float)  # the second is on both, the first on the first only
    kept = best_on_truth(truths, np.zeros(2, dtype=np.intp), boxes, np.array([0.9, 0.5]))
    assert kept.tolist() == [True, True]
