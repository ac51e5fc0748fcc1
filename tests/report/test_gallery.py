import numpy as np
from PIL import Image

from visionr1.report.gallery import compare_with_truth, make_image_row, number_colors
from visionr1.report.page import load_templates
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
    kinds = compare_with_truth("base", predicted, TRUTH).kinds
    assert [not kind for kind in kinds] == [True, False, False, False]


def test_no_boxes() -> None:
    assert list(compare_with_truth("base", Boxes.empty(), TRUTH).kinds) == []
    assert all(compare_with_truth("base", TRUTH, Boxes.empty()).kinds)


def test_panels_say_what_they_show_and_share_one_image() -> None:
    said = compare_with_truth("Base", Boxes(np.array([[0.0, 0, 10, 10]]), ("<cat>",)), TRUTH)
    row = make_image_row(sample(), [said], number_colors(("cat", "dog")), "image0")
    html = str(load_templates().get_template("gallery.html").module.row(row))
    assert html.count("data:image/jpeg;base64,") == 1 and html.count('<use href="#image0"') == 1
    assert "2 objects" in html and "0 of 2 found, 1 false" in html
    assert 'class="box false unknown"' in html and 'class="box lost k1"' in html
    assert html.rindex('class="box lost') < html.index('class="box false')  # what was not found lies below
    assert "<id>" not in html and "<cat>" not in html


def test_legend_names_every_category() -> None:
    html = str(load_templates().get_template("gallery.html").module.legend([("a&b", 0), ("c", 1)]))
    assert html.count("swatch") == 4
    assert "a&amp;b" in html
