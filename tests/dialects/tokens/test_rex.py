"""The Rex-Omni dialect: what is right, and what is wrong how."""

import pytest

from support.reading import SIZE, boxes, kinds, read
from visionr1.dialects import HasTokens, get_dialect
from visionr1.samples import Boxes

REX = get_dialect("rex")
REF, REF_END, BOX, BOX_END = "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"
ONE = f"{REF}cat{REF_END}{BOX}<0><111><333><999>{BOX_END}"
TWO = f"{REF}dog{REF_END}{BOX}<0><0><999><999>, <0><111><333><999>{BOX_END}"
CAT, DOG = ([0.0, 55.6, 333.3, 500.0], "cat"), ([0.0, 0.0, 1000.0, 500.0], "dog")


def test_the_form_is_rex_omnis() -> None:
    drawn = Boxes.of(
        [[0, 500 / 9, 1000 / 3, 500], [0, 0, 1000, 500], [0, 500 / 9, 1000 / 3, 500]], ["cat", "dog", "dog"]
    )
    assert REX.render(drawn, size_wh=SIZE, input_size_wh=SIZE) == f"{ONE}, {TWO}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("None", []),
        (f"{REF}cat{REF_END}{BOX}None{BOX_END}, {TWO}", [DOG, (CAT[0], "dog")]),  # no cat
        (f"{ONE}, {TWO}", [CAT, DOG, (CAT[0], "dog")]),
        (f"{ONE}{TWO.replace(', ', ',')}", [CAT, DOG, (CAT[0], "dog")]),  # commas and blanks as they come
    ],
)
def test_well_formed(text: str, expected: list[tuple[list[float], str]]) -> None:
    reply = read(REX, text)
    assert reply.well_formed, reply.faults
    assert boxes(reply) == expected


@pytest.mark.parametrize(
    ("text", "expected", "faults"),
    [
        (ONE.replace("<333>", "<1000>"), [([0, 55.6, 1000, 500], "cat")], {"out_of_bounds"}),  # behind the last token
        (ONE.replace("<0>", "<400>"), [([333.3, 55.6, 400.4, 500], "cat")], {"inverted"}),
        (ONE.replace("<0>", "<333>"), [], {"inverted"}),  # empty
        (ONE.replace("<999>", ""), [], {"not_four_numbers", "other_box_form"}),  # three
        (ONE.replace("<0><111>", ""), [], {"not_four_numbers", "other_box_form"}),  # a point
        (ONE.replace("<0><111><333><999>", "[0, 111, 333, 999]"), [CAT], {"other_box_form"}),
        (f"{ONE}; {TWO}", [CAT, DOG, (CAT[0], "dog")], {"surrounding_text"}),
        (f"{ONE},", [CAT], {"truncated"}),
        (TWO[: -len(BOX_END) - 5], [DOG], {"truncated"}),  # within the second box
        (TWO[: -len(BOX_END)], [DOG, (CAT[0], "dog")], {"truncated"}),
        # Decoded without special tokens, where coordinates are none.
        ("cat<0><111><333><999>dog<0><0><999><999>", [CAT, DOG], {"other_syntax"}),
        ("cat dog", [], {"unreadable"}),  # and where they are
    ],
)
def test_faults(text: str, expected: list[tuple[list[float], str]], faults: set[str]) -> None:
    reply = read(REX, text)
    assert boxes(reply) == expected
    assert kinds(reply) == faults


def test_its_tokens_are_tags_and_coordinates() -> None:
    assert isinstance(REX, HasTokens)
    assert set(REX.tokens) == {REF, REF_END, BOX, BOX_END, *(f"<{number}>" for number in range(1000))}
