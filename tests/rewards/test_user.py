"""Rewards of a user's own: what they return becomes a row of JSON that tells the truth."""

import json
import re
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from visionr1.dialects import get_dialect
from visionr1.errors import RecipeError
from visionr1.rewards import PRESETS, Score
from visionr1.rewards.parts import RewardPart, add_parts
from visionr1.rewards.presets import Preset
from visionr1.rewards.score_rows import score_rows
from visionr1.rewards.stages import BEGINNER, Stage
from visionr1.rewards.user import check_score, preset_from_object
from visionr1.samples import Boxes, GroundTruth
from visionr1.settings import Section


def test_numbers_of_numpy_are_written_as_json() -> None:
    given = Score(
        np.float32(0.5),  # type: ignore[arg-type]
        {"near": np.float64(0.25), "far": np.array(1)},  # type: ignore[dict-item]
        num_predicted=np.int64(3),  # type: ignore[arg-type]
        plain_recall=np.float32(0.5),  # type: ignore[arg-type]
    )
    row = json.loads(json.dumps(check_score("mine", given, None).to_json()))
    assert (row["total"], row["near"], row["far"], row["num_predicted"], row["plain_recall"]) == (0.5, 0.25, 1, 3, 0.5)


@pytest.mark.parametrize("field", ["total", "plain_recall", "plain_precision", "num_predicted"])
def test_a_field_that_is_not_finite_is_named(field: str) -> None:
    fields = {"total": 1.0, "parts": {}, field: float("nan")}
    with pytest.raises(RecipeError, match=f"mine, {field}: expected a finite number, found nan"):
        check_score("mine", Score(**fields), None)


@pytest.mark.parametrize("name", ["text", "total", "boxes", "index"])
def test_an_added_part_does_not_take_the_place_of_a_field(name: str) -> None:
    dialect = get_dialect("qwen25")
    reward = PRESETS.known("paper").make({}, dialect)
    with pytest.raises(RecipeError, match=f"criterion count: a part cannot be called '{name}'"):
        add_parts(reward, (RewardPart(name="count", shown_as=name),), dialect)


def test_an_option_without_default_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def reward(text, letters: int):\n    return len(text) / letters\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="letters: expected a value, found none"):
        PRESETS.resolve(f"{file}:reward").make({}, get_dialect("qwen25"))


@pytest.mark.parametrize(("body", "raised"), [("{}[text]", "KeyError('x')"), ("sys.exit(0)", "SystemExit(0)")])
def test_the_line_of_a_reward_that_raises_is_named(body: str, raised: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"import sys\ndef reward(text):\n    return {body}\n", encoding="utf-8")
    reward = PRESETS.resolve(f"{file}:reward").make({}, get_dialect("qwen25"))
    row = {"text": "x", "boxes": [], "labels": [], "categories": [], "width": 1, "height": 1}
    line = json.dumps({**row, "input_width": 1, "input_height": 1})
    with pytest.raises(RecipeError, match=rf"rows:1: the reward raised {re.escape(raised)} \(.*:\d+\) at 'x'"):
        list(score_rows([line], "rows", reward))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def __init__(self): 1 / 0", r"Mine cannot be made: it raised ZeroDivisionError.* \(.*mine.py:2\)"),
        ("weights = 3", "Mine.weights: expected a mapping"),
        ("weights = {'a': float('nan')}", "Mine.weights, a: expected a finite number"),
        ("maximum = 'much'", "Mine.maximum: expected a finite number"),
    ],
)
def test_an_object_that_cannot_be_used_is_named_before_training(body: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"class Mine:\n    {body}\n    def score(self, text):\n        return 1.0\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        PRESETS.resolve(f"{file}:Mine").make({}, get_dialect("qwen25"))


def test_a_preset_of_a_user_s_own_is_checked_too() -> None:
    class Unchecked:
        weights: ClassVar[dict[str, float]] = {}
        maximum = None

        def score(self, text: str, truth: GroundTruth, stage: Stage) -> Score:
            return Score(float("nan"), {})

    preset = preset_from_object(Preset("mine", Section, lambda options, dialect: Unchecked()))
    reward = preset.make({}, get_dialect("qwen25"))
    truth = GroundTruth(Boxes.empty(), ("cat",), (10, 10), (10, 10))
    with pytest.raises(RecipeError, match=r"mine.score, total: expected a finite number, found nan"):
        reward.score("x", truth)


class Huge:
    """A reward near the largest number there is."""

    weights: ClassVar[dict[str, float]] = {}
    maximum = None

    def score(self, text: str, truth: GroundTruth, stage: Stage = BEGINNER) -> Score:
        return Score(1.7e308, {})


def test_a_total_that_added_parts_make_infinite_is_named() -> None:
    reward = add_parts(Huge(), (RewardPart(name="count", weight=1.7e308),), get_dialect("qwen25"))
    truth = GroundTruth(Boxes.empty(), ("cat",), (10, 10), (10, 10))
    with pytest.raises(RecipeError, match="with its added parts: expected a finite number, found inf"):
        reward.score("[]", truth)
