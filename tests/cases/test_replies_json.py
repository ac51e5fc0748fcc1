"""More replies in JSON as models and users write them: each is the cat and the dog of the picture, or nothing at all.

Forms stand in public reports: QwenLM/Qwen3-VL 1720, modelscope/ms-swift 4898 and 8063, om-ai-lab/VLM-R1 112; keys are
those of COCO, Florence-2's lists side by side, LabelMe and Pascal VOC; templates those of prompts.
"""

import json

import pytest

from visionr1.dialects import get_dialect
from visionr1.samples import Reply

SIZE = (1000, 1000)
A, B = [10, 20, 110, 220], [210, 20, 310, 220]
CAT, DOG = f'{{"bbox_2d": {A}, "label": "cat"}}', f'{{"bbox_2d": {B}, "label": "dog"}}'
LIST = f"[{CAT}, {DOG}]"


def parse(text: str, *categories: str) -> Reply:
    return get_dialect("qwen3").parse(text, size_wh=SIZE, input_size_wh=SIZE, categories=categories or ("cat", "dog"))


def assert_both(text: str) -> None:
    reply = parse(text)
    assert reply.boxes.xyxy.tolist() == [A, B] and reply.boxes.labels == ("cat", "dog")
    assert reply.num_malformed == 0 and not reply.well_formed
    assert "truncated" not in {fault.kind for fault in reply.faults}


@pytest.mark.parametrize(("opening", "closing"), ["``", "«»", "「」", "『』", "＂＂", "‘’", "“”", "''"])
def test_quotes_of_other_kinds(opening: str, closing: str) -> None:
    def quote(text: str) -> str:
        return f"{opening}{text}{closing}"

    items = [
        f"{{{quote('bbox_2d')}: {box}, {quote('label')}: {quote(name)}}}" for box, name in ((A, "cat"), (B, "dog"))
    ]
    assert_both(f"[{', '.join(items)}]")


@pytest.mark.parametrize(
    "item",
    [
        f'{{"bbox_2d": {A}, "label": "cat" "}}',  # a quote too many
        f'{{"bbox_2d": {A}, label": "cat"}}',  # one lost, in every place
        f'{{bbox_2d": {A}, "label": "cat"}}',
        f'{{"bbox_2d: {A}, "label": "cat"}}',
        f'{{"bbox_2d": {A}, "label: "cat"}}',
        f'{{"bbox_2d": {A}, "label": cat"}}',
        f'{{"bbox_2d": "{A}, "label": "cat"}}',
        f'{{"bbox_2d": {A}", "label": "cat"}}',
        f'{{"bbox_2d": {A}, "label": "cat\'}}',
        '{"bbox_2d": [10, 20, 110, 220}, "label": "cat"}',  # a wrong bracket
        '{"bbox_2d": [10, 20, 110, 220)], "label": "cat"}',
        '{"bbox_2d": [10, 20, 110, 220]], "label": "cat"}',
        '{"bbox_2d": [10, 20, 110, 220, "label": "cat"}',
        '{"bbox_2d" => [10, 20, 110, 220], "label" => "cat"}',  # another colon
        '{"bbox_2d": [x1=10, y1=20, x2=110, y2=220], "label": "cat"}',
        '{"bbox_2d": [x1: 10, y1: 20, x2: 110, y2: 220], "label": "cat"}',
        '{"bbox_2d": ((10, 20), (110, 220)), "label": "cat"}',
        '{"bbox_2d": (10, 20), (110, 220), "label": "cat"}',
        '{"bbox_2d": ["10px", "20px", "110px", "220 px"], "label": "cat"}',
        '{"bbox_2d": [10px, 20px, 110px, 220px], "label": "cat"}',
        '{"bbox_2d": [１０, ２０, １１０, ２２０], "label": "cat"}',
        '{"bbox_2d": {"top_left": [10, 20], "bottom_right": [110, 220]}, "label": "cat"}',
        '{"label": "cat", "upper_left": {"x": 10, "y": 20}, "lower_right": {"x": 110, "y": 220}}',
        '{"bbox_2d": {"x0": 10, "y0": 20, "x1": 110, "y1": 220}, "label": "cat"}',
        *(f'{{"{key}": {A}, "label": "cat"}}' for key in ("coord", "box_xyxy", "bb", "roi", "area", "pred_bbox", "框")),
        *(f'{{"bbox_2d": {A}, "{key}": "cat"}}' for key in ("caption", "cls", "ref", "animal", "text_content", "类别")),
        f'{{"bbox_2d": {A}, "labels": ["cat"]}}',
        f'{{"bbox_2d": {A}, "label": {{"name": "cat"}}}}',
        f'{{"bbox_2d": {A}, "label": ["cat"]}}',
        f'{{"bbox_2d": {A}, "color": "black", "animal": "cat"}}',
        f'["cat", {A}]',
        '["cat", 10, 20, 110, 220]',
    ],
)
def test_an_item_in_another_form(item: str) -> None:
    assert_both(f"[{item}, {DOG}]")


