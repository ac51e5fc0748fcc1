"""The InternVL dialect: what is right, and what is wrong how."""

import pytest

from visionr1.dialects import get_dialect
from visionr1.samples import Boxes, FaultKind, Reply

INTERNVL = get_dialect("internvl")
SIZE = (1000, 500)
ONE = "<ref>cat</ref><box>[[100, 200, 300, 400]]</box>"
TWO = "<ref>dog</ref><box>[[500, 600, 700, 800], [0, 0, 1000, 1000]]</box>"


def parse(text: str) -> Reply:
    return INTERNVL.parse(text, size_wh=SIZE, input_size_wh=(28, 28), categories=("cat", "dog"))


def test_the_form_is_internvls() -> None:
    boxes = Boxes.of([[100, 100, 300, 200], [500, 300, 700, 400], [0, 0, 1000, 500]], ["cat", "dog", "dog"])
    assert INTERNVL.render(boxes, size_wh=SIZE, input_size_wh=(28, 28)) == f"{ONE}\n{TWO}"


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("None", []),  # the empty reply
        (ONE, ["cat"]),
        (f"{ONE}{TWO}", ["cat", "dog", "dog"]),  # one list, one label
        (f"\r\n{ONE}\r\n {TWO}\n", ["cat", "dog", "dog"]),  # white space between and around
        (ONE.replace(" ", "").replace("[[", "[\n ["), ["cat"]),  # and inside
        (f"{ONE}{ONE}", ["cat", "cat"]),  # one label, two lists
        (ONE.replace("cat", 'a "quoted" [0] & 猫'), ['a "quoted" [0] & 猫']),
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
        ("I see no cat.", FaultKind.UNREADABLE, 0, 0),  # prose
        ("<ref>cat</ref>", FaultKind.UNREADABLE, 0, 0),  # a reference without boxes
        (f"Here: {ONE}", FaultKind.SURROUNDING_TEXT, 1, 0),  # prose before
        (f"{ONE} Done.", FaultKind.SURROUNDING_TEXT, 1, 0),  # prose after
        (f"{ONE}, {TWO}", FaultKind.SURROUNDING_TEXT, 3, 0),  # something between
        (f"```\n{ONE}\n```", FaultKind.SURROUNDING_TEXT, 1, 0),  # a fence
        (f"{ONE}<ref>do", FaultKind.TRUNCATED, 1, 0),  # cut off inside a label
        (f"{ONE}</re", FaultKind.TRUNCATED, 1, 0),  # inside a tag
        (TWO[:-20], FaultKind.TRUNCATED, 1, 0),  # inside the second box
        (TWO[:-6], FaultKind.TRUNCATED, 2, 0),  # before the end of the list
        ("<box>[[100, 200, 300, 400]]</box>", FaultKind.WRONG_KEYS, 1, 0),  # no reference
        (ONE.replace("cat", " "), FaultKind.WRONG_KEYS, 1, 0),  # a blank label
        (ONE.replace("</ref>", ""), FaultKind.WRONG_KEYS, 1, 0),  # a reference that does not end
        (ONE.replace("[[", "[").replace("]]", "]"), FaultKind.NOT_A_LIST, 1, 0),  # a bare box
        (ONE.replace("[[", "[[[").replace("]]", "]]]"), FaultKind.NOT_A_LIST, 1, 0),  # nested too deep
        (ONE.replace("]]", "],]"), FaultKind.NOT_A_LIST, 1, 0),  # trailing comma
        ("<ref>cat</ref><box></box>", FaultKind.NOT_A_LIST, 0, 0),  # no list
        ("<ref>cat</ref><box>[]</box>", FaultKind.NOT_FOUR_NUMBERS, 0, 1),  # an empty box
        (ONE.replace(", 400", ""), FaultKind.NOT_FOUR_NUMBERS, 0, 1),  # three numbers
        (ONE.replace("100", '"100"'), FaultKind.NOT_FOUR_NUMBERS, 0, 1),  # a string
        (ONE.replace("100", "NaN"), FaultKind.NOT_FOUR_NUMBERS, 0, 1),  # no number
        (ONE.replace("100", "100.0"), FaultKind.WRONG_NUMBER_FORM, 1, 0),  # a float
        (ONE.replace("100", "500"), FaultKind.INVERTED, 1, 0),  # reversed: still one box
        (ONE.replace("100", "300"), FaultKind.INVERTED, 0, 1),  # empty
        (ONE.replace("300", "1001"), FaultKind.OUT_OF_BOUNDS, 1, 0),  # clipped
        (ONE.replace("100", "-1"), FaultKind.OUT_OF_BOUNDS, 1, 0),  # negative
        (ONE.replace("300", str(10**30)), FaultKind.OUT_OF_BOUNDS, 1, 0),  # huge
        (ONE.replace("300", "9" * 400), FaultKind.NOT_FOUR_NUMBERS, 0, 1),  # beyond float64
    ],
)
def test_faults(text: str, fault: FaultKind, boxes: int, malformed: int) -> None:
    reply = parse(text)
    assert fault in [found.kind for found in reply.faults]
    assert not reply.well_formed
    assert (len(reply.boxes), reply.num_malformed) == (boxes, malformed)


@pytest.mark.parametrize("label", ["a<box>", "</ref>", "two\nlines"])
def test_labels_that_cannot_be_written(label: str) -> None:
    with pytest.raises(ValueError, match="this dialect cannot write"):
        INTERNVL.render(Boxes.of([[0, 0, 1, 1]], [label]), size_wh=SIZE, input_size_wh=SIZE)
