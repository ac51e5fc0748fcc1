"""The MiniCPM-V dialect: what is right, and what is wrong how."""

import pytest

from support.reading import SIZE, boxes, kinds, read
from visionr1.dialects import get_dialect, instruction
from visionr1.samples import Boxes, Query

MINICPM = get_dialect("minicpm")
ONE, TWO = "<ref>cat</ref><box>100 100 300 800</box>", "<ref>dog</ref><box>0 0 1000 1000</box>"
CAT, DOG = ([100.0, 50.0, 300.0, 400.0], "cat"), ([0.0, 0.0, 1000.0, 500.0], "dog")


def test_the_form_is_minicpms() -> None:
    drawn = Boxes.of([[100, 50, 300, 400], [0, 0, 1000, 500], [100, 50, 300, 400]], ["cat", "dog", "dog"])
    text = MINICPM.render(drawn, size_wh=SIZE, input_size_wh=SIZE)
    assert text == f"{ONE}\n{TWO}\n{ONE.replace('cat', 'dog')}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("None", []),
        (f"{ONE}{TWO}", [CAT, DOG]),
        (ONE.replace("100 100", " 100  100 "), [CAT]),
        (f"{ONE}<box>0 0 1000 1000</box>", [CAT, (DOG[0], "cat")]),
    ],
)
def test_well_formed(text: str, expected: list[tuple[list[float], str]]) -> None:
    reply = read(MINICPM, text)
    assert reply.well_formed, reply.faults
    assert boxes(reply) == expected


@pytest.mark.parametrize(
    ("text", "expected", "faults"),
    [
        (ONE.replace("300", "1001"), [([100, 50, 1000, 400], "cat")], {"out_of_bounds"}),
        (ONE.replace(">100", ">400"), [([300, 50, 400, 400], "cat")], {"inverted"}),
        (ONE.replace(" 800", ""), [], {"not_four_numbers", "other_box_form"}),
        (ONE.replace("100 100 300 800", "[[100, 100, 300, 800]]"), [CAT], {"other_box_form"}),  # InternVL's
        (ONE.replace("100 100 300 800", "(100,100),(300,800)"), [CAT], {"other_box_form"}),
        (ONE[:-6], [], {"truncated"}),  # the last number may not be whole
        (f"{ONE}\n<ref>do", [CAT], {"truncated"}),
        (f"A cat: {ONE}", [CAT], {"surrounding_text"}),
        ('[{"bbox_2d": [100, 100, 300, 800], "label": "cat"}]', [CAT], {"other_syntax"}),
        ("<point>123 456</point>", [], {"unreadable"}),
    ],
)
def test_faults(text: str, expected: list[tuple[list[float], str]], faults: set[str]) -> None:
    reply = read(MINICPM, text)
    assert boxes(reply) == expected
    assert kinds(reply) == faults


def test_the_answer_to_its_authors_prompt_is_well_formed() -> None:
    # OpenBMB/MiniCPM-V issue 982: asked so, it answers with the box alone.
    asked = instruction(Query("referring", ("book",)), MINICPM)
    assert asked == "Please provide the bounding box coordinate of the region this sentence describes: <ref>book</ref>"
    reply = read(MINICPM, "<box>100 100 300 800</box>", "book")
    assert reply.well_formed and boxes(reply) == [(CAT[0], "book")]
    assert kinds(read(MINICPM, "<box>100 100 300 800</box>")) == {"wrong_keys"}
