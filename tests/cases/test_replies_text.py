"""Boxes in lines, tables, attributes and prose, as models write them that were not asked for JSON, or forgot it.

The picture holds a cat and a dog. Tags and brackets are those of Qwen2-VL, InternVL (without its special tokens),
CogVLM and DeepSeek-VL2; ms-swift 8063 has tags as the value of a key.
"""

import pytest

from visionr1.dialects import get_dialect
from visionr1.samples import Reply

SIZE = (1000, 1000)
A, B = [10, 20, 110, 220], [210, 20, 310, 220]


def parse(text: str, *categories: str, dialect: str = "qwen3") -> Reply:
    return get_dialect(dialect).parse(text, size_wh=SIZE, input_size_wh=SIZE, categories=categories or ("cat", "dog"))


BOTH = [
    f"- bbox_2d: {A}\n  label: cat\n- bbox_2d: {B}\n  label: dog",  # YAML
    f'- label: "cat"\n  bbox_2d: {A}\n- label: "dog"\n  bbox_2d: {B}',
    f"```yaml\n- label: cat\n  bbox: {A}\n- label: dog\n  bbox: {B}\n```",
    "- label: cat\n  bbox:\n    - 10\n    - 20\n    - 110\n    - 220\n"
    "- label: dog\n  bbox:\n    - 210\n    - 20\n    - 310\n    - 220",
    f"cat:\n  - {A}\ndog:\n  - {B}",
    f"cat:\n  bbox_2d: {A}\ndog:\n  bbox_2d: {B}",
    f"bbox_2d: {A}\nlabel: cat\n\nbbox_2d: {B}\nlabel: dog",
    f"label: cat, bbox_2d: {A}\nlabel: dog, bbox_2d: {B}",
    f'"bbox_2d": {A}, "label": "cat"\n"bbox_2d": {B}, "label": "dog"',
    "label: cat, bbox: (10, 20), (110, 220)\nlabel: dog, bbox: (210, 20), (310, 220)",
    f"**cat**\n- bbox_2d: {A}\n\n**dog**\n- bbox_2d: {B}",
    f"1) cat - bbox: {A}\n2) dog - bbox: {B}",
    "cat: x1=10, y1=20, x2=110, y2=220\ndog: x1=210, y1=20, x2=310, y2=220",
    f"| label | bbox_2d |\n|---|---|\n| cat | {A} |\n| dog | {B} |",  # tables
    f"| bbox_2d | label |\n|---|---|\n| {A} | cat |\n| {B} | dog |",
    f"| # | Object | Box |\n|:--|:--|--:|\n| 1 | cat | {A} |\n| 2 | dog | {B} |",
    "| Object | x1 | y1 | x2 | y2 |\n|---|---|---|---|---|\n"
    "| cat | 10 | 20 | 110 | 220 |\n| dog | 210 | 20 | 310 | 220 |",
    "label,x1,y1,x2,y2\ncat,10,20,110,220\ndog,210,20,310,220",
    "cat 10 20 110 220\ndog 210 20 310 220",
    "cat: 10, 20, 110, 220\ndog: 210, 20, 310, 220",
    f"* cat — {A}\n* dog — {B}",  # bullets
    f"• cat → {A}\n• dog → {B}",
    f"### cat\n{A}\n### dog\n{B}",
    f"cat\n{A}\ndog\n{B}",
    f"{A} cat\n{B} dog",
    f"{A}: cat\n{B}: dog",
    f"cat 0.95 {A}\ndog 0.9 {B}",
    f"Cat (left): {A}\nDog (right): {B}",
    "cat (10, 20, 110, 220)\ndog (210, 20, 310, 220)",
    "- cat: (10, 20), (110, 220)\n- dog: (210, 20), (310, 220)",
    "- cat: (10, 20) to (110, 220)\n- dog: (210, 20) to (310, 220)",
    "cat(10,20),(110,220)dog(210,20),(310,220)",  # Qwen2-VL without its special tokens
    '<object label="cat" bbox="10, 20, 110, 220"/><object label="dog" bbox="210, 20, 310, 220"/>',
    f"<cat>{A}</cat><dog>{B}</dog>",
    '[{"bbox": <|box_start|>(10,20),(110,220)<|box_end|>, "label": "cat"}, '
    '{"bbox": <|box_start|>(210,20),(310,220)<|box_end|>, "label": "dog"}]',
]


