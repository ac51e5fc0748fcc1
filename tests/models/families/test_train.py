"""Two steps of GRPO on families beside the Qwen of the other tests: on the packed and on the generic path."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support.more_shapes import build_by_name
from support.training import GRPO
from visionr1.cli import main
from visionr1.models.loading import load_policy


@pytest.mark.parametrize(("family", "packs_rows"), [("internvl", True), ("llava", False), ("qwen3_5", False)])
def test_it_trains(family: str, packs_rows: bool, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if packs_rows:
        folder: Path = request.getfixturevalue(f"{family}_folder")
    else:
        folder = build_by_name(tmp_path / family, request.getfixturevalue("qwen3_folder"), family)
    if family == "llava":
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["text_config"]["attention_dropout"] = config["vision_config"]["attention_dropout"] = 0.5  # never used
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(GRPO.format(model=folder.as_posix()), encoding="utf-8")

    changes = ["--set", "train.steps=2", "--set", "grpo.beta=0.2"]
    assert main(["train", str(recipe), "--run-dir", str(tmp_path / "run"), *changes]) == 0

    lines = (tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    metrics = [json.loads(line) for line in lines]
    assert metrics[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert metrics[1]["kl"] > 0
    assert all(row["grad_norm"] > 0 for row in metrics)
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "run/final"))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert load_policy(tmp_path / "run").path.packs_rows == packs_rows
