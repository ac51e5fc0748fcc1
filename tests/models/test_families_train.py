"""A step of GRPO on families beside Qwen's: InternVL behind a shared prefix, LLaVA on the plain path."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from random_families import build_llava
from safetensors.torch import load_file

from visionr1.cli import main
from visionr1.models.policy import load_policy
from visionr1.rewards import Reward, Score
from visionr1.samples import GroundTruth

RECIPE = """
method = "grpo"
[model]
path = "{model}"
[train]
steps = 2
batch_size = 2
learning_rate = 1e-3
[[data]]
source = "scenes"
scenes = {{ width = 120, height = 80, max_objects = 2 }}
[rollout]
group_size = 3
max_new_tokens = 12
[grpo]
beta = 0.2
"""


@pytest.mark.parametrize(("family", "shared"), [("internvl", True), ("llava", False)])
def test_it_trains_and_its_metrics_say_which_path_it_took(
    family: str, shared: bool, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Reward.score

    def by_letters(self: Reward, text: str, truth: GroundTruth, **settings: Any) -> Score:
        """A random model never writes a box: let any text earn something, so that there is a gradient."""
        return replace(score(self, text, truth, **settings), total=float(sum(map(ord, text)) % 7))

    monkeypatch.setattr(Reward, "score", by_letters)
    if shared:
        folder: Path = request.getfixturevalue(f"{family}_folder")
    else:
        folder = build_llava(tmp_path / family, request.getfixturevalue("qwen3_folder"))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["text_config"]["attention_dropout"] = config["vision_config"]["attention_dropout"] = 0.5  # never used
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(model=folder.as_posix()), encoding="utf-8")

    assert main(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 0

    lines = (tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    metrics = [json.loads(line) for line in lines]
    assert [row["shared_prefix"] for row in metrics] == [shared, shared]
    assert metrics[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert metrics[1]["kl"] > 0
    assert all(row["grad_norm"] > 0 for row in metrics)
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "run/final"))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert load_policy(tmp_path / "run").shares_prefix == shared
