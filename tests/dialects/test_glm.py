"""The GLM dialect: JSON or plain boxes, in the tokens that mark an answer, and what is wrong how."""

import pytest

from support.reading import SIZE, boxes, kinds, read
from visionr1.dialects import get_dialect
from visionr1.samples import Boxes

GLM = get_dialect("glm")
BEGIN, END = "<|begin_of_box|>", "<|end_of_box|>"
ITEM = '{"label": "cat", "bbox_2d": [100, 100, 300, 800]}'
CAT, DOG = ([100.0, 50.0, 300.0, 400.0], "cat"), ([0.0, 0.0, 1000.0, 500.0], "dog")


def test_the_form_is_glms() -> None:
    drawn = Boxes.of([[100, 50, 300, 400], [0, 0, 1000, 500]], ["cat", "dog"])
    text = GLM.render(drawn, size_wh=SIZE, input_size_wh=SIZE)
    assert text == f'{BEGIN}[{ITEM}, {{"label": "dog", "bbox_2d": [0, 0, 1000, 1000]}}]{END}'
    assert GLM.render(Boxes.empty(), size_wh=SIZE, input_size_wh=SIZE) == f"{BEGIN}[]{END}"


@pytest.mark.parametrize(
    ("text", "categories", "expected"),
    [
        (f"{BEGIN}[{ITEM}]{END}", ("cat", "dog"), [CAT]),
        (f"[{ITEM}]", ("cat", "dog"), [CAT]),  # without the tokens
        (f"```json\n[{ITEM}]\n```", ("cat", "dog"), [CAT]),
        (f"{BEGIN}```json\n[{ITEM}]\n```{END}", ("cat", "dog"), [CAT]),
        ('[{"bbox_2d": [100, 100, 300, 800], "label": "cat"}]', ("cat", "dog"), [CAT]),  # keys in either order
        # Plain boxes of the one category that was asked for.
        (f"{BEGIN}[[100,100,300,800]]{END}", ("cat",), [CAT]),
        (f"{BEGIN}[100, 100, 300, 800]{END}", ("cat",), [CAT]),
        ("[[100,100,300,800], [0, 0, 1000, 1000]]", ("cat",), [CAT, (DOG[0], "cat")]),
    ],
)
def test_well_formed(text: str, categories: tuple[str, ...], expected: list[tuple[list[float], str]]) -> None:
    reply = read(GLM, text, *categories)
    assert reply.well_formed, reply.faults
    assert boxes(reply) == expected


MARKED = f"{BEGIN}[[100,100,300,800]]{END}"


@pytest.mark.parametrize(
    ("text", "categories", "expected", "faults"),
    [
        # As the README of zai-org/GLM-V shows an answer.
        (f"The coordinates of the cat are {MARKED}.", ("cat",), [CAT], {"surrounding_text"}),
        (f"<think>[[1,2,3,4]]?</think><answer>At {MARKED}</answer>", ("cat",), [CAT], {"surrounding_text"}),
        (
            f"The cat: {MARKED}, the dog: {BEGIN}[[0,0,1000,1000]]{END}",
            ("cat", "dog"),
            [CAT, DOG],
            {"surrounding_text"},
        ),
        (MARKED, ("cat", "dog"), [(CAT[0], "")], {"wrong_keys"}),  # of which?
        (f"{BEGIN}(100,100,300,800){END}", ("cat",), [CAT], {"other_syntax", "assumed_label", "surrounding_text"}),
        (f"{BEGIN}[[100,100,300,1001]]{END}", ("cat",), [([100, 50, 300, 500], "cat")], {"out_of_bounds"}),
        (f"{BEGIN}[[300,100,100,800]]{END}", ("cat",), [CAT], {"inverted"}),
        (f'{BEGIN}[{ITEM}, {{"label": "do', ("cat", "dog"), [CAT], {"truncated"}),
        (f"{BEGIN}[{ITEM}]", ("cat", "dog"), [CAT], {"truncated"}),
        (f"[{ITEM}", ("cat", "dog"), [CAT], {"truncated"}),
        (
            f"{BEGIN}[{{'label': 'cat', 'bbox_2d': [100, 100, 300, 800]}}]{END}",
            ("cat", "dog"),
            [CAT],
            {"other_syntax", "unreadable"},
        ),
        (f"<think>Hm.</think>[{ITEM}]", ("cat", "dog"), [CAT], {"surrounding_text"}),
        ("<think>Hm.</think>[[100,100,300,800]]", ("cat",), [CAT], {"assumed_label", "wrong_keys", "surrounding_text"}),
        (f"{BEGIN}[[394, 105]]{END}", ("cat",), [], {"not_a_list", "wrong_keys"}),  # a point
    ],
)
def test_faults(
    text: str, categories: tuple[str, ...], expected: list[tuple[list[float], str]], faults: set[str]
) -> None:
    reply = read(GLM, text, *categories)
    assert boxes(reply) == expected
    assert kinds(reply) == faults


def test_a_label_with_a_token_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="this dialect cannot write one with"):
        GLM.render(Boxes.of([[0, 0, 1, 1]], [f"a{END}"]), size_wh=SIZE, input_size_wh=SIZE)
