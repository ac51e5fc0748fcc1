"""The Qwen2.5-VL dialect: what is right, and what is wrong how."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionr1.boxes import iou_matrix
from visionr1.dialects import get_dialect
from visionr1.samples import Boxes, FaultKind, Reply

QWEN = get_dialect("qwen25")
SIZE = (200, 100)
ONE = '{"bbox_2d": [10, 20, 30, 40], "label": "cat"}'
TWO = '{"bbox_2d": [50, 60, 70, 80], "label": "dog"}'


LABELS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(str.strip)


def parse(text: str) -> Reply:
    return QWEN.parse(text, size_wh=SIZE, input_size_wh=SIZE, categories=("cat", "dog"))


@given(st.lists(LABELS, max_size=5))
def test_any_label_is_read_back(labels: list[str]) -> None:
    boxes = Boxes.of([[0, 0, 1, 1]] * len(labels), labels)
    assert parse(QWEN.render(boxes, size_wh=SIZE, input_size_wh=SIZE)).boxes == boxes


@given(st.lists(st.floats(0, 12), min_size=4, max_size=4))
def test_no_integer_box_overlaps_better_than_the_rendered_one(numbers: list[float]) -> None:
    x1, x2, y1, y2 = sorted(numbers[:2]) + sorted(numbers[2:])
    if x2 - x1 < 1e-6 or y2 - y1 < 1e-6:
        return
    boxes = Boxes.of([[x1, y1, x2, y2]], ["a"])
    text = QWEN.render(boxes, size_wh=(12, 12), input_size_wh=(12, 12))
    reply = QWEN.parse(text, size_wh=(12, 12), input_size_wh=(12, 12))
    x, y = (np.stack(np.triu_indices(13, k=1), axis=1) for _ in range(2))  # every integer interval of 0..12
    grid = np.array([[a[0], b[0], a[1], b[1]] for a in x for b in y], dtype=float)
    assert iou_matrix(reply.boxes.xyxy, boxes.xyxy)[0, 0] >= iou_matrix(grid, boxes.xyxy).max() - 1e-9


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("[]", 0),  # the empty reply
        ("```json\n[]\n```", 0),  # the empty reply, fenced
        (f"[{ONE}]", 1),  # bare
        (f"```json\n[\n\t{ONE},\n\t{TWO}\n]\n```", 2),  # as rendered
        (f"```json\r\n[\r\n\t{ONE}\r\n]\r\n```", 1),  # CRLF
        (f"```json[{ONE}]```", 1),  # a one-line fence
        (f"\n\n  ```json\n[{ONE}]\n```  \n", 1),  # white space around
        (
            '[ {\n"label" :\t"cat" , "bbox_2d" : [ 10,20 , 30,40 ] } ]',
            1,
        ),  # keys in the other order, loose spacing
        ('[{"bbox_2d": [0, 0, 200, 100], "label": "cat"}]', 1),  # bounds are inclusive
        (
            '[{"bbox_2d": [1, 2, 3, 4], "label": "a \\"quoted\\" } ünïcode 猫"}]',
            1,
        ),  # quotes, brace and unicode in a label
        (
            '[{"bbox_2d": [1, 2, 3, 4], "label": "\\"bbox_2d\\": and \\"label\\": in a label"}]',
            1,
        ),  # keys named in a label
    ],
)
def test_well_formed(text: str, boxes: int) -> None:
    reply = parse(text)
    assert reply.well_formed, reply.faults
    assert (len(reply.boxes), reply.num_malformed) == (boxes, 0)


@pytest.mark.parametrize(
    ("text", "fault", "boxes", "malformed"),
    [
        ("", FaultKind.UNREADABLE, 0, 0),  # nothing
        ("3", FaultKind.NOT_A_LIST, 0, 0),  # a number
        ('"hello"', FaultKind.NOT_A_LIST, 0, 0),  # a string
        ("I see no cat.", FaultKind.UNREADABLE, 0, 0),  # prose
        ('[{"foo": 1}]', FaultKind.NOT_FOUR_NUMBERS, 0, 1),  # an object of another kind
        ('["cat"]', FaultKind.WRONG_KEYS, 0, 1),  # a list of strings
        (ONE, FaultKind.NOT_A_LIST, 1, 0),  # a bare object
        (f'{{"objects": [{ONE}, {TWO}]}}', FaultKind.NOT_A_LIST, 2, 0),  # a list wrapped in an object
        (f"[[{ONE}], [{TWO}]]", FaultKind.NOT_A_LIST, 2, 0),  # nested lists
        (f"Here: ```json\n[{ONE}]\n```", FaultKind.SURROUNDING_TEXT, 1, 0),  # prose before the fence
        (f"```json\n[{ONE}]\n``` done", FaultKind.SURROUNDING_TEXT, 1, 0),  # prose after it
        (f"```\n[{ONE}]\n```", FaultKind.SURROUNDING_TEXT, 1, 0),  # a fence without its language
        (f"```json\n[{ONE}]\n```\n```json\n[{TWO}]\n```", FaultKind.SURROUNDING_TEXT, 2, 0),  # a second fence
        (f"[{ONE},]", FaultKind.UNREADABLE, 1, 0),  # trailing comma
        (f"[{ONE}, {TWO[:-3]}", FaultKind.TRUNCATED, 1, 0),  # cut off inside the second item
        (f"```json\n[{ONE},", FaultKind.TRUNCATED, 1, 0),  # cut off between items
        ('[{"bbox_2d": [1, 2, 3], "label": "cat"}]', FaultKind.NOT_FOUR_NUMBERS, 0, 1),  # three numbers
        (
            '[{"bbox_2d": ["1", "2", "3", "4"], "label": "cat"}]',
            FaultKind.OTHER_BOX_FORM,
            1,
            0,
        ),  # strings for numbers: read, with a fault
        ('[{"bbox_2d": [true, 2, 3, 4], "label": "cat"}]', FaultKind.NOT_FOUR_NUMBERS, 0, 1),  # a truth value
        ('[{"bbox_2d": [NaN, 2, 3, 4], "label": "cat"}]', FaultKind.UNREADABLE, 0, 1),  # NaN is no JSON
        ('[{"bbox_2d": [1e999, 2, 3, 4], "label": "cat"}]', FaultKind.UNREADABLE, 0, 1),  # beyond float64
        ('[{"bbox_2d": [1.0, 2, 3, 4], "label": "cat"}]', FaultKind.WRONG_NUMBER_FORM, 1, 0),  # a float
        ('[{"bbox_2d": [1, 2, 3, 4]}]', FaultKind.WRONG_KEYS, 1, 0),  # no label
        ('[{"bbox_2d": [1, 2, 3, 4], "label": " "}]', FaultKind.WRONG_KEYS, 1, 0),  # a blank label
        ('[{"bbox_2d": [1, 2, 3, 4], "label": 7}]', FaultKind.WRONG_KEYS, 1, 0),  # a label that is no text
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "cat", "score": 1}]', FaultKind.WRONG_KEYS, 1, 0),  # an extra key
        (
            '[{"bbox_2d": [1, 2, 3, 4], "bbox_2d": [5, 6, 7, 8], "label": "cat"}]',
            FaultKind.WRONG_KEYS,
            0,
            1,
        ),  # a repeated key
        ('[{"bbox_2d": [30, 20, 10, 40], "label": "cat"}]', FaultKind.INVERTED, 1, 0),  # reversed: still one box
        ('[{"bbox_2d": [10, 20, 10, 40], "label": "cat"}]', FaultKind.INVERTED, 0, 1),  # empty
        ('[{"bbox_2d": [-1, 20, 30, 40], "label": "cat"}]', FaultKind.OUT_OF_BOUNDS, 1, 0),  # clipped
        ('[{"bbox_2d": [10, 20, 201, 40], "label": "cat"}]', FaultKind.OUT_OF_BOUNDS, 1, 0),  # one pixel too far
        ('[{"bbox_2d": [500, 20, 600, 40], "label": "cat"}]', FaultKind.OUT_OF_BOUNDS, 0, 1),  # wholly outside
        (f'[{{"bbox_2d": [1, 2, {10**30}, 4], "label": "cat"}}]', FaultKind.OUT_OF_BOUNDS, 1, 0),  # a huge integer
    ],
)
def test_faults(text: str, fault: FaultKind, boxes: int, malformed: int) -> None:
    reply = parse(text)
    assert fault in [found.kind for found in reply.faults]
    assert not reply.well_formed
    assert (len(reply.boxes), reply.num_malformed) == (boxes, malformed)


def test_an_unknown_label_is_no_format_fault() -> None:
    reply = parse('[{"bbox_2d": [1, 2, 3, 4], "label": "zebra"}, {"bbox_2d": [1, 2, 3, 4], "label": " CAT "}]')
    assert [(fault.kind, fault.item) for fault in reply.faults] == [(FaultKind.UNKNOWN_LABEL, 0)]
    assert reply.well_formed and len(reply.boxes) == 2


def test_model_pixels_become_original_pixels() -> None:
    reply = QWEN.parse(f"[{ONE}]", size_wh=(400, 50), input_size_wh=SIZE)
    assert reply.boxes.xyxy.tolist() == [[20, 10, 60, 20]]
