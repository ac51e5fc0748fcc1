"""Any text against any reward: it gets a score, within its range, that no order of keys or boxes changes."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.dialects import ALL_DIALECTS
from visionr1.dialects import get_dialect
from visionr1.rewards import Reward
from visionr1.rewards.published.vision_r1_release import STEPS, ReleaseReward
from visionr1.rewards.published.vlm_r1 import VlmR1Reward
from visionr1.samples import Boxes, GroundTruth

SIZE = (640, 480)
SCORERS: dict[str, Callable[[str, GroundTruth], Any]] = {
    **{name: Reward(dialect=dialect).score for name, dialect in ALL_DIALECTS.items()},
    **{f"release-{name}": ReleaseReward(step).score for name, step in STEPS.items()},
    "vlm_r1": VlmR1Reward().score,
}
BOXES = [[10, 20, 300, 400], [10, 20, 300, 400], [50, 60, 70, 80]]
TRUTHS = [
    GroundTruth(Boxes.of(BOXES[:count], ["cat", "dog", "cat"][:count]), ("cat", "dog"), SIZE, SIZE)
    for count in (0, 1, 3)
]

pieces = st.sampled_from(
    [
        *("```json\n", "\n```", "<think>", "</think>", "<answer>", "</answer>", "<ref>cat</ref>", "<box>", "</box>"),
        *('{"bbox_2d": [10, 20, 300, 400], "label": "cat"}', '{"bbox_2d": ["10", NaN, 1e999, true]}', '"label": null'),
        *(
            "cat-[0.010,0.020,0.300,0.400]",
            "[[10, 20, 300, 400]]",
            "None",
            "[]",
            "[" * 2000,
            "9" * 5000,
            "\ud800",
            "\u2028",
        ),
        *'[]{}",:&-\\ \n',
    ]
)
texts = st.lists(pieces | st.text(max_size=5), max_size=25).map("".join)


@pytest.mark.parametrize("name", SCORERS)
@given(text=texts, truth=st.sampled_from(TRUTHS))
def test_any_text_gets_a_score_within_its_range(name: str, text: str, truth: GroundTruth) -> None:
    score = SCORERS[name](text, truth)
    for part, value in score.parts.items():
        low, high = (-1, 0) if part == "repetition" else (0, 1)
        assert low - 1e-9 <= value <= high + 1e-9, part
    assert score.total <= 3 + 1e-9


coordinate = st.integers(0, 60)
item = st.fixed_dictionaries(
    {"bbox_2d": st.lists(coordinate, min_size=3, max_size=4), "label": st.sampled_from(["cat", "dog", "zebra", ""])},
    optional={"score": st.just(1)},
)


@given(st.lists(item, max_size=6), st.lists(item, max_size=6), st.randoms(use_true_random=False))
def test_no_order_of_keys_and_boxes_changes_the_papers_score(said: list, true: list, rng: random.Random) -> None:
    def total(items: list, truth_items: list) -> float:
        boxes = [row for row in truth_items if len(row["bbox_2d"]) == 4]
        gt = GroundTruth(Boxes.of([b["bbox_2d"] for b in boxes], [b["label"] for b in boxes]), ("cat",), SIZE, SIZE)
        return Reward(dialect=get_dialect("qwen25")).score(json.dumps(items), gt).total

    before = total(said, true)
    shuffled = [dict(rng.sample(list(row.items()), len(row))) for row in rng.sample(said, len(said))]
    assert total(shuffled, rng.sample(true, len(true))) == pytest.approx(before, abs=1e-12)
