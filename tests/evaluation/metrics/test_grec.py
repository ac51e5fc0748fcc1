"""Generalised referring: worked cases of Pr@(F1=1), N-acc and T-acc, GIoU as the authors have it, and their loop."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from visionr1.boxes import giou_matrix, iou_matrix
from visionr1.evaluation import PredictionFiles, Result, evaluate, read_protocol
from visionr1.evaluation.metrics.grec import count_matched
from visionr1.evaluation.protocols import EXPRESSION_PROTOCOLS, GREC_DEFAULT
from visionr1.samples import Boxes, Query, Sample

A, B, FAR = [0, 0, 20, 10], [40, 40, 60, 60], [80, 80, 90, 90]


def scored(tmp_path: Path, truths: list[list[Any]], said: list[list[Any]], *protocol: str) -> Result:
    """The result where sample i has the boxes `truths[i]` and gets `said[i]`: xyxy, with a score as a fifth number."""
    image = Image.new("RGB", (1, 1))
    samples = [
        Sample(str(i), image, Query("referring", ("it",)), Boxes.of(own, ["it"] * len(own)), (100, 100), i)
        for i, own in enumerate(truths)
    ]
    rows = [
        {"sample_id": str(i), "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]], "score": b[4] if len(b) > 4 else 1.0}
        for i, own in enumerate(said)
        for b in own
    ]
    (tmp_path / "said.json").write_text(json.dumps(rows))
    stated = read_protocol(protocol, GREC_DEFAULT, EXPRESSION_PROTOCOLS)
    files = PredictionFiles([tmp_path / "said.json"])
    return evaluate(samples, files, metric="grec", protocol=stated, num_resamples=0).result


CASES: list[tuple[list[Any], list[Any], float]] = [
    ([A, B], [B, A], 1.0),
    ([A, B], [A], 0.0),  # a miss
    ([A], [A, FAR], 0.0),  # a false one
    ([A], [A, A], 0.0),  # a duplicate is a false one
    ([A], [[0, 0, 10, 10]], 1.0),  # an IoU of just 0.5
    ([A], [[0, 0, 9.9, 10]], 0.0),
    ([A], [], 0.0),
    ([], [], 1.0),  # no target, and nothing said
    ([], [A], 0.0),
    ([A], [A, [*FAR, 0.69]], 1.0),  # below the score of 0.7
    ([A], [A, [*FAR, 0.7]], 0.0),
]


@pytest.mark.parametrize(("truth", "said", "expected"), CASES)
def test_precision_at_f1_of_one(tmp_path: Path, truth: list[Any], said: list[Any], expected: float) -> None:
    assert scored(tmp_path, [truth], [said]).metrics["Pr@(F1=1)"] == expected


def test_all_three_of_a_worked_set(tmp_path: Path) -> None:
    truths = [[A], [A, B], [B], [], [], [], []]
    said = [[A], [A], [], [], [], [], [FAR]]
    result = scored(tmp_path, truths, said)
    assert result.metrics == pytest.approx({"Pr@(F1=1)": 4 / 7, "N-acc": 3 / 4, "T-acc": 2 / 3})
    assert result.counts["true_boxes"] == 4 and "boxes of score 0.7 or more" in result.protocol.line()


def test_what_nothing_is_counted_for_is_left_out(tmp_path: Path) -> None:
    assert set(scored(tmp_path, [[A]], [[A]]).metrics) == {"Pr@(F1=1)", "T-acc"}
    assert set(scored(tmp_path, [[]], [[]]).metrics) == {"Pr@(F1=1)", "N-acc"}


def test_giou_is_stricter_where_boxes_are_shifted(tmp_path: Path) -> None:
    shifted = [5, 1, 25, 11]  # IoU 135 / 265 = .509; the hull is 25 x 11, so GIoU .509 - 10 / 275 = .473
    found = [
        scored(tmp_path, [[A]], [[shifted]], *p).metrics["Pr@(F1=1)"] for p in ([], ["grec_giou"], ["overlap=giou"])
    ]
    assert found == [1.0, 0.0, 0.0]
    assert iou_matrix(np.array([A], float), np.array([shifted], float))[0, 0] == pytest.approx(135 / 265)


def as_the_authors(overlap: np.ndarray) -> int:
    """Their loop: take the largest, set its row and column to 0, until it is below 0.5."""
    overlap, matched = overlap.copy(), 0
    for _ in range(min(overlap.shape)):
        top = int(overlap.argmax())
        if overlap.flat[top] < 0.5:
            break
        row, column = divmod(top, overlap.shape[1])
        matched += 1
        overlap[row, :] = 0.0
        overlap[:, column] = 0.0
    return matched


coordinate = st.integers(0, 12)
boxes = st.lists(st.tuples(coordinate, coordinate, st.integers(1, 9), st.integers(1, 9)), max_size=5)


@settings(max_examples=100, deadline=None)
@given(boxes, boxes)
def test_matching_is_the_authors_loop(found: list[Any], true: list[Any]) -> None:
    a, b = (np.array([[x, y, x + w, y + h] for x, y, w, h in own], float).reshape(-1, 4) for own in (found, true))
    assert count_matched(iou_matrix(a, b), GREC_DEFAULT) == as_the_authors(iou_matrix(a, b))
    assert count_matched(giou_matrix(a, b), EXPRESSION_PROTOCOLS["grec_giou"]) == as_the_authors(giou_matrix(a, b))
