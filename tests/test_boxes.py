"""Overlap and matching, against values known by hand and against brute force."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from visionr1.boxes import (
    clip_xyxy,
    giou_matrix,
    iou_matrix,
    is_box,
    match_values,
    rescale_xyxy,
    xywh_to_xyxy,
    xyxy_to_xywh,
)


@pytest.mark.parametrize(
    ("a", "b", "iou", "giou"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0, 1.0),  # identical
        ([0, 0, 10, 10], [0, 0, 10, 5], 0.5, 0.5),  # one inside the other: the hull is the union
        ([0, 0, 10, 10], [5, 5, 15, 15], 25 / 175, 25 / 175 - 50 / 225),  # a corner shared
        ([0, 0, 10, 10], [10, 0, 20, 10], 0.0, 0.0),  # touching edges
        ([0, 0, 1, 1], [9, 9, 10, 10], 0.0, -0.98),  # far apart
        ([3, 3, 3, 3], [3, 3, 3, 3], 0.0, 0.0),  # empty boxes overlap nothing
    ],
)
def test_overlap_by_hand(a: list[float], b: list[float], iou: float, giou: float) -> None:
    a_, b_ = np.array([a], dtype=float), np.array([b], dtype=float)
    assert iou_matrix(a_, b_)[0, 0] == pytest.approx(iou)
    assert giou_matrix(a_, b_)[0, 0] == pytest.approx(giou)


def test_no_boxes_give_empty_matrices() -> None:
    assert iou_matrix(np.zeros((0, 4)), np.ones((3, 4))).shape == (0, 3)
    assert match_values(np.zeros((0, 3))).shape == (0, 2)


def test_clip_and_rescale() -> None:
    box = np.array([[-5.0, 10.0, 120.0, 40.0]])
    assert clip_xyxy(box, (100, 30)).tolist() == [[0, 10, 100, 30]]
    assert rescale_xyxy(box, (100, 50), (200, 25)).tolist() == [[-10, 5, 240, 20]]


def test_both_forms_of_a_box() -> None:
    xyxy = np.array([[1.5, 2.0, 4.0, 9.0], [0, 0, 0, 0]])
    assert xyxy_to_xywh(xyxy).tolist() == [[1.5, 2, 2.5, 7], [0, 0, 0, 0]]
    assert xywh_to_xyxy(xyxy_to_xywh(xyxy)).tolist() == xyxy.tolist()
    assert xywh_to_xyxy(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2.5, 3, 4], True),
        ([4, 3, 2, 1], True),  # the order is another check's
        ([1, 2, 3], False),  # one is missing
        ((1, 2, 3, 4), False),  # JSON has no tuples
        ([1, 2, 3, True], False),
        ([1, 2, 3, float("nan")], False),
        ([1, 2, 3, float("inf")], False),
        ([1, 2, 3, 10**400], False),  # no float64
        ([1, 2, 3, "4"], False),
        (None, False),
    ],
)
def test_four_finite_numbers(value: object, expected: bool) -> None:
    assert is_box(value) is expected


@given(arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.floats(0, 1)))
def test_match_has_the_largest_total_of_all_assignments(iou: np.ndarray) -> None:
    threshold = 0.5
    value = np.where(iou >= threshold, iou, 0.0)
    pairs = match_values(value)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
    assert (iou[pairs[:, 0], pairs[:, 1]] >= threshold).all()
    rows, columns = value.shape
    if rows > columns:
        value, rows, columns = value.T, columns, rows
    best = max(
        sum(value[row, column] for row, column in enumerate(order)) for order in permutations(range(columns), rows)
    )
    assert iou[pairs[:, 0], pairs[:, 1]].sum() == pytest.approx(best)
