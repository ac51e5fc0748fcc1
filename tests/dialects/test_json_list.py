"""JSON as models write it: what is a box, what is none, what was lost, and when a reply was cut off."""

import json

import pytest

from visionr1.dialects import get_dialect
from visionr1.samples import FaultKind, Reply

SIZE = (1000, 1000)
A, B = [10, 20, 110, 220], [210, 20, 310, 220]
CAT, DOG = '{"bbox_2d": [10, 20, 110, 220], "label": "cat"}', '{"bbox_2d": [210, 20, 310, 220], "label": "dog"}'


def parse(text: str, *categories: str) -> Reply:
    return get_dialect("qwen3").parse(text, size_wh=SIZE, input_size_wh=SIZE, categories=categories or ("cat", "dog"))


def kinds(reply: Reply) -> set[str]:
    return {str(fault.kind) for fault in reply.faults}


@pytest.mark.parametrize(
    "label",
    [
        '"15" tv"',  # an inch mark
        '"the "big" cat"',
        'cat"',  # no opening quote
        '"cat',  # no closing one
        "cat",  # none at all
        '"black\ncat"',  # a line break
        '"black\r\ncat"',
        '"a\tcat"',
        '"cat\\_1"',  # an escape that JSON does not know
        '"\\ud83d"',  # half a character
        "'cat's'",
        "“cat”",
        '"cat", // the first one\n',
        '"cat", /* not sure */ "score": .5',
    ],
)
def test_a_stray_quote_or_line_break_costs_no_other_box(label: str) -> None:
    first = f'{{"bbox_2d": [900, 900, 950, 950], "label": {label}}}'
    for separator in (", ", ",\n\t", "\n"):
        reply = parse(f"[{first}{separator}{CAT}{separator}{DOG}]")
        assert reply.boxes.xyxy.tolist() == [[900, 900, 950, 950], A, B]
        assert reply.boxes.labels[1:] == ("cat", "dog") and reply.num_malformed == 0
        assert not reply.well_formed
        last = parse(f"[{CAT}{separator}{first}]")
        assert last.boxes.xyxy.tolist() == [A, [900, 900, 950, 950]]


@pytest.mark.parametrize("escape", [1, 2])
def test_a_list_that_was_escaped_or_written_into_a_text(escape: int) -> None:
    text = f"[{CAT}, {DOG}]"
    for _ in range(escape):
        text = json.dumps(text)
    for written in (text, text[1:-1]):
        assert parse(written).boxes.xyxy.tolist() == [A, B]


@pytest.mark.parametrize(
    "text",
    [
        '{"boxes": []}',
        '{"objects": []}',
        '```json\n{"detections": []}\n```',
        "{}",
        "[{}]",
        "[[]]",
        '{"answer": "nothing"}',
        "The answer is \\boxed{2}.",
        'I fill in {"bbox_2d": [x1, y1, x2, y2], "label": "name"} and see nothing.',
        'The form is {"bbox_2d": ["x1", "y1", "x2", "y2"], "label": "..."}',
        "As figure [1] and [2, 3] show, there is none: []",
        "f(x) = {x, y}",
        "[10, 20, 110]",
    ],
)
def test_what_holds_no_box_is_no_prediction(text: str) -> None:
    assert parse(text).num_predicted == 0
    with_boxes = parse(f"{text}\n[{CAT}, {DOG}]")
    assert with_boxes.boxes.xyxy.tolist() == [A, B] and with_boxes.num_malformed == 0


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("[10, 20, 110, 220]", [A]),  # one box, not four items
        ("[[10, 20, 110, 220]]", [A]),
        ("[[10, 20, 110, 220], [210, 20, 310, 220]]", [A, B]),
        ("[[10, 20], [110, 220]]", [A]),  # two corners
        ("It is at [10, 20, 110, 220].", [A]),
        ("```json\n[10, 20, 110, 220]\n```", [A]),
        ('{"bbox_2d": [[10, 20, 110, 220], [210, 20, 310, 220]], "label": "cat"}', [A, B]),
        ('[{"bbox_2d": [[10, 20], [110, 220]], "label": "cat"}]', [A]),
        ('[{"bbox_2d": [10, 20, 110, 220, 0.9], "label": "cat"}]', [A]),  # a score behind
        ('[{"bbox_2d": "10 20 110 220", "label": "cat"}]', [A]),
        ('[{"bbox_2d": "(10,20),(110,220)", "label": "cat"}]', [A]),
        ('[{"bbox_2d": {"xmin": 10, "ymin": 20, "xmax": 110, "ymax": 220}, "label": "cat"}]', [A]),
        ('[{"x": 10, "y": 20, "width": 100, "height": 200, "label": "cat"}]', [A]),
        ('[{"label": "cat", "boxes": [[10, 20, 110, 220], [210, 20, 310, 220]]}]', [A, B]),
        ('{"cat": [10, 20, 110, 220]}', [A]),
        ('[{"cat": {"bbox_2d": [10, 20, 110, 220]}}]', [A]),
        ('[["cat", [10, 20, 110, 220]]]', [A]),
        ("[{'Position': [10, 20, 110, 220], 'Confidence': 0.9}]", [A]),
        ('[{"bbox_2d": [10, 20, 110, 220], "object_name": "cat"}]', [A]),
        ('[{"bbox_2d"：[10，20，110，220]，"label"："cat"}]', [A]),
        ('[{"bbox_2d":\u00a0[10,\u00a020,\u00a0110,\u00a0220], "label": "cat"}]', [A]),
        ('[{{"bbox_2d": [10, 20, 110, 220], "label": "cat"}}]', [A]),  # the braces of a template
    ],
)
def test_other_forms_of_a_box(text: str, boxes: list[list[int]]) -> None:
    reply = parse(text, "cat")
    assert reply.boxes.xyxy.tolist() == boxes
    assert set(reply.boxes.labels) == {"cat"} and reply.num_malformed == 0
    assert not reply.well_formed


