"""Attacks on runs: what machines, other processes and foreign files do to a run's folder, and what is said of it.

Each item of the list that attacks were collected in is tried here in the way a user goes.
"""

from pathlib import Path

import pytest

from visionr1.cli import main
from visionr1.training.run_lock import lock_run

SCENES = """
method = "sft"
[model]
path = "{model}"
[train]
steps = 2
batch_size = 1
learning_rate = 1e-3
[[data]]
source = "scenes"
scenes = {{ width = 120, height = 80, max_objects = 2 }}
"""


@pytest.fixture
def recipe(tmp_path: Path, qwen3_folder: Path) -> str:
    """A recipe of two steps on a small random model."""
    path = tmp_path / "recipe.toml"
    path.write_text(SCENES.format(model=qwen3_folder.as_posix()), encoding="utf-8")
    return str(path)


def test_a2_two_processes_never_write_one_run(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both wrote: rows of one stood among those of the other, and each replaced the other's checkpoints."""
    run = str(tmp_path / "run")
    with lock_run(tmp_path / "run"):
        assert main(["train", recipe, "--run-dir", run]) == 2
        assert f"{run} is in use" in capsys.readouterr().err
        assert not list((tmp_path / "run").glob("[!.]*"))
    assert main(["train", recipe, "--run-dir", run]) == 0
    (tmp_path / "run/final").rename(tmp_path / "final")
    with lock_run(tmp_path / "run"):
        assert main(["train", recipe, "--run-dir", run, "--resume"]) == 2
        assert f"{run} is in use" in capsys.readouterr().err
    assert main(["train", recipe, "--run-dir", run, "--resume"]) == 0


def test_a2_a_demo_holds_the_lock_of_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with lock_run(tmp_path):
        assert main(["demo", "--run-dir", str(tmp_path)]) == 2
    assert f"{tmp_path} is in use" in capsys.readouterr().err
