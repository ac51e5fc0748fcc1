"""Every recipe that ships: read, dry-run, and for the paper's a real step of the small model."""

import shlex
import tomllib
from pathlib import Path

import pytest

from visionr1.assets import recipe_path
from visionr1.cli import build_parser, main
from visionr1.training.recipe import load_recipe, parse_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
PAPER = [path for path in RECIPES if path.stem.startswith("paper_")]
by_name = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
of_the_paper = pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)


@by_name
def test_a_dry_run_prints_the_recipe_with_model_and_data_replaced(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # One data set cannot take the place of a mixture of real ones.
    expected = load_recipe(path).with_model("tiny")
    data = []
    if path.stem != "base":
        data = ["--data", "bccd"]
        expected = expected.with_data("bccd")
    assert main(["train", path.stem, "--model", "tiny", *data, "--dry-run"]) == 0
    printed = parse_recipe(tomllib.loads(capsys.readouterr().out))
    assert printed == expected


@by_name
def test_the_header_names_hardware_and_commands_that_are_commands(path: Path) -> None:
    header = path.read_text(encoding="utf-8").partition("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert "Hardware: " in header or "on the same samples" in header
    text = header.replace("\\\n#", " ")
    commands = [line[line.index("visionr1 ") :] for line in text.splitlines() if "visionr1 train " in line]
    assert commands
    for command in commands:
        words = shlex.split(command.split("   ")[0].replace("#", " "))
        if words[1] == "train":
            assert recipe_path(build_parser().parse_args(words[1:]).recipe).name == path.name


def test_the_paper_s_settings() -> None:
    grpo = [load_recipe(path) for path in PAPER if path.stem != "paper_sft"]
    for recipe in grpo:
        (phase,) = recipe.phases
        assert (recipe.method, recipe.grpo.beta, recipe.rollout.group_size) == ("grpo", 0.2, 4)
        assert (recipe.rollout.max_new_tokens, recipe.rollout.temperature) == (512, 1.0)
        assert (phase.learning_rate, phase.epochs, phase.batch_size) == (1e-6, 1, 16)
    assert {recipe.reward.stage_step for recipe in grpo} == {0.5, 1.0}
    sft = load_recipe(recipe_path("paper_sft"))
    assert (sft.method, sft.phases[0].learning_rate, sft.phases[0].batch_size) == ("sft", 2e-6, 128)
    assert sft.phases[0].epochs == 1


@of_the_paper
def test_the_small_model_takes_a_step_by_the_paper_s_recipe(path: Path, tmp_path: Path) -> None:
    small = ["model.device=cpu", "train.steps=1", "train.batch_size=2", "rollout.max_new_tokens=4"]
    overrides = [word for setting in small for word in ("--set", setting)]
    run_dir = ["--run-dir", str(tmp_path / "run")]
    assert main(["train", path.stem, "--model", "tiny", "--data", "bccd", *overrides, *run_dir]) == 0
    assert (tmp_path / "run/final/model.safetensors").is_file()


def test_a_folder_is_the_same_with_the_slash_of_a_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for slash in ("", "/"):
        command = ["train", "demo", "--model", f"{tmp_path}{slash}", "--data", f"{tmp_path}{slash}", "--dry-run"]
        assert main(command) == 0
    printed = capsys.readouterr().out
    assert printed[: len(printed) // 2] == printed[len(printed) // 2 :]