@pytest.mark.parametrize(
    "box",
    [
        "[1, 2, 3]",
        "[1, 2, 3, 4, 5]",
        "[1, 2, 3, 4, 5, 6, 7, 8, 9]",
        "[true, 2, 3, 4]",
        "[a, 2, 3, 4]",
        '"left"',
        "7",
        "[]",
    ],
)
def test_an_item_without_a_usable_box_counts(box: str) -> None:
    reply = parse(f'[{{"bbox_2d": {box}, "label": "cat"}}, {DOG}]')
    assert reply.boxes.xyxy.tolist() == [B] and reply.num_malformed == 1
    assert "not_four_numbers" in kinds(reply)


@pytest.mark.parametrize(
    ("text", "kind", "boxes"),
    [
        (f"{CAT}\n{DOG}", FaultKind.NOT_A_LIST, 2),  # JSON Lines
        (f"{CAT},\n{DOG}", FaultKind.NOT_A_LIST, 2),
        (f"The cat: {CAT}", FaultKind.SURROUNDING_TEXT, 1),
        (f"See [1]: [{CAT}]", FaultKind.SURROUNDING_TEXT, 1),
        (f"A stray [ in prose, then [{CAT}]", None, 1),
        (f"[{CAT}]\n```", FaultKind.SURROUNDING_TEXT, 1),
        ("I see [nothing", FaultKind.UNREADABLE, 0),
        ("cat[[10, 20, 110, 220]]", FaultKind.SURROUNDING_TEXT, 1),
    ],
)
def test_a_complete_reply_is_not_called_cut_off(text: str, kind: FaultKind | None, boxes: int) -> None:
    reply = parse(text)
    if kind:
        assert kind in kinds(reply) and "truncated" not in kinds(reply)
    assert len(reply.boxes) == boxes


@pytest.mark.parametrize(
    "text",
    [f"[{CAT}, {DOG[:20]}", f"[{CAT},", f"```json\n[{CAT}", f'{{"objects": [{CAT}, {{"bbox', f"[{CAT[:-3]}", "["],
)
def test_what_is_still_open_is_cut_off(text: str) -> None:
    assert "truncated" in kinds(parse(text))


@pytest.mark.parametrize(
    "piece",
    [
        *(
            '{"a":',
            "[",
            "{",
            '"',
            "'",
            "\\",
            '"}, {',
            "}{",
            "[]",
            "[1,",
            "/*",
            "{'bbox': '",
            "</think>",
            "x1=1, ",
            "(1,2),",
        ),
        *("<box>(", "<ref>", '{\\"', "<|box_start|>", "cat[[1, 2, 3, 4]]", CAT, "[[", "，", "“"),
    ],
)
@pytest.mark.parametrize("name", ["qwen3", "internvl", "griffon", "open-think+qwen25"])
def test_a_text_of_a_megabyte_is_read_in_one_pass(piece: str, name: str) -> None:
    # Time that grows with the square of the length would not end here.
    text = (piece * (1_000_000 // len(piece) + 1))[:1_000_000]
    reply = get_dialect(name).parse(text, size_wh=SIZE, input_size_wh=SIZE, categories=("cat", "dog"))
    assert len(reply.boxes) <= 1000 and len(reply.faults) < 10_000


@pytest.mark.parametrize(
    "piece",
    [
        *("<loc0001>", "<loc0001> cat ; ", "<loc_1>", "cat<loc_1>", "<loc", "<loc_1", "<seg001>", ";", "; ", "a ;"),
        *("<1>", "<1><2><3><4>", "<1><2><3><4>,", "<", "<|object_ref_start|>", "<|box_start|><1>", "<|box_end|>"),
        *("<phrase>", "<object>", "<patch_index_0001>", "</delimiter_of_multi_objects/>", "(1,2),(3,4)", "(1,2),("),
        *("<|ref|>", "<|det|>[[", "<box>1 2 3 4", "<ref>cat</ref><box>", "<|begin_of_box|>", "<|begin_of_box|>[[1,"),
        *("\n", "\n[1]" + "\n" * 300_000, "</s>", "<points x1=", "<point>"),
    ],
)
@pytest.mark.parametrize("name", ["qwen2vl", "rex", "kosmos2", "paligemma", "florence2", "glm", "minicpm"])
def test_tokens_of_a_third_of_a_megabyte_are_read_in_one_pass(piece: str, name: str) -> None:
    # Time that grows with the square of the length would not end here.
    text = (piece * (300_000 // len(piece) + 1))[:300_000]
    reply = get_dialect(name).parse(text, size_wh=SIZE, input_size_wh=SIZE, categories=("cat",))
    assert len(reply.boxes) <= 1000 and len(reply.faults) < 10_000


@pytest.mark.parametrize(
    "text",
    [
        "cat: [10, 20, 110, 220]\ndog: [210, 20, 310, 220]",
        "cat[[10, 20, 110, 220]]\ndog[[210, 20, 310, 220]]",
        "- **cat**: `[10, 20, 110, 220]`\n- **dog**: `[210, 20, 310, 220]`",
        "The cat is at [10, 20, 110, 220] and the dog at [210, 20, 310, 220].",
        "[{'bbox_2d': (10, 20, 110, 220), 'label': 'cat'}, {'bbox_2d': (210, 20, 310, 220), 'label': 'dog'}]",
    ],
)
def test_labels_before_their_boxes_and_pythons_tuples(text: str) -> None:
    reply = parse(text)
    assert reply.boxes.xyxy.tolist() == [A, B] and reply.boxes.labels == ("cat", "dog")
    assert not reply.well_formed
