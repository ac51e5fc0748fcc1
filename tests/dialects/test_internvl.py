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


A, B = [100.0, 100.0, 300.0, 200.0], [500.0, 300.0, 700.0, 400.0]


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        # Decoded without special tokens, as TRL and verl hand replies to a reward.
        ("cat[[100, 200, 300, 400]]\ndog[[500, 600, 700, 800]]", [(A, "cat"), (B, "dog")]),
        ("cat[[100, 200, 300, 400]]dog[[500, 600, 700, 800]]", [(A, "cat"), (B, "dog")]),
        ("cat[[100, 200, 300, 400], [500, 600, 700, 800]]", [(A, "cat"), (B, "cat")]),
        ("cat [100, 200, 300, 400] and dog [500, 600, 700, 800].", [(A, "cat"), (B, "dog")]),
        ("- cat: [100, 200, 300, 400]\n- dog: [500, 600, 700, 800]", [(A, "cat"), (B, "dog")]),
        # Boxes without their brackets, and as corners.
        ("<ref>cat</ref><box>100 200 300 400</box>", [(A, "cat")]),
        ("<ref>cat</ref><box>100, 200, 300, 400</box>", [(A, "cat")]),
        (
            "<ref>cat</ref><box>(100,200),(300,400)</box><ref>dog</ref><box>(500,600),(700,800)</box>",
            [(A, "cat"), (B, "dog")],
        ),
        # The tags of DeepSeek-VL2 and Qwen2-VL, which count from 0 to 1000 too.
        ("<|ref|>cat<|/ref|><|det|>[[100, 200, 300, 400]]<|/det|>", [(A, "cat")]),
        ("<|object_ref_start|>cat<|object_ref_end|><|box_start|>(100,200),(300,400)<|box_end|>", [(A, "cat")]),
        # JSON, in the space of the dialect.
        ('```json\n[{"bbox_2d": [100, 200, 300, 400], "label": "cat"}]\n```', [(A, "cat")]),
    ],
)
def test_other_forms_are_read_with_a_fault(text: str, boxes: list[tuple[list[float], str]]) -> None:
    reply = parse(text)
    assert list(zip(reply.boxes.xyxy.tolist(), reply.boxes.labels, strict=True)) == boxes
    assert reply.num_malformed == 0 and not reply.well_formed
    assert "truncated" not in [fault.kind for fault in reply.faults]


def test_a_sentence_names_no_label_but_the_one_that_was_asked_for() -> None:
    text = "The coordinates of the region this sentence describes are [100, 200, 300, 400]."
    reply = INTERNVL.parse(text, size_wh=SIZE, input_size_wh=SIZE, categories=("the cat on the left",))
    assert reply.boxes.labels == ("the cat on the left",) and reply.boxes.xyxy.tolist() == [A]


@pytest.mark.parametrize("body", ["10, 20, 30", "somewhere", "10, 20, 30, 40, 50"])
def test_a_box_that_cannot_be_read_counts_as_in_json(body: str) -> None:
    reply = parse(f"<ref>cat</ref><box>{body}</box>")
    assert (len(reply.boxes), reply.num_malformed) == (0, 1)


@pytest.mark.parametrize(
    ("text", "is_cut"),
    [
        ("cat[[100, 200, 300, 400], [500, 6", True),
        ("cat[[100, 200, 300, 400]", True),
        ("cat[[100, 200, 300, 400]]\nI see no [dog].", False),
        ("I see nothing [at all", False),
    ],
)
def test_only_an_open_bracket_is_cut_off(text: str, is_cut: bool) -> None:
    assert ("truncated" in [fault.kind for fault in parse(text).faults]) is is_cut
