"""Lists in JSON of any form: keys, orders and grids by name, Gemini's and LFM's among them, and hard cases of each."""

import pytest

from support.reading import SIZE, boxes, kinds, read
from visionr1.dialects import Dialect, get_dialect, instruction, resolve_dialect
from visionr1.errors import RecipeError
from visionr1.samples import Boxes, Query

ONE = Boxes.of([[100, 50, 300, 400]], ["cat"])


@pytest.mark.parametrize(
    ("name", "canonical", "item"),
    [
        ("json:", "json:key=bbox_2d,order=xyxy,grid=1000", '{"bbox_2d": [100, 100, 300, 800], "label": "cat"}'),
        ("json:grid=1", "json:key=bbox_2d,order=xyxy,grid=1", '{"bbox_2d": [0.1, 0.1, 0.3, 0.8], "label": "cat"}'),
        (
            "json:grid=image",
            "json:key=bbox_2d,order=xyxy,grid=image",
            '{"bbox_2d": [100, 50, 300, 400], "label": "cat"}',
        ),
        ("json:grid=input", "json:key=bbox_2d,order=xyxy,grid=input", '{"bbox_2d": [3, 3, 8, 22], "label": "cat"}'),
        (
            "json:order=yxyx,key=box",  # in any order
            "json:key=box,order=yxyx,grid=1000",
            '{"box": [100, 100, 800, 300], "label": "cat"}',
        ),
        (
            "json:label=name,",
            "json:key=bbox_2d,order=xyxy,grid=1000,label=name",
            '{"bbox_2d": [100, 100, 300, 800], "name": "cat"}',
        ),
        (
            "json:key=Position,label=none",
            "json:key=Position,order=xyxy,grid=1000,label=none",
            '{"Position": [100, 100, 300, 800]}',
        ),
        ("gemini", "gemini", '{"box_2d": [100, 100, 800, 300], "label": "cat"}'),
        ("lfm", "lfm", '{"label": "cat", "bbox": [0.1, 0.1, 0.3, 0.8]}'),
    ],
)
def test_a_name_says_the_form(name: str, canonical: str, item: str) -> None:
    dialect = get_dialect(name)
    assert dialect.name == canonical
    assert get_dialect(canonical) == dialect and resolve_dialect(f"think+{name}").name == f"think+{canonical}"
    assert dialect.in_model_px is ("input" in name)
    text = dialect.render(ONE, size_wh=SIZE, input_size_wh=(28, 28))
    assert text == f"```json\n[\n\t{item}\n]\n```"
    reply = read(dialect, text, "cat")
    assert reply.well_formed and reply.boxes.labels == ("cat",)
    assert abs(reply.boxes.xyxy - ONE.xyxy).max() <= (18 if "input" in name else 0.01)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("json:key", "expected parts as in 'json:key=bbox_2d,order=xyxy,grid=1000,label=label', found 'key'"),
        ("json:scale=1", "found 'scale=1'"),
        ("json:key=a,key=b", "key stands twice"),
        ("json:grid=999", "grid: expected one of 1000, 1, input, image, found '999'"),
        ("json:order=xy", "order: expected one of xyxy, yxyx, found 'xy'"),
        ("json:key=", "key: expected a key such as bbox_2d, found ''"),
        ('json:key="},', "key: expected a key"),
        ("json:key={}", "key: expected a key"),
        ("json:key=label", "key and label: expected two keys, found 'label' for both"),
        ("json:label=box 2,key=box 2", "found 'box 2' for both"),
        ("json:dumps", "found 'dumps'"),  # never Python's module of that name
    ],
)
def test_a_name_that_says_no_form_is_refused(name: str, message: str) -> None:
    for find in (get_dialect, resolve_dialect):
        with pytest.raises(RecipeError) as raised:
            find(name)
        assert message in str(raised.value) and f"dialect {name!r}" in str(raised.value)


BOX = [100.0, 50.0, 300.0, 400.0]
GEMINI, LFM, UNIT = get_dialect("gemini"), get_dialect("lfm"), get_dialect("json:grid=1")
NO_LABEL = get_dialect("json:label=none")


