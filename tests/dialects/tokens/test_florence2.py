"""The Florence-2 dialect: what is right, and what is wrong how."""

import pytest

from support.reading import SIZE, boxes, kinds, read
from visionr1.dialects import get_dialect
from visionr1.samples import Boxes

FLORENCE = get_dialect("florence2")
ONE = "cat<loc_100><loc_100><loc_300><loc_800>"
TWO = "dog<loc_0><loc_0><loc_999><loc_999>"
CAT, DOG = ([100.5, 50.2, 300.5, 400.2], "cat"), ([0.5, 0.2, 999.5, 499.8], "dog")


def test_the_form_is_florences() -> None:
    drawn = Boxes.of(
        [[100.5, 50.25, 300.5, 400.25], [0, 0, 1000, 500], [100.5, 50.25, 300.5, 400.25]], ["cat", "dog", "dog"]
    )
    assert FLORENCE.render(drawn, size_wh=SIZE, input_size_wh=SIZE) == f"{ONE}{TWO}{ONE.removeprefix('cat')}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("None", []),
        (f"{ONE}{TWO}", [CAT, DOG]),
        (f"{ONE}{TWO.removeprefix('dog')}", [CAT, (DOG[0], "cat")]),  # two boxes of one label
        (f"</s><s>{ONE}{TWO}</s><pad>", [CAT, DOG]),  # the tokens that its own processor removes
    ],
)
def test_well_formed(text: str, expected: list[tuple[list[float], str]]) -> None:
    reply = read(FLORENCE, text)
    assert reply.well_formed, reply.faults
    assert boxes(reply) == expected


@pytest.mark.parametrize(
    ("text", "expected", "faults"),
    [
        (ONE.replace("300", "1000"), [([100.5, 50.2, 1000, 400.2], "cat")], {"out_of_bounds"}),  # behind the last bin
        (ONE.replace("cat<loc_100>", "cat<loc_400>"), [([300.5, 50.2, 400.5, 400.2], "cat")], {"inverted"}),
        (ONE.replace("300", "100"), [], {"inverted"}),  # empty
        (f"cat<loc_1><loc_2><loc_3>{TWO}", [DOG], {"not_four_numbers"}),
        (f"{ONE}<loc_1><loc_2>", [CAT], {"truncated"}),
        (f"{ONE}<loc_1><loc_2><lo", [CAT], {"truncated"}),
        (f"{ONE} and a dog", [CAT], {"surrounding_text"}),
        (f"<think>A cat.</think>{ONE}", [CAT], {"surrounding_text"}),
        ("<loc_100><loc_100><loc_300><loc_800>", [(CAT[0], "")], {"wrong_keys"}),
        ("cat<loc_100><loc_1", [], {"truncated"}),
        ("catdog", [], {"unreadable"}),  # without special tokens
        ("<ref>cat</ref><box>[[100, 100, 300, 800]]</box>", [], {"unreadable"}),
    ],
)
def test_faults(text: str, expected: list[tuple[list[float], str]], faults: set[str]) -> None:
    reply = read(FLORENCE, text)
    assert boxes(reply) == expected
    assert kinds(reply) == faults
