"""AP over V3Det's tree: equal to pycocotools with the ignored copies that its authors' code adds, and worked cases."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.detection_problems import pycocotools_figures, random_problem
from visionr1.data import read_table
from visionr1.evaluation import COCO_RESULTS, evaluate_boxes
from visionr1.evaluation.detection.coco import Detections
from visionr1.evaluation.detection.coco_results import read_detections

TREE = {1: (2, 3), 2: (3,)}
"""Category 1 is above 2 and 3, and 2 above 3, by id."""


def oracle(truth: Any, results: Any) -> np.ndarray:
    from pycocotools.cocoeval import COCOeval

    prepare = COCOeval._prepare

    def with_copies(self: Any) -> None:
        prepare(self)
        for row in [row for rows in list(self._gts.values()) for row in rows]:
            for below in TREE.get(row["category_id"], ()):
                if self._dts[row["image_id"], below]:
                    self._gts[row["image_id"], below].append({**copy.deepcopy(row), "ignore": 1})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(COCOeval, "_prepare", with_copies)
        return pycocotools_figures(truth, results)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.2]))
def test_twelve_figures_are_those_of_the_authors_procedure(
    tmp_path_factory: pytest.TempPathFactory, seed: int, crowd: float
) -> None:
    truth, results = random_problem(seed, crowd=crowd, categories=4)
    file = tmp_path_factory.mktemp("tree") / "truth.json"
    file.write_text(json.dumps(truth))
    descendants = {above - 1: frozenset(id - 1 for id in below) for above, below in TREE.items()}
    table = replace(read_table(file), descendants=descendants)
    if results and truth["annotations"]:
        detections, _ = read_detections(results, table, Path("results.json"))
        found = evaluate_boxes(table, detections, protocol=COCO_RESULTS, num_resamples=0)
        np.testing.assert_allclose(found.extras["coco"], oracle(truth, results), rtol=0, atol=1e-12)


def ap50(tmp_path: Path, true: tuple[int, ...], said: tuple[int, ...]) -> float:
    """AP50 of the boxes `said` where one object is annotated once with each category of `true`."""
    box = [10, 10, 20, 20]
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 99, "height": 99}],
        "categories": [{"id": i, "name": name} for i, name in ((1, "animal"), (2, "bird"), (3, "robin"))],
        "annotations": [{"id": i, "image_id": 1, "category_id": c, "bbox": box} for i, c in enumerate(true)],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    table = replace(read_table(tmp_path / "truth.json"), descendants={0: frozenset((1, 2)), 1: frozenset((2,))})
    places = np.zeros(len(said), dtype=np.intp)
    scores = np.linspace(1, 0.5, len(said))
    found = Detections(places, np.array(said, dtype=np.intp) - 1, np.array([box] * len(said), float), scores)
    return evaluate_boxes(table, found, protocol=COCO_RESULTS, num_resamples=0).extras["coco"][1]


def test_a_more_precise_box_costs_nothing_and_a_less_precise_one_does(tmp_path: Path) -> None:
    robin_elsewhere = {"true": (2, 3), "said": (2, 3)}
    assert ap50(tmp_path, **robin_elsewhere) == pytest.approx(1)
    assert ap50(tmp_path, true=(2,), said=(2, 3)) == pytest.approx(1)  # a robin is a bird: ignored
    assert ap50(tmp_path, true=(2, 3), said=(3, 3, 2)) == pytest.approx(1)  # the second robin meets the bird's copy
    assert ap50(tmp_path, true=(3, 1), said=(1, 1, 3)) == pytest.approx(1)  # a false animal behind the right one
    assert ap50(tmp_path, true=(3,), said=(1,)) == 0  # an animal is no robin, and no robin was found
