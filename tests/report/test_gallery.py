import numpy as np
from PIL import Image

from visionr1.report.gallery import Shown, check, color_of, legend, side_by_side
from visionr1.samples import Boxes, Query, Sample

TRUTH = Boxes.of([[0, 0, 10, 10], [20, 20, 40, 40]], ["Cat", "dog"])


def sample() -> Sample:
    return Sample("<id>", Image.new("RGB", (64, 48)), Query("detection", ("cat", "dog")), TRUTH, (64, 48))


def test_a_box_is_right_if_matched_with_its_own_label() -> None:
    predicted = Boxes.of(
        [
            [0, 0, 10, 10],  # right
            [20, 20, 40, 40],  # wrong label
            [0, 0, 10, 9],  # second on the same object
            [50, 0, 60, 10],  # nothing there
        ],
        ["cat ", "cat", "cat", "dog"],
    )
    assert check("base", predicted, TRUTH).right == [True, False, False, False]


def test_no_boxes() -> None:
    assert check("base", Boxes.empty(), TRUTH).right == []
    assert check("base", TRUTH, Boxes.empty()).right == [False, False]


def test_panels_say_what_they_show_and_share_one_image() -> None:
    said = check("Base", Boxes(np.array([[0.0, 0, 10, 10]]), ("<cat>",)), TRUTH)
    html = side_by_side(sample(), [Shown("Truth", TRUTH), said], color_of(("cat", "dog")), "image0")
    assert html.count("data:image/jpeg;base64,") == 1 and html.count('<use href="#image0"') == 1
    assert "2 objects" in html and "0 of 2 found, 1 false" in html
    assert 'class="box false unknown"' in html and 'class="box lost k1"' in html
    assert html.rindex('class="box lost') < html.index('class="box false')  # what was not found lies below
    assert "<id>" not in html and "<cat>" not in html


def test_legend_names_every_category() -> None:
    assert legend(("a&b", "c")).count("swatch") == 4
    assert "a&amp;b" in legend(("a&b",))
