"""A broken reply is never paid more than the whole one: both are read by one reader of objects and one of items."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionr1.dialects import get_dialect
from visionr1.dialects.reading.loose_json import Object, read_values
from visionr1.rewards import Reward
from visionr1.samples import Boxes, GroundTruth

SIZE = (1000, 1000)
TRUTH = GroundTruth(Boxes.of([[10, 20, 110, 220], [210, 20, 310, 220]], ["cat", "dog"]), ("cat", "dog"), SIZE, SIZE)
A, B = "[10, 20, 110, 220]", "[210, 20, 310, 220]"
REWARD = Reward(dialect=get_dialect("qwen3"))

ITEMS = [
    f'{{"bbox_2d": {A}, "label": "cat"}}',
    f'{{"bbox_2d": {B}, "label": "dog"}}',
    f'{{"label": "dog", "bbox_2d": {B}}}',
    '{"bbox_2d": [500, 500, 600, 600], "label": "cat"}',  # a false box
    f'{{"bbox_2d": {A}, "bbox_2d": {B}, "label": "cat"}}',  # a key twice: which is meant is not known
    f'{{"bbox_2d": {A}, "label": "cat", "label": "dog"}}',
    f'{{"bbox_2d": {A}, "label": "cat", "bbox_2d": {B}, "label": "dog"}}',  # two items without the braces between
    f'{{"bbox_2d": {A}, "label": "cat", "attributes": {{"color": "black"}}}}',  # nested
    f'{{"attributes": {{"color": "black", "box": 3}}, "bbox_2d": {A}, "label": "cat"}}',
    f'{{"bbox_2d": {A}, "label": "cat", "score": 0.5}}',
    f'{{"bbox_2d": {A}}}',
    '{"bbox_2d": null, "label": "cat"}',
    '{"bbox_2d": [], "label": "cat"}',
    '{"bbox_2d": [1, 2, 3], "label": "cat"}',
    '{"bbox_2d": ["10", "20", "110", "220"], "label": "cat"}',
    '{"bbox_2d": [110, 220, 10, 20], "label": "cat"}',
    f'{{"bbox_2d": [{A}, {B}], "label": "cat"}}',
    f'{{"bbox": {A}, "name": "cat"}}',
    '{"foo": 1}',
    "{}",
    "5",
    '"cat"',
    '{"label": "cat"}',
    f'{{"objects": [{{"bbox_2d": {A}, "label": "cat"}}]}}',
    '{"bbox_2d": [1.5, 2, 3, 4], "label": "a \\"quoted\\" {name}, [0]"}',
    '{"box_2d": [1, 2, 3, 4], "label": "cat"}',
]

BREAKS: dict[str, Callable[[str], str]] = {
    "without its end": lambda text: text[:-1],
    "without its beginning": lambda text: text[1:],
    "without both": lambda text: text[1:-1],
    "in a plain fence": lambda text: f"```\n{text}\n```",
    "in an open fence": lambda text: f"```json\n{text}",
    "with a fence's end": lambda text: f"{text}\n```",
    "in prose": lambda text: f"Here they are: {text}. That is all.",
    "with a trailing comma": lambda text: f"{text[:-1]},]",
    "wrapped": lambda text: f'{{"objects": {text}}}',
    "wrapped, without its end": lambda text: f'{{"objects": {text}',
    "with an end token": lambda text: f"{text}<|im_end|>",
    "in two lists": lambda text: f"[{text}]",
    "as a text": json.dumps,
    "escaped": lambda text: json.dumps(text)[1:-1],
    "on lines of its own": lambda text: text.replace("}, {", "},\n\t{"),
    "behind a thought": lambda text: f"<think>Two.</think>{text}",
    "with single quotes": lambda text: text.replace('"', "'"),
}


def total(text: str, reward: Reward = REWARD) -> float:
    return reward.score(text, TRUTH).total


@pytest.mark.parametrize("name", BREAKS)
@given(items=st.lists(st.sampled_from(ITEMS), min_size=1, max_size=5))
def test_a_broken_reply_is_never_paid_more(name: str, items: list[str]) -> None:
    whole = f"[{', '.join(items)}]"
    assert total(BREAKS[name](whole)) <= total(whole) + 1e-9


@given(items=st.lists(st.sampled_from(ITEMS), min_size=1, max_size=5))
def test_the_same_boxes_in_the_right_form_earn_one_more(items: list[str]) -> None:
    # What is read of another form never pays for that form.
    broken = REWARD.score(f"See: {', '.join(items)}", TRUTH)
    assert broken.reply is not None
    right = REWARD.dialect.render(
        Boxes(broken.reply.boxes.xyxy, tuple(label.strip() or "none" for label in broken.reply.boxes.labels)),
        size_wh=SIZE,
        input_size_wh=SIZE,
    )
    assert total(right) >= broken.total + 1 - 1e-2  # the grid rounds what was clipped


OTHER_VALUES: list[object] = [
    *(
        {},
        [],
        None,
        "none",
        "",
        0,
        True,
        "[]",
        {"cat": []},
        {"objects": []},
        {"label": "cat", "bboxes": []},
        {"a": "[]"},
    ),
    *({"bbox_2d": None, "label": "none"}, {"bbox_2d": [], "label": ""}, {"bbox_2d": [None] * 4, "label": "cat"}),
    *({"bbox_2d": ["x1", "y1", "x2", "y2"], "label": "name"}, {"bbox_2d": "[x1, y1, x2, y2]", "label": "name"}),
    *({"bbox_2d": {"type": "array"}, "label": "name"}, {"bbox_2d": [1, 2, 3, 4], "label": ""}),
    *({"bbox_2d": [1, 2, 3, 4], "label": ["cat"]}, {"bbox_2d": [1, 2, 3, 4], "label": {"name": "cat"}}),
    *({"bbox_2d": [[1, 2, 3, 4]], "label": "cat"}, {"bbox_2d": ["1", "2", "3", "4"], "label": "cat"}),
    *({"objects": [{"bbox_2d": [1, 2, 3, 4], "label": "cat"}]}, '{"bbox_2d": [1, 2, 3, 4], "label": "cat"}'),
    *({"boxes": [[1, 2, 3, 4], [5, 6, 7, 8]], "labels": ["cat", "dog"]}, [1, 2, 3, 4], ["cat", [1, 2, 3, 4]]),
    *({"label": "cat", "coord": [1, 2, 3, 4]}, {"bbox_2d": [1, 2, 3, 4], "label": "cat", "score": 1}),
]


@pytest.mark.parametrize("value", OTHER_VALUES, ids=json.dumps)
def test_beside_a_right_item_no_other_value_gets_the_format_reward(value: object) -> None:
    item = {"bbox_2d": [10, 20, 110, 220], "label": "cat"}
    for values in ([value], [item, value], [value, item], [item, value, item]):
        for text in (json.dumps(values), f"```json\n{json.dumps(values, indent=1)}\n```"):
            assert REWARD.score(text, TRUTH).parts["format"] == 0


labels = st.text(st.sampled_from("ab \"'\\{}[]:,_é猫"), max_size=8)
leaves = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | labels
json_values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=4) | st.dictionaries(labels.filter(bool), inner, min_size=1, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values.filter(lambda value: isinstance(value, list | dict)))
def test_valid_json_is_read_as_json(value: object) -> None:
    values = read_values(json.dumps(value), strict=True)
    assert [_plain(element) for element, _ in values.whole] == [value]
    assert not values.unfinished and not values.has_prose and not values.is_cut


def _plain(value: object) -> object:
    if isinstance(value, Object):
        return {key: _plain(element) for key, element in value.pairs}
    if isinstance(value, list):
        return [_plain(element) for element in value]
    return value
