"""Preset `vlm_r1`: the public code's recorded values, but where docs/parity.md says why not; AP against pycocotools."""

import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionr1.dialects import get_dialect
from visionr1.rewards.published.coco_precision import average_precisions
from visionr1.rewards.published.vlm_r1 import (
    VlmR1Reward,
    rec_format,
    repetition,
    think_answer_format,
)
from visionr1.samples import Boxes, GroundTruth

ROOT = Path(__file__).parents[3]
RECORDED = json.loads((ROOT / "tests/parity/vlm_r1_release.json").read_text())
DETECTION = {
    "accuracy:od_ap": "od_ap",
    "accuracy:od_ap50": "od_ap50",
    "accuracy:odLength": "odLength",
    "accuracy:map": "map",
    "accuracy:weighted_sum": "weighted_sum",
    "format": "format",
    "repetition": "repetition",
}
REFERRING = {"iou_reward": "rec_iou", "format_reward_rec": "rec_format", "format_reward": "format"}
SIZE = (1000, 1000)


def truth(boxes: list, labels: list[str], size: tuple[int, int] = SIZE, seen: tuple[int, int] = SIZE) -> GroundTruth:
    return GroundTruth(Boxes.of(boxes, labels), ("cat", "dog"), size, seen)


def differing() -> dict[str, set[str]]:
    """Case id -> rewards that differ, from the table in docs/parity.md."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", (ROOT / "docs/parity.md").read_text(), re.MULTILINE)
    return {case: set(re.findall(r"`(\w+)`", rewards)) for case, rewards in rows}


def check(case: dict, gt: GroundTruth, names: dict[str, str]) -> None:
    parts = VlmR1Reward().score(case["content"], gt).parts
    allowed = differing().get(case["id"], set())
    for name, part in names.items():
        expected = case["expected"][name]
        same = not isinstance(expected, dict) and parts[part] == pytest.approx(expected, abs=1e-5)
        assert same is (part not in allowed), f"{part}: public {expected}, ours {parts[part]}"


@pytest.mark.parametrize("case", RECORDED["od_cases"], ids=lambda case: case["id"])
def test_recorded_detection_rewards(case: dict) -> None:
    fenced = re.search(r"```json(.*?)```", case["solution"], re.DOTALL)
    items = json.loads(fenced[1]) if fenced else []
    check(case, truth([item["bbox_2d"] for item in items], [item["label"] for item in items]), DETECTION)


@pytest.mark.parametrize("case", RECORDED["rec_cases"][:-1], ids=lambda case: case["id"])
def test_recorded_referring_rewards(case: dict) -> None:
    box = json.loads(case["solution"].removeprefix("<answer>").removesuffix("</answer>"))
    _, rows, columns = case["image_grid_thw"]
    size = (case["image_width"], case["image_height"])
    check(case, truth([box], ["x"], size, (columns * 14, rows * 14)), REFERRING)


@pytest.mark.parametrize("case", RECORDED["repetition_cases"], ids=lambda case: case["content"][:20])
def test_recorded_repetition(case: dict) -> None:
    assert repetition(case["content"]) == pytest.approx(case["expected"], abs=1e-5)


def coco_precisions(predicted: Boxes, true: Boxes) -> np.ndarray:
    """The oracle: pycocotools, AP at each of its ten thresholds."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    names = sorted(set(true.labels) | set(predicted.labels))
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = {
            "images": [{"id": 1}],
            "categories": [{"id": names.index(name), "name": name} for name in names],
            "annotations": [
                {"id": 1 + i, "image_id": 1, "category_id": names.index(label), "iscrowd": 0}
                | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
                for i, (label, (x1, y1, x2, y2)) in enumerate(zip(true.labels, true.xyxy.tolist(), strict=True))
            ],
        }
        gt.createIndex()
        results = gt.loadRes(
            [
                {"image_id": 1, "category_id": names.index(label), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 1.0}
                for label, (x1, y1, x2, y2) in zip(predicted.labels, predicted.xyxy.tolist(), strict=True)
            ]
        )
        found = COCOeval(gt, results, "bbox")
        found.evaluate()
        found.accumulate()
    precision = found.eval["precision"][:, :, :, 0, 2]  # thresholds, recalls, classes; areas all, maxDets 100
    return precision[:, :, [names.index(name) for name in dict.fromkeys(true.labels)]].mean(axis=(1, 2))


