"""Boxes around segmentations, and around boxes that were turned."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionr1.data.segmentation import rotated_box, segmentation_box


def run_lengths(mask: np.ndarray[Any, Any]) -> list[int]:
    """Return the run lengths of a mask (H, W), column by column, beginning with a run of zeros."""
    counts = [0]
    value = 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def test_the_box_around_polygons() -> None:
    assert segmentation_box([[10, 10, 60, 10, 60, 50, 10, 50]]) == [10, 10, 50, 40]
    assert segmentation_box([10, 10, 60, 10, 60, 50, 10, 50]) == [10, 10, 50, 40]  # a list too few, as tools write it
    assert segmentation_box([[1, 2, 3, 2, 3, 4], [10.5, 0, 11, 0, 11, 9]]) == [1, 0, 10, 9]


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_the_box_around_a_mask(height: int, width: int, data: st.DataObject) -> None:
    bits = data.draw(st.lists(st.integers(0, 1), min_size=height * width, max_size=height * width))
    mask = np.array(bits).reshape(height, width)
    box = segmentation_box({"size": [height, width], "counts": run_lengths(mask)})
    rows, columns = np.nonzero(mask)
    if not len(rows):
        assert box is None
        return

    # A run over several columns is taken for whole columns, as pycocotools takes it.
    assert box is not None
    assert box[0] == columns.min() and box[2] == columns.max() - columns.min() + 1
    assert box[1] <= rows.min() and box[1] + box[3] >= rows.max() + 1


def test_text_is_pycocotools_code() -> None:
    masks = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(0)
    for density in (0.02, 0.1, 0.5, 0.95):
        for _ in range(50):
            mask = (random.random(random.integers(1, 40, size=2)) < density).astype(np.uint8)
            encoded = masks.encode(np.asfortranarray(mask))
            box = segmentation_box({"size": list(mask.shape), "counts": encoded["counts"].decode()})
            assert (box or [0, 0, 0, 0]) == masks.toBbox(encoded).tolist()


NOTHING = [
    None,
    [],
    {},
    "text",
    [[]],
    [[1, 2, 3, 4]],  # two points
    [[1, 2, 3, 4, 5, 6, 7]],
    [["1", 2, 3, 4, 5, 6]],
    [[1, 2, 3, 4, 5, float("nan")]],
    [[1, 2, 3, 4, 5, 10**400]],
    {"size": [4, 4], "counts": []},
    {"size": [4, 4], "counts": [16]},
    {"size": [4, 4], "counts": [0, 17]},  # beyond the image
    {"size": [4, 4], "counts": [2, -1]},
    {"size": [4, 4], "counts": [2, "1"]},
    {"size": [4], "counts": [1, 1]},
    {"size": [0, 0], "counts": [0, 0]},
    {"size": [10**400, 4], "counts": [1, 1]},
    {"size": [4, 4], "counts": "\x00\ud800é"},
    {"size": [4, 4], "counts": "o" * 100},  # a number without end
    {"size": [4, 4]},
]


@pytest.mark.parametrize("segmentation", NOTHING)
def test_what_covers_nothing_has_no_box(segmentation: Any) -> None:
    assert segmentation_box(segmentation) is None


@given(st.text(max_size=30))
def test_no_text_raises(counts: str) -> None:
    segmentation_box({"size": [50, 50], "counts": counts})


def test_turned_boxes_are_enclosed() -> None:
    assert rotated_box([20, 30, 60, 20], 90) == [40, 10, 20, 60]
    assert rotated_box([20, 30, 60, 20], 270) == [40, 10, 20, 60]
    assert rotated_box([0, 0, 10, 10], 45) == pytest.approx([-2.071068, -2.071068, 14.142136, 14.142136])
    assert rotated_box([1, 2, 3, 4], 180) == pytest.approx([1, 2, 3, 4])
