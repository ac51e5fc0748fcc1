"""The Griffon dialect: what is right, and what is wrong how."""

import pytest

from visionr1.dialects import get_dialect
from visionr1.samples import Boxes, FaultKind, Reply

GRIFFON = get_dialect("griffon")
SIZE = (1000, 500)
ONE, TWO = "cat-[0.100,0.200,0.300,0.400]", "dog-[0.500,0.600,0.700,0.800]"


def parse(text: str) -> Reply:
    return GRIFFON.parse(text, size_wh=SIZE, input_size_wh=(28, 28), categories=("cat", "dog"))


def test_the_form_is_griffons() -> None:
    boxes = Boxes.of([[100, 100, 300, 200], [0, 0, 1000, 500]], ["cat", "traffic-light"])
    text = GRIFFON.render(boxes, size_wh=SIZE, input_size_wh=(28, 28))
    assert text == "cat-[0.100,0.200,0.300,0.400]&traffic-light-[0.000,0.000,1.000,1.000]"


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("None", []),  # the empty reply
        (ONE, ["cat"]),
        (f"{ONE}&{TWO}", ["cat", "dog"]),
        (f"\r\n {ONE} & {TWO}\n", ["cat", "dog"]),  # white space around items
        ("cat-[0.100, 0.200, 0.300, 0.400]", ["cat"]),  # and inside of them
        (f"traffic-light{ONE[3:]}&&{ONE[3:]}", ["traffic-light", "&"]),  # the dialect's own marks in labels
        (f'a "quoted" 猫{ONE[3:]}', ['a "quoted" 猫']),
    ],
)
def test_well_formed(text: str, labels: list[str]) -> None:
    reply = parse(text)
    assert reply.well_formed, reply.faults
    assert list(reply.boxes.labels) == labels


@pytest.mark.parametrize(
    ("text", "fault", "boxes", "malformed"),
    [
        ("", FaultKind.UNREADABLE, 0, 0),  # nothing
        ("none", FaultKind.UNREADABLE, 0, 0),  # the empty reply is None
        ("I see no cat.", FaultKind.UNREADABLE, 0, 0),  # prose
        ("cat-[0.100,0.2", FaultKind.TRUNCATED, 0, 0),  # cut off inside the first box
        (f"{ONE}&dog-[0.1", FaultKind.TRUNCATED, 1, 0),  # inside the second
        (f"{ONE}&do", FaultKind.TRUNCATED, 1, 0),  # inside its label
        (f"{ONE}. Done.", FaultKind.SURROUNDING_TEXT, 1, 0),  # prose after
        (f"Here:\n{ONE}", FaultKind.SURROUNDING_TEXT, 1, 0),  # prose on a line before
        (f"{ONE} {TWO}", FaultKind.SURROUNDING_TEXT, 2, 0),  # no & between
        (f"{ONE}&\n```\n{TWO}", FaultKind.SURROUNDING_TEXT, 2, 0),  # a fence between
        ("[0.100,0.200,0.300,0.400]", FaultKind.WRONG_KEYS, 1, 0),  # no label
        ("-[0.100,0.200,0.300,0.400]", FaultKind.WRONG_KEYS, 1, 0),  # a blank one
        ("cat[0.100,0.200,0.300,0.400]", FaultKind.WRONG_KEYS, 1, 0),  # no - after it
        ("cat-[0.1,0.2,0.3,0.4]", FaultKind.WRONG_NUMBER_FORM, 1, 0),  # one decimal
        ("cat-[0,0,1,1]", FaultKind.WRONG_NUMBER_FORM, 1, 0),  # none
        ("cat-[+0.100,0.200,3e-1,0.400]", FaultKind.WRONG_NUMBER_FORM, 1, 0),  # other ways to write numbers
        ("cat-[0.100,0.200,0.300]", FaultKind.NOT_FOUR_NUMBERS, 0, 1),  # three
        ("cat-[0.100,0.200,0.300,0.400,0.500]", FaultKind.NOT_FOUR_NUMBERS, 0, 1),  # five
        ('cat-["0.100",0.200,0.300,0.400]', FaultKind.NOT_FOUR_NUMBERS, 0, 1),  # a string
        ("cat-[NaN,0.200,0.300,0.400]", FaultKind.NOT_FOUR_NUMBERS, 0, 1),  # no number
        ("cat-[1e999,0.200,0.300,0.400]", FaultKind.NOT_FOUR_NUMBERS, 0, 1),  # beyond float64
        ("cat-[٠.100,0.200,0.300,0.400]", FaultKind.NOT_FOUR_NUMBERS, 0, 1),  # other digits
        ("cat-[]", FaultKind.NOT_FOUR_NUMBERS, 0, 1),  # nothing
        ("cat-[[0.100,0.200,0.300,0.400]]", FaultKind.SURROUNDING_TEXT, 1, 0),  # nested
        ("cat-[0.300,0.200,0.100,0.400]", FaultKind.INVERTED, 1, 0),  # reversed: still one box
        ("cat-[0.300,0.200,0.300,0.400]", FaultKind.INVERTED, 0, 1),  # empty
        ("cat-[0.100,0.200,1.300,0.400]", FaultKind.OUT_OF_BOUNDS, 1, 0),  # clipped
        ("cat-[-0.100,0.200,0.300,0.400]", FaultKind.OUT_OF_BOUNDS, 1, 0),  # negative
        (f"cat-[0.100,0.200,{10**30}.000,0.400]", FaultKind.OUT_OF_BOUNDS, 1, 0),  # huge
    ],
)
def test_faults(text: str, fault: FaultKind, boxes: int, malformed: int) -> None:
    reply = parse(text)
    assert fault in [found.kind for found in reply.faults]
    assert not reply.well_formed
    assert (len(reply.boxes), reply.num_malformed) == (boxes, malformed)


@pytest.mark.parametrize("label", ["a[0]", "]", "two\nlines", "two\u2028lines"])
def test_labels_that_cannot_be_written(label: str) -> None:
    with pytest.raises(ValueError, match="this dialect cannot write"):
        GRIFFON.render(Boxes.of([[0, 0, 1, 1]], [label]), size_wh=SIZE, input_size_wh=SIZE)


@pytest.mark.parametrize(
    "text",
    [
        f"{ONE}, {TWO}",
        f"{ONE}\n{TWO}",
        f"{ONE} and {TWO}",
        f"{ONE.replace('-', ': ')}, {TWO.replace('-', ': ')}",
        f"{ONE.replace('-', ' ')}; {TWO.replace('-', ' ')}",
    ],
)
def test_labels_lose_the_marks_around_them(text: str) -> None:
    reply = parse(text)
    assert reply.boxes.labels == ("cat", "dog") and len(reply.boxes) == 2
    assert not reply.well_formed
