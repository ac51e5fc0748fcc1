"""Attacks on runs: what machines, other processes and foreign files do to a run's folder, and what is said of it.

Each item of the list that attacks were collected in is tried here in the way a user goes.
"""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.file_systems import refuse_syncing_folders
from support.training import killed_at
from visionr1.cli import main
from visionr1.files import read_json
from visionr1.training.run_folder import RunFolder
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


TOO_HIGH = (
    "--set",
    "train.schedule=constant",
    "--set",
    "optimizer.max_grad_norm=0",
    "--set",
    "train.learning_rate=1e39",
)


@pytest.mark.parametrize("more", [[], ["--set", "optimizer.name=muon"], ["--set", "lora.rank=2"]], ids=str)
def test_a6_weights_that_are_not_finite_are_never_written(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    """All of 63 tensors were infinite, and the exit status was 0."""
    assert main(["train", recipe, "--run-dir", str(tmp_path / "run"), "--set", "train.steps=1", *TOO_HIGH, *more]) == 2
    message = capsys.readouterr().err
    assert "not finite" in message
    assert "lower" in message
    assert not (tmp_path / "run/final").exists()


def test_a6_the_last_good_checkpoint_stays(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With keep = 1 the checkpoint of infinite weights took the place of the good one."""
    phases = tmp_path / "phases.toml"
    text = Path(recipe).read_text().replace("[[data]]", "[checkpoint]\nevery = 1\nkeep = 1\n[[data]]")
    for name, rate in (("good", "1e-4"), ("bad", "1e39")):
        text += f'[[phase]]\nname = "{name}"\nsteps = 1\nschedule = "constant"\nlearning_rate = {rate}\n'
    phases.write_text(text)
    assert main(["train", str(phases), "--run-dir", str(tmp_path / "run")]) == 2
    assert f"last checkpoint: {tmp_path}/run/checkpoints/step_1" in capsys.readouterr().err
    (kept,) = (tmp_path / "run/checkpoints").iterdir()
    assert kept.name == "step_1"
    assert all(weight.isfinite().all() for weight in load_file(kept / "model.safetensors").values())


def test_a6_a_model_with_a_weight_that_is_not_finite_is_not_trained(
    recipe: str, qwen3_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in qwen3_folder.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    weights = load_file(model / "model.safetensors")
    name = sorted(weights)[0]
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    assert main(["train", recipe, "--run-dir", str(tmp_path / "run"), "--model", str(model)]) == 2
    assert "NaN or infinite" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_b7_a_file_system_without_fsync_of_folders_gets_checkpoints(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_syncing_folders(monkeypatch, number)
    run = tmp_path / "run"
    assert main(["train", recipe, "--run-dir", str(run), "--set", "checkpoint.every=1"]) == 0
    assert (run / "checkpoints/step_2/trainer_state.pt").is_file()


def test_b8_a_worker_that_is_killed_is_no_full_disk(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was a traceback or, if it fell into a checkpoint, "make room"."""
    save = torch.save

    def save_and_lose_a_worker(*arguments: Any, **settings: Any) -> None:
        save(*arguments, **settings)
        raise RuntimeError("DataLoader worker (pid(s) 7) is killed by signal: Killed. ")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save_and_lose_a_worker)
        run = str(tmp_path / "run")
        assert main(["train", recipe, "--run-dir", run, "--set", "checkpoint.every=1"]) == 2
    message = capsys.readouterr().err
    assert "a worker process that prepares images was killed, perhaps for memory" in message
    assert "--resume" in message
    assert "make room" not in message


def test_b9_a_checkpoint_that_cannot_be_read_is_not_called_damaged(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    arguments = ["train", recipe, "--run-dir", str(run), "--set", "checkpoint.every=1"]
    with killed_at(2, "metrics.jsonl"):
        main(arguments)
    opened = Path.open

    def refuse(self: Path, *rest: Any, **settings: Any) -> Any:
        if self.name == "trainer_state.pt":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return opened(self, *rest, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        assert main([*arguments, "--resume"]) == 2
    message = capsys.readouterr().err
    assert f"cannot read {run}/checkpoints/step_1/trainer_state.pt: Permission denied" in message
    assert "delete" not in message
    assert main([*arguments, "--resume"]) == 0


def test_b10_names_in_brackets_are_shown_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("visionr1.demo.measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    run = tmp_path / "exp[red]7[/x]:cat:"
    assert main(["demo", "--run-dir", str(run)]) == 130
    assert f"Everything goes to {run}." in capsys.readouterr().out


def test_c4_a_command_is_stored_as_it_can_be_pasted(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "a run"
    arguments = ["train", recipe, "--run-dir", str(run), "--set", 'train.name="a b; touch x"']
    monkeypatch.setattr("sys.argv", ["visionr1", *arguments])
    assert main(arguments) == 0
    command = read_json(run / "versions.json")["command"]
    assert f"'{run}'" in command
    assert """'train.name="a b; touch x"'""" in command


def test_c10_a_lost_connection_ends_a_run_with_a_checkpoint(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = RunFolder.append

    def hang_up(self: RunFolder, name: str, rows: Any) -> None:
        append(self, name, rows)
        if name == "metrics.jsonl":
            os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(RunFolder, "append", hang_up)
    assert main(["train", recipe, "--run-dir", str(tmp_path / "run"), "--set", "train.steps=9"]) == 130
    assert (tmp_path / "run/checkpoints/step_2").is_dir()


def _drop_optimizer_parts(state: dict[str, Any]) -> None:
    state["optimizer"]["parts"] = []


def _cut_a_moment(state: dict[str, Any]) -> None:
    state["optimizer"]["parts"][0]["state"][0]["exp_avg"] = torch.zeros(3)


def _number_a_weight_too_high(state: dict[str, Any]) -> None:
    states = state["optimizer"]["parts"][0]["state"]
    states[10**6] = states[0]


def _drop_groups(state: dict[str, Any]) -> None:
    state["optimizer"]["parts"][0]["param_groups"] = None


def _add_masters(state: dict[str, Any]) -> None:
    state["optimizer"]["masters"] = [torch.zeros(3)]


def _empty_the_optimizer(state: dict[str, Any]) -> None:
    state["optimizer"] = {}


def _go_beyond_the_phases(state: dict[str, Any]) -> None:
    state["position"]["phase"] = 7


def _go_back_before_the_beginning(state: dict[str, Any]) -> None:
    state["position"]["phase_step"] = -1


@pytest.mark.parametrize(
    "spoil",
    [
        _drop_optimizer_parts,
        _cut_a_moment,
        _number_a_weight_too_high,
        _drop_groups,
        _add_masters,
        _empty_the_optimizer,
        _go_beyond_the_phases,
        _go_back_before_the_beginning,
    ],
)
def test_b1_a_state_that_does_not_fit_is_named(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[dict[str, Any]], None]
) -> None:
    run = tmp_path / "run"
    arguments = ["train", recipe, "--run-dir", str(run), "--set", "checkpoint.every=1"]
    with killed_at(2, "metrics.jsonl"):
        main(arguments)
    file = run / "checkpoints/step_1/trainer_state.pt"
    state = torch.load(file, weights_only=True)
    spoil(state)
    torch.save(state, file)
    assert main([*arguments, "--resume"]) == 2
    message = capsys.readouterr().err
    assert f"{file} does not fit the model and recipe of this run" in message
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