@pytest.mark.parametrize("text", BOTH)
def test_labels_and_boxes_in_lines(text: str) -> None:
    reply = parse(text)
    assert reply.boxes.xyxy.tolist() == [A, B]
    assert [label.lower() for label in reply.boxes.labels] == ["cat", "dog"]
    assert reply.num_malformed == 0 and not reply.well_formed
    assert "truncated" not in {fault.kind for fault in reply.faults}


@pytest.mark.parametrize(
    "text",
    [
        *("xmin=10, ymin=20, xmax=110, ymax=220", "left: 10, top: 20, right: 110, bottom: 220"),
        *("- x1: 10\n- y1: 20\n- x2: 110\n- y2: 220", "**x1**: 10, **y1**: 20, **x2**: 110, **y2**: 220"),
        *('"x1": 10, "y1": 20, "x2": 110, "y2": 220', "[bbox_2d: 10, 20, 110, 220]", "{10, 20, 110, 220}"),
        *("\\boxed{10, 20, 110, 220}", "The cat is located at (10, 20) to (110, 220).", '["10", "20", "110", "220"]'),
        *("top-left (10, 20), bottom-right (110, 220)", "Top-left: (10, 20), Bottom-right: (110, 220)"),
        *("坐标：（10，20），（110，220）", "[x1, y1, x2, y2] = [10, 20, 110, 220]", "[[010,020,110,220]]"),
        *('<rect x1="10" y1="20" x2="110" y2="220"/>', '<rect x="10" y="20" width="100" height="200"/>'),
        "<object><name>cat</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>110</xmax><ymax>220</ymax></bndbox></object>",
    ],
)
def test_one_box_of_the_one_category(text: str) -> None:
    reply = parse(text, "cat")
    assert reply.boxes.xyxy.tolist() == [A] and reply.boxes.labels == ("cat",)
    assert reply.num_malformed == 0 and not reply.well_formed


@pytest.mark.parametrize("dialect", ["qwen3", "internvl"])
def test_the_boxes_of_cogvlm_are_separated_by_semicolons(dialect: str) -> None:
    for text in ("[[010,020,110,220;210,020,310,220]]", "A cat [[010,020,110,220;210,020,310,220]] here."):
        reply = parse(text, "cat", dialect=dialect)
        assert reply.boxes.xyxy.tolist() == [A, B] and reply.num_malformed == 0


@pytest.mark.parametrize(
    "text", ["<ref>cat</ref><box>[[x1, y1, x2, y2]]</box>", "<box>[[x1,y1,x2,y2]]</box>", "(x1, y1), (x2, y2)"]
)
@pytest.mark.parametrize("dialect", ["qwen3", "internvl"])
def test_a_template_is_no_box(text: str, dialect: str) -> None:
    reply = parse(text, dialect=dialect)
    assert reply.num_predicted == 0 and not reply.well_formed


@pytest.mark.parametrize(
    "text",
    [
        "There are 2 cats at 10 and 20, seen from 110 to 220 degrees.",
        "Objects: none. Location: not in the image.",
        "label: cat\nbbox: none",
        "Width: 1000, height: 1000. The cat (1) and the dog (2, 3) are not here.",
        "| label | bbox_2d |\n|---|---|",
        "Date: 2024, 1, 2. Time: 10:20:30:40",
    ],
)
def test_numbers_in_prose_are_no_boxes(text: str) -> None:
    assert len(parse(text).boxes) == 0 and parse(text).num_malformed == 0


@pytest.mark.parametrize(
    "piece", ["bbox: [1,2,3,4]\n", "x1: 1\n", "<xmin>1</xmin>", "| 1 ", "[1,2,3,4] cat\n", "1 2 3 4\n"]
)
def test_a_text_of_a_megabyte_is_read_in_one_pass(piece: str) -> None:
    # Time that grows with the square of the length would not end here.
    text = (piece * (1_000_000 // len(piece) + 1))[:1_000_000]
    for dialect in ("qwen3", "griffon"):
        assert len(parse(text, dialect=dialect).boxes) <= 1000
