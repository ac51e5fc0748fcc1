"""Random detection problems, in COCO's own form, and the two oracles that score them."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from visionr1.data import BoxTable, read_table
from visionr1.evaluation import Detections
from visionr1.evaluation.detection.coco_results import read_detections

Problem = tuple[dict[str, Any], list[dict[str, Any]]]


def random_problem(
    seed: int, *, images: int = 6, categories: int = 3, crowd: float = 0.1, constant: bool = False, empty: bool = False
) -> Problem:
    """An annotation file and results: jittered truths, strays, ties, crowd regions, images without either."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(1, 10 * images))[:images].tolist()
    annotations, results = [], []
    for image in ids:
        for _ in range(rng.integers(0, 6)):
            box = [*rng.uniform(0, 300, 2), *rng.uniform(2, 200, 2)]
            row = {"image_id": image, "category_id": int(rng.integers(1, categories + 1)), "bbox": box}
            annotations.append(
                {**row, "area": box[2] * box[3] * rng.uniform(0.5, 1), "iscrowd": int(rng.random() < crowd)}
            )
            for _ in range(0 if empty else rng.integers(0, 3)):
                results.append(
                    {**row, "bbox": [*(box[:2] + rng.normal(0, 10, 2)), *(np.abs(box[2:] + rng.normal(0, 10, 2)))]}
                )
        for _ in range(0 if empty else rng.integers(0, 4)):
            box = [*rng.uniform(0, 300, 2), *rng.uniform(0, 200, 2)]
            results.append({"image_id": image, "category_id": int(rng.integers(1, categories + 1)), "bbox": box})
    for row in results:
        row["bbox"] = [float(side) for side in row["bbox"]]
        row["score"] = 1.0 if constant else float(rng.integers(0, 5)) / 4  # ties on purpose
    rng.shuffle(results)  # type: ignore[arg-type]
    truth = {
        "images": [{"id": image, "file_name": f"{image}.jpg", "width": 640, "height": 480} for image in ids],
        "categories": [{"id": c, "name": f"c{c}"} for c in range(1, categories + 1)],
        "annotations": [
            {"id": i, **row, "bbox": [float(v) for v in row["bbox"]]} for i, row in enumerate(annotations, 1)
        ],
    }
    return truth, results


PROBLEMS = st.builds(
    random_problem,
    st.integers(0, 10**6),
    images=st.integers(1, 8),
    categories=st.integers(1, 4),
    crowd=st.sampled_from([0.0, 0.2]),
    constant=st.booleans(),
)


def for_problems(test: Callable[[Problem], None]) -> Callable[[], None]:
    """The test of one random problem, for thirty of them."""
    return settings(max_examples=30)(given(PROBLEMS)(test))


def read_problem(problem: Problem) -> tuple[BoxTable, Detections]:
    """The table and the detections, as the readers make them of files."""
    with TemporaryDirectory() as folder:
        truth = Path(folder) / "truth.json"
        truth.write_text(json.dumps(problem[0]))
        table = read_table(truth)
    return table, read_detections(problem[1], table, Path("results.json"))[0]


def pycocotools_figures(truth: dict[str, Any], results: list[dict[str, Any]]) -> np.ndarray:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _oracle(COCO, COCOeval, truth, results)


def faster_figures(truth: dict[str, Any], results: list[dict[str, Any]]) -> np.ndarray:
    from faster_coco_eval import COCO
    from faster_coco_eval import COCOeval_faster as COCOeval

    return _oracle(COCO, COCOeval, truth, results)


def _oracle(coco: Any, evaluator: Any, truth: dict[str, Any], results: list[dict[str, Any]]) -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()):
        ground = coco()
        ground.dataset = copy.deepcopy(truth)
        ground.createIndex()
        evaluation = evaluator(ground, ground.loadRes(copy.deepcopy(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.array(evaluation.stats, dtype=np.float64)[:12]
