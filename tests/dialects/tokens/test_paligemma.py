"""The PaliGemma dialect: what is right, and what is wrong how."""

import pytest

from support.reading import SIZE, boxes, kinds, read
from visionr1.dialects import get_dialect
from visionr1.samples import Boxes

PALIGEMMA = get_dialect("paligemma")
ONE, TWO = "<loc0000><loc0341><loc0682><loc1023> cat", "<loc0000><loc0000><loc1023><loc1023> dog"
CAT, DOG = ([333.3, 0.0, 1000.0, 333.3], "cat"), ([0.0, 0.0, 1000.0, 500.0], "dog")


def test_the_form_is_paligemmas() -> None:
    drawn = Boxes.of([[1000 / 3, 0, 1000, 1000 / 3], [0, 0, 1000, 500]], ["cat", "dog"])
    assert PALIGEMMA.render(drawn, size_wh=SIZE, input_size_wh=SIZE) == f"{ONE} ; {TWO}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("None", []),
        (ONE, [CAT]),
        (f"{ONE} ; {TWO}", [CAT, DOG]),
        (f"{ONE};{TWO}\n", [CAT, DOG]),  # white space as it comes
        (ONE.replace("cat", "black cat, sitting"), [(CAT[0], "black cat, sitting")]),
    ],
)
def test_well_formed(text: str, expected: list[tuple[list[float], str]]) -> None:
    reply = read(PALIGEMMA, text)
    assert reply.well_formed, reply.faults
    assert boxes(reply) == expected


@pytest.mark.parametrize(
    ("text", "expected", "faults"),
    [
        (f"{ONE} {TWO}", [CAT, DOG], {"surrounding_text"}),  # no mark between
        (f"Here: {ONE}", [CAT], {"surrounding_text"}),
        (f"<think>A cat.</think>{ONE}", [CAT], {"surrounding_text"}),
        (ONE.replace(" cat", "<seg000><seg127> cat"), [CAT], {"other_syntax"}),  # with a mask
        (ONE.replace("1023", "1024"), [CAT], {"out_of_bounds"}),  # 1023 is the edge, and there is no further token
        (ONE.replace("0000", "0800"), [([333.3, 333.3, 1000, 391.0], "cat")], {"inverted"}),
        (ONE.replace("0000", "0682"), [], {"inverted"}),  # empty
        (f"<loc0000><loc0341><loc0682> cat ; {TWO}", [DOG], {"surrounding_text"}),  # three tokens
        # A box is complete without its label, which stands behind it.
        (f"{ONE} ; {TWO[:-1]}", [CAT, (DOG[0], "do")], {"truncated"}),
        (f"{ONE} ; {TWO[:-4]}", [CAT, (DOG[0], "")], {"truncated", "wrong_keys"}),
        (f"{ONE} ; {TWO[:20]}", [CAT], {"truncated"}),
        (f"{ONE} ; ", [CAT], {"truncated"}),
        (ONE[:20], [], {"truncated"}),
        # Numbers are not in its space, whatever stands around them.
        ('[{"box_2d": [0, 341, 682, 1023], "label": "cat"}]', [], {"unreadable"}),
        ("cat: [0, 341, 682, 1023]", [], {"unreadable"}),
        ("cat ; dog", [], {"unreadable"}),
    ],
)
def test_faults(text: str, expected: list[tuple[list[float], str]], faults: set[str]) -> None:
    reply = read(PALIGEMMA, text)
    assert boxes(reply) == expected
    assert kinds(reply) == faults


@pytest.mark.parametrize("label", ["cat; dog", "<cat>", "two\nlines"])
def test_labels_that_cannot_be_written(label: str) -> None:
    with pytest.raises(ValueError, match="this dialect cannot write"):
        PALIGEMMA.render(Boxes.of([[0, 0, 1, 1]], [label]), size_wh=SIZE, input_size_wh=SIZE)
