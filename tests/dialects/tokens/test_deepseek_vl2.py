"""The DeepSeek-VL2 dialect: what is right, and what is wrong how."""

import pytest

from support.reading import SIZE, boxes, kinds, read
from visionr1.dialects import get_dialect
from visionr1.samples import Boxes

DEEPSEEK = get_dialect("deepseek_vl2")
ONE = "<|ref|>cat<|/ref|><|det|>[[0, 111, 333, 999]]<|/det|>"
TWO = "<|ref|>dog<|/ref|><|det|>[[0, 0, 999, 999], [0, 111, 333, 999]]<|/det|>"
CAT, DOG = ([0.0, 55.6, 333.3, 500.0], "cat"), ([0.0, 0.0, 1000.0, 500.0], "dog")


def test_the_form_is_deepseeks() -> None:
    drawn = Boxes.of(
        [[0, 500 / 9, 1000 / 3, 500], [0, 0, 1000, 500], [0, 500 / 9, 1000 / 3, 500]], ["cat", "dog", "dog"]
    )
    assert DEEPSEEK.render(drawn, size_wh=SIZE, input_size_wh=SIZE) == ONE + TWO


@pytest.mark.parametrize(
    ("text", "expected"),
    [("None", []), (f"{ONE}{TWO}", [CAT, DOG, (CAT[0], "dog")]), (f"{ONE}\n{ONE.replace(' ', '')}", [CAT, CAT])],
)
def test_well_formed(text: str, expected: list[tuple[list[float], str]]) -> None:
    reply = read(DEEPSEEK, text)
    assert reply.well_formed, reply.faults
    assert boxes(reply) == expected


@pytest.mark.parametrize(
    ("text", "expected", "faults"),
    [
        (ONE.replace("333", "1000"), [([0, 55.6, 1000, 500], "cat")], {"out_of_bounds"}),  # 999 is the edge
        (ONE.replace("0,", "400,"), [([333.3, 55.6, 400.4, 500], "cat")], {"inverted"}),
        (ONE.replace("333", "333.0"), [CAT], {"wrong_number_form"}),
        (ONE.replace("[[", "[").replace("]]", "]"), [CAT], {"not_a_list"}),
        (TWO[:-12], [DOG], {"truncated"}),
        (f"Two: {ONE}", [CAT], {"surrounding_text"}),
        (f"<think>A cat.</think>{ONE}", [CAT], {"other_syntax"}),
        ("cat[[0, 111, 333, 999]]dog[[0, 0, 999, 999]]", [CAT, DOG], {"other_syntax"}),  # without special tokens
        ("<ref>cat</ref><box>[[0, 111, 333, 999]]</box>", [CAT], {"other_syntax"}),
        ("<|ref|>cat<|/ref|>", [], {"unreadable"}),  # a reference without boxes
        ("<|ref|>ca", [], {"truncated"}),
    ],
)
def test_faults(text: str, expected: list[tuple[list[float], str]], faults: set[str]) -> None:
    reply = read(DEEPSEEK, text)
    assert boxes(reply) == expected
    assert kinds(reply) == faults
