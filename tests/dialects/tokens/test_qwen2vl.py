"""The Qwen2-VL dialect: what is right, and what is wrong how."""

import pytest

from support.reading import SIZE, boxes, kinds, read
from visionr1.dialects import get_dialect
from visionr1.samples import Boxes

QWEN2 = get_dialect("qwen2vl")
REF, REF_END, BOX, BOX_END = "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"
ONE = f"{REF}cat{REF_END}{BOX}(100,100),(300,800){BOX_END}"
TWO = f"{REF}dog{REF_END}{BOX}(0,0),(1000,1000){BOX_END}"
CAT, DOG = ([100.0, 50.0, 300.0, 400.0], "cat"), ([0.0, 0.0, 1000.0, 500.0], "dog")


def test_the_form_is_qwens() -> None:
    drawn = Boxes.of([[100, 50, 300, 400], [0, 0, 1000, 500], [100, 50, 300, 400]], ["cat", "dog", "dog"])
    text = QWEN2.render(drawn, size_wh=SIZE, input_size_wh=SIZE)
    assert text == f"{ONE}{TWO}{BOX}(100,100),(300,800){BOX_END}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("None", []),
        (f"{ONE}{TWO}", [CAT, DOG]),
        (f"{ONE}\n {TWO}\n", [CAT, DOG]),
        (ONE.replace(",", " , "), [CAT]),  # white space within
        (f"{ONE}{BOX}(0,0),(1000,1000){BOX_END}", [CAT, (DOG[0], "cat")]),  # a second box of the label
    ],
)
def test_well_formed(text: str, expected: list[tuple[list[float], str]]) -> None:
    reply = read(QWEN2, text)
    assert reply.well_formed, reply.faults
    assert boxes(reply) == expected


@pytest.mark.parametrize(
    ("text", "expected", "faults"),
    [
        (f"I see: {ONE}", [CAT], {"surrounding_text"}),
        (f"{ONE}, {TWO}", [CAT, DOG], {"surrounding_text"}),
        (f"<think>A cat.</think>{ONE}", [CAT], {"other_syntax"}),
        (ONE.replace("300", "1001"), [([100, 50, 1000, 400], "cat")], {"out_of_bounds"}),
        (ONE.replace("100,100", "-1,100"), [([0, 50, 300, 400], "cat")], {"out_of_bounds"}),
        (ONE.replace("(100", "(400"), [([300, 50, 400, 400], "cat")], {"inverted"}),
        (ONE.replace("(100,", "(300,"), [], {"inverted"}),  # empty
        (ONE.replace(",800", ""), [], {"not_four_numbers", "other_box_form"}),
        (ONE.replace("(100,100),(300,800)", "[[100, 100, 300, 800]]"), [CAT], {"other_box_form"}),
        (ONE.replace("(100,100),(300,800)", "100 100 300 800"), [CAT], {"other_box_form"}),
        (ONE.replace("(100,100),(300,800)", "<100><100><300><800>"), [CAT], {"other_box_form"}),
        # Cut off: complete boxes count, a part of one does not.
        (ONE[: -len(BOX_END)], [CAT], {"truncated"}),
        (ONE[:-20], [], {"truncated"}),
        (f"{ONE}{REF}do", [CAT], {"truncated"}),
        (f"{ONE}<|object_re", [CAT], {"truncated"}),
        (f"{REF}cat", [], {"truncated"}),
        # Decoded without special tokens.
        ("cat(100,100),(300,800)dog(0,0),(1000,1000)", [CAT, DOG], {"other_syntax"}),
        ("cat(100,100),(300,800)dog(0,0),(10", [CAT], {"other_syntax", "truncated"}),
        # Tags of other families, and JSON.
        ("<ref>cat</ref><box>(100,100),(300,800)</box>", [CAT], {"other_syntax"}),
        ("<|ref|>cat<|/ref|><|det|>[[100, 100, 300, 800]]<|/det|>", [CAT], {"other_syntax", "other_box_form"}),
        ('[{"bbox_2d": [100, 100, 300, 800], "label": "cat"}]', [CAT], {"other_syntax"}),
        # Neither is a box.
        ("I see no cat.", [], {"unreadable"}),
        ('<point x="15.0" y="22.5" alt="cat">cat</point>', [], {"unreadable"}),
        ("<loc0102><loc0051><loc0358><loc0256> cat", [], {"unreadable"}),
    ],
)
def test_faults(text: str, expected: list[tuple[list[float], str]], faults: set[str]) -> None:
    reply = read(QWEN2, text)
    assert boxes(reply) == expected
    assert kinds(reply) == faults


def test_a_box_alone_is_of_the_one_category_asked_for() -> None:
    text = f"{BOX}(100,100),(300,800){BOX_END}"
    assert read(QWEN2, text, "cat").well_formed and boxes(read(QWEN2, text, "cat")) == [CAT]
    assert kinds(read(QWEN2, text)) == {"wrong_keys"}


@pytest.mark.parametrize("label", [f"a{BOX}", "<ref>cat", "two\nlines"])
def test_labels_that_cannot_be_written(label: str) -> None:
    with pytest.raises(ValueError, match="this dialect cannot write"):
        QWEN2.render(Boxes.of([[0, 0, 1, 1]], [label]), size_wh=SIZE, input_size_wh=SIZE)