@pytest.mark.parametrize(
    ("dialect", "text", "expected", "faults"),
    [
        # Numbers from 0 to 1: any number of decimals, and 0 and 1 themselves.
        (UNIT, '[{"bbox_2d": [0.1, 0.1, 0.3, 0.8], "label": "cat"}]', [(BOX, "cat")], set()),
        (UNIT, '[{"bbox_2d": [0.100000, 0.1000, 0.300, 0.8], "label": "cat"}]', [(BOX, "cat")], set()),
        (UNIT, '[{"bbox_2d": [0, 0, 1, 1], "label": "cat"}]', [([0, 0, 1000, 500], "cat")], set()),
        (
            UNIT,
            '[{"bbox_2d": [0.1, 0.1, 0.3, 1.001], "label": "cat"}]',
            [([100, 50, 300, 500], "cat")],
            {"out_of_bounds"},
        ),
        (UNIT, '[{"bbox_2d": [100, 100, 300, 800], "label": "cat"}]', [], {"out_of_bounds"}),
        (UNIT, '[{"bbox_2d": [0.3, 0.1, 0.1, 0.8], "label": "cat"}]', [(BOX, "cat")], {"inverted"}),
        (UNIT, '[{"bbox_2d": [0.1, 0.1, 0.1, 0.8], "label": "cat"}]', [], {"inverted"}),
        (LFM, '[{"bbox": [0.1, 0.1, 0.3, 0.8], "label": "cat"}]', [(BOX, "cat")], set()),  # in either order
        (LFM, '[{"label": "cat", "bbox_2d": [0.1, 0.1, 0.3, 0.8]}]', [(BOX, "cat")], {"other_key"}),
        (
            LFM,
            '[{"label": "cat", "bbox": [0.1, 0.1, 0.3, 0.8]}, {"label": "dog", "bbox": [0.1, ',
            [(BOX, "cat")],
            {"truncated"},
        ),
        (LFM, "[{'label': 'cat', 'bbox': [0.1, 0.1, 0.3, 0.8]}]", [(BOX, "cat")], {"other_syntax", "unreadable"}),
        # y first, in every syntax but where sides have names.
        (GEMINI, '[{"box_2d": [100, 100, 800, 300], "label": "cat"}]', [(BOX, "cat")], set()),
        (GEMINI, '[{"box_2d": [800, 300, 100, 100], "label": "cat"}]', [(BOX, "cat")], {"inverted"}),
        (
            GEMINI,
            '[{"box_2d": [100, 100, 1001, 300], "label": "cat"}]',
            [([100, 50, 300, 500], "cat")],
            {"out_of_bounds"},
        ),
        (GEMINI, '[{"box_2d": [100, 100.0, 800, 300], "label": "cat"}]', [(BOX, "cat")], {"wrong_number_form"}),
        (GEMINI, '[{"box": [100, 100, 800, 300], "label": "cat"}]', [(BOX, "cat")], {"other_key"}),
        (
            GEMINI,
            "box_2d: [100, 100, 800, 300], label: cat",
            [(BOX, "cat")],
            {"other_key", "other_box_form", "other_syntax", "surrounding_text"},
        ),
        (GEMINI, "cat: [100, 100, 800, 300]", [(BOX, "cat")], {"surrounding_text"}),
        (
            GEMINI,
            '[{"box_2d": {"xmin": 100, "ymin": 100, "xmax": 300, "ymax": 800}, "label": "cat"}]',
            [(BOX, "cat")],
            {"other_box_form"},
        ),
        (
            GEMINI,
            '[{"x1": 100, "y1": 100, "x2": 300, "y2": 800, "label": "cat"}]',
            [(BOX, "cat")],
            {"other_box_form", "wrong_keys"},
        ),
        (GEMINI, '[{"xyxy": [100, 100, 300, 800], "label": "cat"}]', [(BOX, "cat")], {"other_key"}),
        # Another family's key with another order, and its tags, are not read.
        (GEMINI, '[{"bbox_2d": [100, 100, 300, 800], "label": "cat"}]', [], {"not_four_numbers"}),
        (GEMINI, "<ref>cat</ref><box>[[100, 100, 300, 800]]</box>", [], {"unreadable"}),
        (UNIT, '[{"box_2d": [0.1, 0.1, 0.3, 0.8], "label": "cat"}]', [], {"not_four_numbers"}),
        (get_dialect("json:key=box_2d"), '[{"box_2d": [100, 100, 300, 800], "label": "cat"}]', [(BOX, "cat")], set()),
        (get_dialect("json:order=yxyx"), '[{"bbox_2d": [100, 100, 800, 300], "label": "cat"}]', [(BOX, "cat")], set()),
        # Another key may be named, and a label key.
        (get_dialect("json:key=where"), '[{"where": [100, 100, 300, 800], "label": "cat"}]', [(BOX, "cat")], set()),
        (get_dialect("json:key=where"), '[{"where": [100, 100, 300, 8', [], {"truncated"}),
        (get_dialect("json:label=what"), '[{"bbox_2d": [100, 100, 300, 800], "what": "cat"}]', [(BOX, "cat")], set()),
        (
            get_dialect("json:label=what"),
            '[{"bbox_2d": [100, 100, 300, 800], "label": "cat"}]',
            [(BOX, "cat")],
            {"other_key"},
        ),
        # A point is no box.
        (GEMINI, '[{"point": [100, 300], "label": "cat"}]', [], {"not_four_numbers", "wrong_keys"}),
        (UNIT, '[{"point_2d": [100, 300], "label": "cat"}]', [], {"not_four_numbers", "wrong_keys"}),
    ],
)
def test_hard_cases(dialect: Dialect, text: str, expected: list[tuple[list[float], str]], faults: set[str]) -> None:
    reply = read(dialect, text)
    assert boxes(reply) == expected
    assert kinds(reply) - {"wrong_keys"} == faults - {"wrong_keys"}
    assert reply.well_formed is (not faults)


def test_items_without_a_label_are_of_the_one_category_asked_for() -> None:
    text = '[{"bbox_2d": [100, 100, 300, 800]}]'
    assert read(NO_LABEL, text, "cat").well_formed and boxes(read(NO_LABEL, text, "cat")) == [(BOX, "cat")]
    assert kinds(read(NO_LABEL, text, "cat", "dog")) == {"wrong_keys"}
    labelled = '[{"bbox_2d": [100, 100, 300, 800], "label": "cat"}]'
    assert kinds(read(NO_LABEL, labelled, "cat")) == {"wrong_keys"} and boxes(read(NO_LABEL, labelled, "cat")) == [
        (BOX, "cat")
    ]
    two = Boxes.of([[0, 0, 9, 9], [0, 0, 9, 9]], ["cat", "dog"])
    with pytest.raises(ValueError, match="boxes are labelled cat, dog, but this dialect writes no labels: ask for one"):
        NO_LABEL.render(two, size_wh=SIZE, input_size_wh=SIZE)


def test_geminis_prompt_is_googles() -> None:
    asked = instruction(Query("grounding", ("cat",)), "gemini")
    assert asked.endswith("The box_2d should be [ymin, xmin, ymax, xmax] normalized to 0-1000.")
    assert asked.startswith("Detect every cat in the image.")
