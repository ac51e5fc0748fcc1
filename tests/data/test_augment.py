"""Random views: the boxes stay on what they name, and a view depends on its random numbers alone."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from visionr1.data.augment import MIN_SIDE, augment_sample
from visionr1.samples import Boxes, Query, Sample

BOX = [60, 30, 110, 90]


def sample_of(boxes: Boxes, categories: tuple[str, ...] = ("white",)) -> Sample:
    """White boxes on a black image."""
    image = Image.new("RGB", (200, 160))
    for x1, y1, x2, y2 in boxes.xyxy.astype(int).tolist():
        ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), fill="white")
    return Sample("one", image, Query("detection", categories), boxes, (200, 160))


def view(sample: Sample, seed: int) -> Sample:
    return augment_sample(sample, sample.load_image(), np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(60))
def test_a_box_encloses_what_it_enclosed_before(seed: int) -> None:
    shown = view(sample_of(Boxes.of([BOX], ["white"])), seed)
    rows, columns = np.nonzero(np.asarray(shown.load_image()).mean(axis=2) > 127)
    if len(shown.truth):  # the crop may have left too little of it
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert shown.truth.xyxy.tolist() == [seen]
    assert shown.size_wh == shown.load_image().size


def test_a_view_depends_on_its_random_numbers_alone() -> None:
    sample = sample_of(Boxes.of([BOX], ["white"]))
    first, again, other = view(sample, 7), view(sample, 7), view(sample, 8)
    assert (first.truth, first.query, first.size_wh) == (again.truth, again.query, again.size_wh)
    assert first.load_image().tobytes() == again.load_image().tobytes() != other.load_image().tobytes()


def test_only_the_categories_asked_for_have_boxes_and_sometimes_not_all_are_asked_for() -> None:
    boxes = Boxes.of([BOX, [0, 0, 150, 150], [100, 90, 190, 150]], ["a", "b", "c"])
    shown = [view(sample_of(boxes, ("a", "b", "c")), seed) for seed in range(100)]
    for one in shown:
        assert set(one.truth.labels) <= set(one.query.categories) <= {"a", "b", "c"}
    fewer = sum(len(one.query.categories) < 3 for one in shown)
    assert 2 <= fewer <= 30  # a fifth of the views, of which a third still asks for all


def test_a_box_that_a_crop_leaves_too_little_of_is_not_asked_for() -> None:
    at_the_edge = Boxes.of([[0, 0, 8, 8]], ["white"])
    shown = [view(sample_of(at_the_edge), seed).truth for seed in range(60)]
    assert {len(boxes) for boxes in shown} == {0, 1}
    for boxes in shown:
        assert ((boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]) >= MIN_SIDE).all()


def test_a_referring_query_is_never_changed() -> None:
    sample = sample_of(Boxes.of([BOX], ["the white box"]))
    sample = Sample("one", sample.image, Query("referring", ("the white box",)), sample.truth, sample.size_wh)
    assert {view(sample, seed).query for seed in range(40)} == {sample.query}
