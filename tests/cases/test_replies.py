"""Replies as users report them (`replies.json`): what a person would take for a box is read, the rest is not counted.

The picture holds a cat and a dog. Coordinates are those of the text: the picture has 1000 x 1000 pixels, so that a
dialect in pixels and one from 0 to 1000 say the same. What is read in another form than the dialect's has a fault.
"""

import json
from pathlib import Path

import pytest

from visionr1.dialects import get_dialect
from visionr1.rewards import Reward
from visionr1.samples import Boxes, GroundTruth, Reply

SIZE = (1000, 1000)
REPLIES = json.loads((Path(__file__).parent / "replies.json").read_text(encoding="utf-8"))["cases"]
TEXTS = {case["id"]: case["text"] for case in REPLIES}
A, B = (10, 20, 110, 220), (210, 20, 310, 220)
CAT, DOG = (A, "cat"), (B, "dog")
BOTH = [CAT, DOG]
NO_LABEL = [(A, "")]

JSON_REPLIES = {
    "battery/fence JSON upper": BOTH,
    "battery/tripled fence json next line": BOTH,
    "battery/two fences draft+final": [CAT, CAT, DOG],  # docs/decisions.md: every list counts, a draft too
    "battery/jsonl": BOTH,
    "battery/single dict": [CAT],
    "battery/single dict fence": [CAT],
    "battery/unescaped inch quote, per line": [(A, '15" cat'), DOG],
    "battery/quoted word": [(A, 'the "big" cat'), DOG],
    "battery/raw newline in label": [(A, "ca t"), DOG],
    "battery/python single quotes": BOTH,
    "battery/python single quotes apostrophe": [(A, "cat's"), DOG],
    "battery/trailing comma list": BOTH,
    "battery/trailing comma dict": BOTH,
    "battery/trailing comma box": BOTH,
    "battery/strings numbers": [CAT],
    "battery/string box": [CAT],
    "battery/nested one": [CAT],
    "battery/8 numbers": [CAT],  # the four corners of the box
    "battery/key bbox": [CAT],
    "battery/key box": [CAT],
    "battery/key bounding_box": [CAT],
    "battery/Position Confidence": NO_LABEL,
    "battery/label name": [CAT],
    "battery/label category": [CAT],
    "battery/sub_label": [CAT],
    "battery/nested attr in list": BOTH,
    "battery/nested attr + prose": BOTH,
    "battery/dict by label": BOTH,
    "battery/escaped json str": [CAT],
    "battery/escaped newlines": [CAT],
    "battery/answer bare": NO_LABEL,
    "battery/xml": [CAT],
    "battery/fullwidth comma inside": [CAT],
    "battery/smart quotes": [CAT],
    "battery/swapped corners": [CAT],
    "battery/missing brace in first": BOTH,
    "battery/missing bracket": BOTH,
    "battery/missing comma keys": BOTH,
    "battery/missing quote key": BOTH,
    "battery/missing open quote label": BOTH,
    "battery/missing close quote label": BOTH,
    "battery/BOM": [CAT],
    "battery/zero width": [CAT],
    "battery/nbsp": [CAT],
    "battery/control char in label": [(A, "ca t")],
    "battery/surrogate": [(A, "\ufffd"), DOG],
    "battery/invalid escape": [(A, "cat_1"), DOG],
    "battery/end token 2": [CAT],
    "battery/think in plain": [CAT],  # what stands in the thought is no answer
    "battery/label null": NO_LABEL,
    "battery/semicolon one object": BOTH,
    "b3/VLM-R1 44": [CAT],
    "b3/GLM jsonl": BOTH,
    "b3/two lists": BOTH,
    "b3/empty lists": [],
    "b3/trailing fence only": BOTH,
    "b3/empty dict": [],
    "b3/fence dict with detections": [CAT],
    "b3/empty detections": [],
    "b3/No Objects": [],
    "b3/None": [],
    "b3/empty str": [],
    "b3/empty fence": [],
    "b3/array of arrays with label": [CAT],
    "b3/html": [CAT],
    "b3/abs coords words": NO_LABEL,
    "b3/x1y1 keys": [CAT],
    "b3/bbox_2d dict": [CAT],
}
"""What the two dialects of Qwen read."""

