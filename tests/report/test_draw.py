import numpy as np
import pytest
from PIL import Image

from visionr1.report.draw import PALETTE, SMALLEST_EDGE, draw_boxes, label_color, save_png, side_by_side
from visionr1.samples import Boxes


@pytest.mark.parametrize("ground", [0, 128, 255], ids=["dark", "grey", "light"])
def test_a_box_shows_on_any_ground(ground: int) -> None:
    image = Image.new("RGB", (600, 600), (ground,) * 3)
    drawn = np.asarray(draw_boxes(image, Boxes.of([[200, 200, 400, 400]], ["cat"])))
    assert (drawn[300, 195:206] == label_color("cat")).all(axis=1).any()  # the left edge is in the label's colour
    assert (drawn[300, 300] == ground).all()  # and the inside is left as it was


def test_small_images_are_enlarged_and_the_original_is_not_touched() -> None:
    image = Image.new("RGB", (100, 50), "white")
    drawn = draw_boxes(image, Boxes.of([[10, 10, 20, 20]], ["cat"]), title="Truth")
    assert drawn.width == 2 * SMALLEST_EDGE and drawn.height > SMALLEST_EDGE
    assert image.getcolors() == [(5000, (255, 255, 255))]


def test_a_label_has_one_colour_everywhere() -> None:
    assert label_color("Cat ") == label_color("cat")
    assert label_color("dog", ["cat", "dog"]) == PALETTE[1]
    assert label_color("cow", ["cat", "dog"]) == label_color("cow")


def test_captions_replace_labels_and_stay_inside() -> None:
    image = Image.new("RGB", (500, 500), "white")
    boxes = Boxes.of([[0, 0, 5, 5], [495, 495, 500, 500]], ["cat", "cat"])
    drawn = draw_boxes(image, boxes, captions=["a long caption", "another"])
    assert drawn.size == (500, 500)
    assert drawn.tobytes() != draw_boxes(image, boxes).tobytes()


def test_side_by_side_and_saving(tmp_path) -> None:
    row = side_by_side([Image.new("RGB", (10, 20)), Image.new("RGB", (30, 5))], gap=2)
    assert row.size == (42, 20)
    save_png(row, tmp_path / "new/row.png")
    assert Image.open(tmp_path / "new/row.png").size == (42, 20)
