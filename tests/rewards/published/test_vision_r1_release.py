"""Preset `release` gives what the public code gives, and goes on where that raises."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionr1.rewards.published.vision_r1_release import ReleaseReward, ReleaseStep
from visionr1.samples import Boxes, GroundTruth

CASES = json.loads((Path(__file__).parents[2] / "parity/vision_r1_release.json").read_text())["cases"]
STEPS: dict[str, ReleaseStep] = {"step_none": None, "step_0": 0, "step_1500": 1500}
PARTS = {"dual_format_reward": "format", "precision_reward": "precision", "recall_reward": "recall"}
SIZE = (1000, 1000)
CAT = '{"bbox_2d": [100, 100, 200, 200], "label": "cat"}'


def truth(
    *boxes: list[float], labels: tuple[str, ...] = ("cat",), categories: tuple[str, ...] = ("cat",)
) -> GroundTruth:
    return GroundTruth(Boxes.of(list(boxes), labels * len(boxes)), categories, SIZE, SIZE)


@pytest.mark.parametrize("mode", STEPS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_recorded_values(case: dict, mode: str) -> None:
    labelled = [(label, box) for label, boxes in case["solution"] for box in boxes]
    gt = GroundTruth(
        Boxes.of([box for _, box in labelled], [label for label, _ in labelled]),
        tuple(sorted(case["target_id_map"], key=case["target_id_map"].get)),
        (case["width"], case["height"]),
        (case["input_width"], case["input_height"]),
        case["num_instances"],
    )
    score = ReleaseReward(STEPS[mode]).score(case["completion"], gt)
    for name, expected in case["expected"][mode].items():
        if isinstance(expected, dict):  # the public code raises
            assert expected["raises"] in score.notes[0] or "nothing is" in score.notes[0]
        elif name in PARTS:
            assert score.parts[PARTS[name]] == pytest.approx(expected, abs=1e-5)
        elif expected is not None:
            assert score.total == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "num_predicted"),
    [
        (f"```json[{CAT}]```", 1),  # a one-line fence loses its line: read by the literal form
        (f"```json\r\n[{CAT}]\r\n```", 1),  # CRLF
        (f"[{CAT}, {CAT[:-2]}", 1),  # truncated: the literal form finds the complete box
        (f"[{CAT.replace('200, 200', '1200, 1200')}, {CAT[:-2]}", 0),  # truncated, and coordinates beyond 1000
        (f"[{CAT.replace('200, 200', '1200, 1200')}]", 1),  # beyond 1000, but JSON
        (f'{{"objects": [{CAT}]}}', 1),  # no list: the literal form
        ('[{"bbox_2d": ["100", 100.9, 200, true], "label": "cat"}]', 0),  # what int() takes: x2 > x1, but y2 is 1
        ('[{"bbox_2d": ["100", 0.9, " 200 ", 2_0], "label": "cat"}]', 0),  # 2_0 is no JSON
        ('[{"bbox_2d": ["100", 0.9, " 200 ", "2_0"], "label": "cat"}]', 1),  # but "2_0" is 20
        (f"[{CAT}]\u2028```", 1),  # whatever splitlines splits at
    ],
)
def test_what_it_reads(text: str, num_predicted: int) -> None:
    assert ReleaseReward().score(text, truth([100, 100, 200, 200])).num_predicted == num_predicted


@pytest.mark.parametrize(
    ("text", "gt", "num_instances", "note"),
    [
        (f"[{CAT}]", truth(), 0, "nothing is"),  # torch.cat([])
        (f"[{CAT}]", truth([1, 2, 3, 4], labels=("zebra",)), 1, "KeyError"),
        (f"[{CAT}]", truth([1, 2, 3, 4], categories=()), 1, "there is no category"),
        (f"[{CAT}]", truth([3, 2, 1, 4]), 1, "AssertionError"),
        (f"[{CAT}]", truth([500, 500, 600, 600]), 0, "divides 0 by 0"),
        (f"[{CAT.replace('200]', str(10**39) + ']')}]", truth([1, 2, 3, 4]), 1, "ValueError"),  # infinite in float32
        (f"[{CAT.replace('200]', str(10**400) + ']')}]", truth([1, 2, 3, 4]), 1, "OverflowError"),
        ("[" * 50_000, truth([1, 2, 3, 4]), 1, "RecursionError"),
        ("1" * 5_000, truth([1, 2, 3, 4]), 1, "ValueError"),  # Python reads no integer of more than 4300 digits
    ],
)
def test_where_the_public_code_raises_a_note_says_so(text: str, gt: GroundTruth, num_instances: int, note: str) -> None:
    score = ReleaseReward(0).score(text, replace(gt, num_instances=num_instances))
    assert any(note in found for found in score.notes)
    assert 0 <= score.total <= 3


def test_a_step_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="unknown step 7; known: None, 0, 1500, stage"):
        ReleaseReward(7)  # type: ignore[arg-type]


@given(st.text(alphabet='{}[]",:\\ \n`json0123456789.-eNaбbox_2dlabel', max_size=300), st.sampled_from([None, 0, 1500]))
def test_no_text_raises(text: str, step: ReleaseStep) -> None:
    score = ReleaseReward(step).score(text, truth([100, 100, 200, 200]))
    assert all(0 <= part <= 1 for part in score.parts.values())
