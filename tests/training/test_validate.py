"""Evaluation during training: the figures of `visionr1 eval`, the best model kept, an end when nothing improves."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from support.training import SFT, killed_at, rows
from visionr1.cli import main
from visionr1.errors import DataError, RecipeError
from visionr1.evaluation.settings import EvalSection
from visionr1.models.loading import load_policy
from visionr1.training.recipe import load_recipe
from visionr1.training.validate import LOG, Validation

EVALUATED = SFT + "\n[eval]\nevery = 1\nlimit = 2\nmax_new_tokens = 8\npatience = 2\n"


def test_a_run_is_evaluated_and_ends_when_nothing_improves(run: Any, tmp_path: Path) -> None:
    assert run(EVALUATED, "straight") == 0
    straight = tmp_path / "straight"
    evaluations = rows(straight, LOG)
    assert [row["step"] for row in evaluations] == [1, 2, 3]  # of five: a random model never finds a box
    assert len(rows(straight)) == 3
    assert {row["AP"] for row in evaluations} == {0.0}
    assert evaluations[0]["images"] == 2
    assert evaluations[0]["protocol"]["max_new_tokens"] == 8
    settings = load_recipe(straight / "recipe.toml").eval
    again = Validation.open(settings).measure(load_policy(straight / "best"))
    assert {"step": 1, **again} == evaluations[0]

    with killed_at(3, "metrics.jsonl"):
        run(EVALUATED, "killed")
    assert run(EVALUATED, "killed", "--resume") == 0
    killed = tmp_path / "killed"
    assert rows(killed, LOG) == evaluations
    assert rows(killed) == rows(straight)
    folders = [run_dir / name for name in ("best", "final") for run_dir in (straight, killed)]
    saved = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert saved[0] == saved[1]
    assert saved[2] == saved[3]
    assert saved[0] != saved[2]
    shutil.rmtree(killed / "final")
    assert run(EVALUATED, "killed", "--resume") == 0  # over is over
    assert rows(killed, LOG) == evaluations


def test_the_best_is_the_first_of_the_highest_and_patience_counts_from_it() -> None:
    validation = Validation(None, None, EvalSection(metric="F1", patience=2))  # type: ignore[arg-type]
    figures = [0.1, 0.3, 0.3, 0.2, 0.4, 0.4, 0.3]
    seen = [[{"F1": figure} for figure in figures[: n + 1]] for n in range(len(figures))]
    assert [validation.is_best(part) for part in seen] == [True, True, False, False, True, False, False]
    assert [validation.is_over(part) for part in seen] == [False, False, False, True, False, False, True]
    assert not validation.is_over([])
    assert not Validation(None, None, EvalSection()).is_over(seen[-1])  # type: ignore[arg-type]


def test_images_are_spaced_over_the_split() -> None:
    every = Validation.open(EvalSection()).unit.table.image_ids
    some = Validation.open(EvalSection(limit=3)).unit.table
    assert some.image_ids == (every[0], every[len(every) // 2], every[-1])
    assert len(Validation.open(EvalSection(limit=10**6)).unit.table) == len(every)


def test_what_cannot_be_evaluated_is_named_before_training(
    run: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(EVALUATED, "run", "--set", "eval.source=nowhere.json") == 2
    assert "nowhere.json" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match="unknown protocol 'nonsense'"):
        EvalSection(protocol=("nonsense",))
    with pytest.raises(DataError, match=r"eval: .* expected split 'nothing' .* data\.split, eval\.split"):
        Validation.open(EvalSection(split="nothing"))
    image = {"id": 1, "file_name": "a.png", "width": 9, "height": 9}
    empty = {"images": [image], "categories": [{"id": 1, "name": "cat"}], "annotations": []}
    (tmp_path / "empty.json").write_text(json.dumps(empty), encoding="utf-8")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"eval: the 1 images of .*empty\.json valid hold no box"):
        Validation.open(EvalSection(source=str(tmp_path / "empty.json")))
    assert main(["train", "demo", "--set", "eval.metric=best", "--dry-run"]) == 2
    assert "eval.metric: expected one of AP, AP50" in capsys.readouterr().err