@pytest.mark.parametrize(
    "text",
    [
        f'{{"bboxes": [{A}, {B}], "labels": ["cat", "dog"]}}',
        f'{{"labels": ["cat", "dog"], "boxes": [{A}, {B}], "scores": [0.9, 0.8]}}',
        f'{{"bbox_2d": [{A}, {B}], "label": ["cat", "dog"]}}',
        f"\\boxed{{{LIST}}}",
        json.dumps({"answer": LIST}),  # the list as a text
        json.dumps({"response": f"```json\n{LIST}\n```"}),
        json.dumps([CAT, DOG]),
        LIST.replace('"', "&quot;"),
        f'<tool_call>{{"name": "detect", "arguments": {{"objects": {LIST}}}}}</tool_call>',
    ],
)
def test_a_list_in_another_form(text: str) -> None:
    assert_both(text)


@pytest.mark.parametrize(
    "text",
    [
        *('["none"]', '["None"]', '["no objects"]', '["没有"]', '{"label": "none", "bbox_2d": null}'),
        *('{"bbox_2d": [], "label": ""}', '[{"bbox_2d": [], "label": "none"}]', '[{"bbox_2d": null, "label": null}]'),
        '{"label": "cat", "color": [255, 0, 0, 1]}',
        *('[{"cat": []}, {"dog": []}]', '[{"label": "cat", "bboxes": []}]', '{"result": "no objects"}'),
    ],
)
def test_empty_results_are_no_false_boxes(text: str) -> None:
    reply = parse(text)
    assert reply.num_predicted == 0 and not reply.well_formed


@pytest.mark.parametrize(
    "box",
    [
        *('"[x1, y1, x2, y2]"', "[x₁, y₁, x₂, y₂]", "[$x_1$, $y_1$, $x_2$, $y_2$]", "[a, b, c, d]", "[坐标]"),
        *("[top_left_x, top_left_y, bottom_right_x, bottom_right_y]", "[_, _, _, _]", "[?, ?, ?, ?]", '"<bbox>"'),
        *("<bbox>", "[<x1>, <y1>, <x2>, <y2>]", '{"type": "array", "items": {"type": "integer"}}'),
    ],
)
def test_a_template_is_no_prediction(box: str) -> None:
    template = f'{{"bbox_2d": {box}, "label": "name"}}'
    assert parse(template).num_predicted == 0
    assert_both(f"{template}\n{LIST}")


def test_a_text_beside_items_is_not_read_for_boxes() -> None:
    # What stands in a thought, or in a description, is no answer.
    assert_both(json.dumps({"thought": f"The cat may be {CAT}", "objects": [json.loads(CAT), json.loads(DOG)]}))


def test_a_label_with_an_apostrophe_or_an_inch_mark_keeps_it() -> None:
    for label in ("the dogs'", '15"', "cat's", "rock 'n' roll"):
        assert parse(f"[{json.dumps({'bbox_2d': A, 'label': label})}]").boxes.labels == (label,)