NORM1000_REPLIES = {
    "battery/qwen2vl": [CAT],
    "battery/qwenvl": [CAT],
    "battery2/released": [CAT, (B, "cat")],
    "battery2/stripped of special tokens": [CAT, (B, "cat")],
    "battery2/stripped two": BOTH,
    "battery2/sentence with tags": BOTH,
    "battery2/single bracket": [CAT],
    "battery2/no brackets commas": [CAT],
    "battery2/box only": NO_LABEL,
    "battery2/qwenvl pairs": [CAT],
    "battery2/end token": [CAT],
    "battery2/space tags": [CAT],
    "battery2/missing ref close": [CAT],
    "battery2/semicolons": [CAT, (B, "cat")],
}
"""Box tags, which count from 0 to 1000: what InternVL's dialect reads."""


def parse(text: str, dialect: str, *categories: str) -> Reply:
    return get_dialect(dialect).parse(text, size_wh=SIZE, input_size_wh=SIZE, categories=categories or ("cat", "dog"))


def boxes_of(reply: Reply) -> list[tuple[tuple[int, ...], str]]:
    boxes = [tuple(map(round, box)) for box in reply.boxes.xyxy.tolist()]
    return list(zip(boxes, reply.boxes.labels, strict=True))


def test_every_case_has_its_right_value() -> None:
    assert len(TEXTS) == 83
    assert set(TEXTS) == {*JSON_REPLIES, *NORM1000_REPLIES, "battery/floats01"}


@pytest.mark.parametrize("dialect", ["qwen25", "qwen3"])
@pytest.mark.parametrize("case", JSON_REPLIES)
def test_what_a_person_would_read_in_json(case: str, dialect: str) -> None:
    reply = parse(TEXTS[case], dialect)
    assert (boxes_of(reply), reply.num_malformed) == (JSON_REPLIES[case], 0)


@pytest.mark.parametrize("case", NORM1000_REPLIES)
def test_what_a_person_would_read_in_tags(case: str) -> None:
    reply = parse(TEXTS[case], "internvl")
    assert (boxes_of(reply), reply.num_malformed) == (NORM1000_REPLIES[case], 0)


@pytest.mark.parametrize("case", ["battery/qwen2vl", "battery/qwenvl", "battery2/released"])
def test_tags_are_read_where_their_space_is_the_dialects_and_named_where_it_is_not(case: str) -> None:
    assert boxes_of(parse(TEXTS[case], "qwen3")) == NORM1000_REPLIES[case]
    in_pixels = get_dialect("qwen25").parse(TEXTS[case], size_wh=(640, 480), input_size_wh=(644, 476))
    assert in_pixels.num_predicted == 0
    assert "0 to 1000" in in_pixels.faults[0].detail


def test_floats_from_0_to_1_are_read_as_numbers_of_the_dialect() -> None:
    # The space is never guessed: a box of .4 x .4 pixels, with a fault.
    reply = parse(TEXTS["battery/floats01"], "qwen25")
    assert reply.boxes.xyxy.tolist() == [[0.1, 0.2, 0.5, 0.6]]
    assert [fault.kind for fault in reply.faults] == ["wrong_number_form"]


@pytest.mark.parametrize("case", [case for case, boxes in JSON_REPLIES.items() if boxes in (NO_LABEL, [CAT])])
def test_a_box_without_a_label_is_of_the_one_category_asked_for(case: str) -> None:
    assert boxes_of(parse(TEXTS[case], "qwen3", "cat")) == [CAT]


@pytest.mark.parametrize("case", [case for case, text in TEXTS.items() if case != "battery2/released"])
def test_only_the_form_that_is_asked_for_gets_the_format_reward(case: str) -> None:
    truth = GroundTruth(Boxes.of([A, B], ["cat", "dog"]), ("cat", "dog"), SIZE, SIZE)
    score = Reward(dialect=get_dialect("qwen3")).score(TEXTS[case], truth)
    assert score.parts["format"] == 0
    assert score.reply is not None and score.reply.faults