near = st.sampled_from([0.0, 1.0, 2.0, 5.5, 20.0, 21.25])
box = st.builds(
    lambda x, y, w, h: [x, y, x + w, y + h], near, near, *[st.sampled_from([10.0, 10.5, 11.0, 20.0, 1.0])] * 2
)
inverted = st.sampled_from([[20.0, 0.0, 10.0, 9.0], [20.0, 20.0, 0.0, 0.0], [5.0, 5.0, 5.0, 9.0]])
label = st.sampled_from(["cat", "dog", "Cat"])
labelled = st.lists(st.tuples(box, label), min_size=1, max_size=12)


@settings(max_examples=150)
@given(st.lists(st.tuples(box | inverted, label), min_size=1, max_size=25), labelled)
def test_ap_of_one_image_is_cocos(predicted: list, true: list) -> None:
    boxes, gt = (Boxes.of(*zip(*rows, strict=True)) for rows in (predicted, true))
    assert average_precisions(boxes, gt) == pytest.approx(coco_precisions(boxes, gt).tolist(), abs=1e-12)


def test_ap_ranks_at_most_100_boxes_of_a_class() -> None:
    far, cat = [500.0, 500.0, 600.0, 600.0], [0.0, 0.0, 10.0, 10.0]
    boxes, gt = Boxes.of([far] * 100 + [cat], ["cat"] * 101), Boxes.of([cat], ["cat"])
    assert average_precisions(boxes, gt) == coco_precisions(boxes, gt).tolist() == [0.0] * 10


CAT = '{"bbox_2d": [100, 100, 200, 200], "label": "cat"}'
FAR = '{"bbox_2d": [700, 700, 800, 800], "label": "cat"}'


def answer(text: str) -> str:
    return f"<think>t</think>\n<answer>\n{text}\n</answer>"


def fenced(*items: str) -> str:
    return answer(f"```json\n[{', '.join(items)}]\n```")


@pytest.mark.parametrize(
    ("text", "part", "expected"),
    [
        (fenced(FAR, CAT), "od_ap", 0.5),  # a false box before the right one costs
        (fenced(CAT, FAR), "od_ap", 1.0),  # behind it, it does not
        (fenced(CAT, FAR), "odLength", 0.5),  # but it does here
        (fenced(CAT.replace("cat", "CAT")), "od_ap", 0.0),  # labels to the letter
        (fenced(CAT.replace("cat", "CAT")), "weighted_sum", 1.0),  # but not here
        (fenced(CAT.replace(', "label": "cat"', "")), "weighted_sum", 0.3),  # no label: a pair of IoU 0
        (fenced(CAT, CAT), "repetition", -0.5),
        (fenced(CAT, CAT, "1"), "repetition", -0.5),  # what is no item is no repetition
        (fenced(CAT, CAT)[:-20], "repetition", 0.0),  # a list that does not end is words, and there are few
        (answer(f'```json\n{{"objects": [{CAT}, {CAT}]}}\n```'), "repetition", 0.0),  # readable, but no list: words
        (answer("```json\n[{") + "a b c d e f g " * 5 + "```", "repetition", 0.0),  # a list without a complete item
        (fenced(CAT) + answer("None"), "map", 1.0),  # the last fence, in whichever answer
        (fenced(CAT) + answer("None"), "od_ap", 0.0),  # the last answer
        (fenced(CAT) + " ", "format", 0.0),  # nothing may follow
        (fenced(CAT.replace("100, 100", "NaN, 100")), "od_ap", 0.0),  # NaN overlaps nothing
        (fenced(CAT.replace("200]", "1" + "0" * 400 + "]"), CAT), "od_ap", 1.0),  # no float64: no box of any class
        (fenced(CAT), "rec_iou", 1.0),
        ("<answer>[100, 100, 200, " + "9" * 5000 + "]</answer>", "rec_iou", 0.0),  # a huge integer
    ],
)
def test_details(text: str, part: str, expected: float) -> None:
    gt = truth([[100, 100, 200, 200]], ["cat"])
    assert VlmR1Reward().score(text, gt).parts[part] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (answer("None"), 1.0),  # what the truth says
        (answer("none."), 1.0),
        (answer("[]"), 1.0),  # nothing, in a list
        (fenced(), 1.0),  # and in a fence
        (answer("```json\nNone\n```"), 1.0),
        (answer("```\n[]\n```"), 1.0),
        (answer("I see no cat"), 0.0),  # cannot be read: the public code gives 1
        (fenced(CAT), 0.0),  # a box where nothing is
        ("None", 0.0),  # no answer
    ],
)
def test_nothing_there(text: str, expected: float) -> None:
    parts = VlmR1Reward().score(text, truth([], [])).parts
    assert parts["od_ap"] == parts["od_ap50"] == parts["odLength"] == expected


