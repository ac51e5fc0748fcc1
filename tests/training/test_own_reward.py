"""Training with a reward from a file outside the package, the one that docs/extending.md shows."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from support.extending import guide_file
from support.training import GRPO, rows
from visionr1.cli import main

Run = Callable[..., int]
LETTERS = 'preset = "support.letters:ByLetters"\nadaptive = true\n'


def test_its_parts_stand_in_metrics_and_rollouts(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = guide_file("A reward", tmp_path).as_posix()
    section = f"""
preset = "{file}:reward"
most_letters = 20
[[reward.parts]]
name = "{file}:names_a_label"
weight = 0.5
shown_as = "label"
"""
    assert run(GRPO.replace(LETTERS, section), "own", "--set", "train.steps=2") == 0

    metrics, rollouts = rows(tmp_path / "own"), rows(tmp_path / "own", "rollouts.jsonl")
    assert [row["step"] for row in metrics] == [1, 2]
    for row in (*metrics, *rollouts):
        prefix = "reward/" if row in metrics else ""
        near, short, label = (row[f"{prefix}{name}"] for name in ("near", "short", "label"))
        assert row[f"{prefix}total"] == pytest.approx(near + short + 0.5 * label)
    assert metrics[0]["boxes_per_completion"] is not None and "watch/format_errors" in metrics[0]
    assert "watch/valid_iou" not in metrics[0]  # it tells no pairs

    # What the run wrote is scored as it is, by the same reward and by another.
    written = str(tmp_path / "own/rollouts.jsonl")
    capsys.readouterr()
    assert main(["score", written, "--preset", f"{file}:reward", "--option", "most_letters=20"]) == 0
    scored = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["near"] for row in scored] == [row["near"] for row in rollouts]
    assert main(["score", written]) == 0


def test_a_data_source_has_its_own(run: Run, tmp_path: Path) -> None:
    source = 'reward = {{ preset = "visionr1.rewards.published.vlm_r1:repetition" }}\n'
    recipe = GRPO.replace(LETTERS, "").replace("[rollout]", source + "[rollout]")
    assert run(recipe, "own", "--set", "train.steps=1") == 0
    (row,) = rows(tmp_path / "own")
    assert row["reward/total"] <= 0 and "reward/format" not in row


@pytest.mark.parametrize("preset", ["release", "vlm_r1"])
def test_published_rewards_train(run: Run, tmp_path: Path, qwen25_folder: Path, preset: str) -> None:
    recipe = GRPO.replace("{model}", qwen25_folder.as_posix()).replace(LETTERS, f'preset = "{preset}"\n')
    stages = ["--set", "reward.stage_step=0.5"] if preset == "release" else []
    assert run(recipe, "own", "--set", "train.steps=2", *stages) == 0
    assert all(row["reward/format"] is not None for row in rows(tmp_path / "own"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return float('nan')", "expected a finite number, found nan"),
        ("return 'much'", "expected a finite number, found 'much'"),
        ("return {'text': 1.0}", "a part cannot be called 'text'"),
        ("return None", "expected a finite number, found None"),
    ],
)
def test_what_it_returns_is_checked(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str, message: str
) -> None:
    (tmp_path / "wrong.py").write_text(f"def reward(text, truth):\n    {body}\n", encoding="utf-8")
    section = f'preset = "{(tmp_path / "wrong.py").as_posix()}:reward"\n'
    assert run(GRPO.replace(LETTERS, section), "own") == 2
    error = capsys.readouterr().err
    assert message in error and "at sample scene-0, completion 0" in error and "reward" in error


def test_a_reward_without_recall_has_no_adaptive_stages(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A class may know stages, so that only its scores show what is missing.
    (tmp_path / "own.py").write_text("class Own:\n    def score(self, text):\n        return 1.0\n", encoding="utf-8")
    section = f'preset = "{(tmp_path / "own.py").as_posix()}:Own"\nadaptive = true\n'
    assert run(GRPO.replace(LETTERS, section), "own") == 2
    assert "reward.adaptive needs recall and precision before f" in capsys.readouterr().err
