"""The Kosmos-2 dialect: patches as its authors' code reads them, what is right, and what is wrong how."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.reading import boxes, kinds, read
from visionr1.boxes import iou_matrix
from visionr1.dialects import get_dialect
from visionr1.dialects.tokens.kosmos2 import SIDE, read_patches
from visionr1.samples import Boxes

KOSMOS = get_dialect("kosmos2")
MAN = "<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object>"
FIRE = "<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>"
MORE = "</delimiter_of_multi_objects/>"
SNOWMAN, A_FIRE = ([390.6, 23.4, 984.4, 414.1], "a snowman"), ([171.9, 7.8, 484.4, 445.3], "a fire")


def test_patches_are_read_as_transformers_reads_them() -> None:
    # The example of transformers' `clean_text_and_extract_entities_with_bboxes`, and its three cases.
    assert [number / SIDE for number in read_patches((44, 863))] == [0.390625, 0.046875, 0.984375, 0.828125]
    assert [number / SIDE for number in read_patches((5, 911))] == [0.171875, 0.015625, 0.484375, 0.890625]
    assert read_patches((33, 33)) == [1, 1, 2, 2]
    assert read_patches((33, 35)) == [1, 1, 4, 2]  # in one row
    assert read_patches((33, 97)) == [1, 1, 2, 4]  # in one column


@given(st.lists(st.floats(0, SIDE), min_size=4, max_size=4))
def test_no_pair_of_patches_overlaps_better_than_the_rendered_one(numbers: list[float]) -> None:
    x1, x2, y1, y2 = sorted(numbers[:2]) + sorted(numbers[2:])
    if x2 - x1 < 1e-6 or y2 - y1 < 1e-6:
        return
    box = Boxes.of([[x1, y1, x2, y2]], ["a"])
    size = {"size_wh": (SIDE, SIDE), "input_size_wh": (SIDE, SIDE)}
    reply = KOSMOS.parse(KOSMOS.render(box, **size), **size)  # type: ignore[arg-type]

    # Every pair near the corners of the box.
    near = []
    for first_y in range(max(0, int(y1) - 2), min(SIDE, int(y1) + 3)):
        for first_x in range(max(0, int(x1) - 2), min(SIDE, int(x1) + 3)):
            for last_y in range(max(first_y, int(y2) - 3), min(SIDE, int(y2) + 2)):
                for last_x in range(max(first_x, int(x2) - 3), min(SIDE, int(x2) + 2)):
                    near.append(read_patches((first_y * SIDE + first_x, last_y * SIDE + last_x)))
    best = iou_matrix(Boxes.of(near, ["a"] * len(near)).xyxy, box.xyxy).max()
    assert iou_matrix(reply.boxes.xyxy, box.xyxy)[0, 0] >= best - 1e-9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("None", []),
        (f"{MAN}{FIRE}", [SNOWMAN, A_FIRE]),
        (MAN.replace("><", "> <"), [SNOWMAN]),  # as its processor writes prompts
        (
            MAN.replace("</object>", f"{MORE}<patch_index_0005><patch_index_0911></object>"),
            [SNOWMAN, (A_FIRE[0], "a snowman")],
        ),
    ],
)
def test_well_formed(text: str, expected: list[tuple[list[float], str]]) -> None:
    reply = read(KOSMOS, text, "a snowman", "a fire")
    assert reply.well_formed, reply.faults
    assert boxes(reply) == expected


@pytest.mark.parametrize(
    ("text", "expected", "faults"),
    [
        (f"An image of{MAN} warming himself by{FIRE}.", [SNOWMAN, A_FIRE], {"surrounding_text"}),  # a caption
        (MAN.replace("0863", "1055"), [([390.6, 23.4, 984.4, 500.0], "a snowman")], {"out_of_bounds"}),
        ("<phrase>a fire</phrase><object><patch_index_0911><patch_index_0005></object>", [A_FIRE], {"inverted"}),
        (f"{MAN}<phrase> a fi", [SNOWMAN], {"truncated"}),
        (MAN.replace("</object>", f"{MORE}<patch_index_00"), [SNOWMAN], {"truncated"}),
        ("a snowman<patch_index_0044><patch_index_0863>", [SNOWMAN], {"other_syntax"}),  # without its tags
        # Numbers are not in its space, whatever stands around them.
        ('[{"bbox_2d": [1, 2, 30, 31], "label": "a fire"}]', [], {"unreadable"}),
        ("<ref>a fire</ref><box>[[1, 2, 30, 31]]</box>", [], {"unreadable"}),
        ("a fire: [1, 2, 30, 31]", [], {"unreadable"}),
    ],
)
def test_faults(text: str, expected: list[tuple[list[float], str]], faults: set[str]) -> None:
    reply = read(KOSMOS, text, "a snowman", "a fire")
    assert boxes(reply) == expected
    assert kinds(reply) == faults


def test_where_the_prompt_holds_the_phrase_the_box_stands_alone() -> None:
    text = "<object><patch_index_0044><patch_index_0863></object>"
    assert read(KOSMOS, text, "a snowman").well_formed and boxes(read(KOSMOS, text, "a snowman")) == [SNOWMAN]
    assert kinds(read(KOSMOS, text)) == {"wrong_keys"}