def test_coordinates_are_rescaled() -> None:
    gt = truth([[100, 100, 200, 200]], ["cat"], size=(1000, 500), seen=(500, 250))
    assert VlmR1Reward().score(fenced(CAT.replace("100, 100, 200, 200", "50, 50, 100, 100")), gt).total == 2.0
    norm1000 = VlmR1Reward(dialect=get_dialect("think+qwen3"))
    assert norm1000.score(fenced(CAT.replace("100, 100, 200, 200", "100, 200, 200, 400")), gt).total == 2.0


def test_weights_make_the_total() -> None:
    gt = truth([[100, 100, 200, 200]], ["cat"])
    reward = VlmR1Reward(weights={"rec_iou": 2.0, "rec_format": 1.0})
    assert reward.score(fenced(CAT), gt).total == pytest.approx(3.0)
    with pytest.raises(ValueError, match="need exactly one true box, but there are 0"):
        reward.score(fenced(CAT), truth([], []))
    with pytest.raises(ValueError, match="unknown rewards \\['length'\\]"):
        VlmR1Reward(weights={"length": 1.0})
    with pytest.raises(ValueError, match=r"qwen25, qwen3, think\+qwen25, think\+qwen3, open-think.*, not griffon"):
        VlmR1Reward(dialect=get_dialect("griffon"))


SYNTAX = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "```json",
    "```",
    "{",
    "}",
    "[",
    "]",
    "[1, 2,3, 4]",
    " ",
    "\n",
]
snippets = st.lists(
    st.sampled_from([*SYNTAX, '"bbox_2d"', '"label"', CAT, ",", "x y z a b c", "None"]), max_size=30
).map("".join)


@given(snippets)
def test_patterns_are_the_public_ones(text: str) -> None:
    """Both formats are read in linear time, and as the public regular expressions read them."""
    whole = r"<think>.*?</think>\s*<answer>.*?</answer>"
    box = r"<think>.*?</think>\s*<answer>.*?\{.*\[\d+,\s*\d+,\s*\d+,\s*\d+\].*\}.*?</answer>"
    assert think_answer_format(text) == (re.fullmatch(whole, text, re.DOTALL) is not None)
    assert rec_format(text) == (re.search(box, text, re.DOTALL) is not None)


@given(snippets)
def test_no_text_raises(text: str) -> None:
    for gt in (truth([[100, 100, 200, 200]], ["cat"]), truth([], [])):
        parts = VlmR1Reward().score(text, gt).parts
        assert all(0 <= value <= 1 + 1e-9 for name, value in parts.items() if name != "repetition")
        assert -1 <= parts["repetition"] <= 0
