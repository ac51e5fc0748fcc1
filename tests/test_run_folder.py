"""The folder of a run: it begins where nothing is, and touches nothing that it did not make."""

from pathlib import Path

import pytest
import torch

from visionr1.errors import CheckpointError, TrainingError
from visionr1.recipe import Recipe
from visionr1.run_folder import LOGS, RunFolder


@pytest.mark.parametrize("name", ["rows.jsonl", "metrics.jsonl", "final/model.safetensors", "recipe.toml"])
def test_a_folder_of_other_things_is_refused_and_left(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(TrainingError, match=r"is not empty and holds no run \(there is \w+.*choose another --run-dir"):
        RunFolder.open(tmp_path, Recipe(), resume=False)
    assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_run_cuts_its_own_logs_alone(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()  # of the model before training
    (tmp_path / ".keep").write_text("")
    folder = RunFolder.open(tmp_path, Recipe(), resume=False)
    (tmp_path / "mine.jsonl").write_text("{}\n")
    for log in LOGS:
        folder.append(log, [{"step": 1}])
    length = (tmp_path / LOGS[0]).stat().st_size
    for log in LOGS:
        folder.append(log, [{"step": 2}])
    RunFolder.open(tmp_path, Recipe(), resume=True).cut_logs({LOGS[0]: length})
    assert [(tmp_path / log).read_text() for log in LOGS] == ['{"step": 1}\n', "", ""]
    assert (tmp_path / "mine.jsonl").read_text() == "{}\n"


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, Recipe(), resume=False)
    for name in ("checkpoints/.step_3.partial", "checkpoints/step_2", ".final.partial", ".best.partial", "best"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "model.safetensors").write_text("")
    RunFolder.open(tmp_path, Recipe(), resume=True, writes=False)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 5
    RunFolder.open(tmp_path, Recipe(), resume=True)
    left = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.safetensors")}
    assert left == {"checkpoints/step_2", "best"}


def test_a_run_that_never_began_is_no_hindrance(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, Recipe(), resume=False)
    (tmp_path / "tensorboard").mkdir()
    RunFolder.open(tmp_path, Recipe(seed=1), resume=False)


def test_a_checkpoint_that_cannot_be_read_is_named_with_the_one_before(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path, Recipe(), resume=False)
    for name in ("step_2", "step_10", "step_10_backup", "step_old"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    newest = folder.latest_checkpoint()
    assert newest is not None and newest.name == "step_10"
    file = newest / "trainer_state.pt"
    for spoil in (
        lambda: file.write_bytes(b"no zip"),
        lambda: file.write_bytes(b""),
        lambda: torch.save({"position": tmp_path}, file),  # a class that may not be unpickled
        lambda: torch.save([], file),
        lambda: torch.save({"position": {}}, file),
        file.unlink,
    ):
        spoil()
        with pytest.raises(CheckpointError, match=r"trainer_state.pt is damaged .*delete .*step_10, .* from step_2$"):
            folder.read_state(newest)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"cannot write into .*file/run: .*choose another --run-dir"):
        RunFolder.open(tmp_path / "file/run", Recipe(), resume=False)
