"""The folder of a run: it begins where nothing is, and touches nothing that it did not make."""

import errno
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from visionr1.errors import CheckpointError, RecipeError, TrainingError
from visionr1.files import read_json
from visionr1.folders import whole_folder
from visionr1.training.recipe import Recipe
from visionr1.training.run_folder import LOGS, STATE_FIELDS, RunFolder


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
    assert [(tmp_path / log).read_text() for log in LOGS] == ['{"step": 1}\n', "", "", ""]
    assert (tmp_path / "mine.jsonl").read_text() == "{}\n"


def run_of_an_older_version(folder: Path, *, final: bool = False) -> RunFolder:
    """Begin a run, then take from its recipe the keys that recipes have gained since."""
    run = RunFolder.open(folder, Recipe(), resume=False)
    added = ("dialect", "template", "preset", "parts", "reader")
    lines = run.recipe_file.read_text().splitlines()
    kept = [line for line in lines if line.partition(" = ")[0] not in added]
    assert len(kept) < len(lines)
    run.recipe_file.write_text("\n".join(kept))
    if final:
        run.final.mkdir()
    return run


def test_a_run_of_an_older_version_is_resumed(tmp_path: Path) -> None:
    run = run_of_an_older_version(tmp_path)
    before = run.recipe_file.read_text()
    RunFolder.open(tmp_path, Recipe(), resume=True)
    assert run.recipe_file.read_text() == before


def test_a_run_of_an_older_version_is_refused_for_what_changed_alone(tmp_path: Path) -> None:
    run_of_an_older_version(tmp_path)
    with pytest.raises(TrainingError, match="with a changed recipe") as raised:
        RunFolder.open(tmp_path, Recipe(seed=1, workers=2), resume=True)
    assert str(raised.value).splitlines()[1:] == ["-seed = 0", "-workers = 0", "+seed = 1", "+workers = 2"]


@pytest.mark.parametrize("place", ["preset", "part", "dialect"])
def test_nothing_that_only_a_run_s_folder_names_is_imported(tmp_path: Path, place: str) -> None:
    """The folder may be of someone else; the recipe that the user gives names no code."""
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nreward = lambda text: 1.0\n")
    run = RunFolder.open(tmp_path / "run", Recipe(), resume=False)
    text = run.recipe_file.read_text()
    if place == "preset":
        text = text.replace('preset = "paper"', f'preset = "{trap.as_posix()}:reward"')
    elif place == "dialect":
        text = text.replace('dialect = ""', f'dialect = "{trap.as_posix()}:reward"')
    else:
        text = text.replace("parts = []", f'parts = [{{name = "{trap.as_posix()}:reward"}}]')
    run.recipe_file.write_text(text)
    run.final.mkdir()
    assert not run.is_finished(Recipe())
    with pytest.raises(TrainingError, match=r"names .*trap\.py:reward, which this recipe does not"):
        RunFolder.open(tmp_path / "run", Recipe(), resume=True)
    assert not (tmp_path / "sprung").exists()


def test_a_finished_run_of_an_older_version_is_finished(tmp_path: Path) -> None:
    run = run_of_an_older_version(tmp_path, final=True)
    assert run.is_finished(Recipe())
    assert not run.is_finished(Recipe(seed=1))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sede = 1", r"unknown key sede; did you mean seed\?"),
        ("[lora]\nrank = -1", r"lora\.rank: expected 0 \(no adapters\) or more, found -1"),
        ("seed = ", "is not TOML"),
    ],
)
def test_a_run_s_recipe_that_cannot_be_read_is_named_with_the_key(tmp_path: Path, line: str, message: str) -> None:
    run = RunFolder.open(tmp_path, Recipe(), resume=False)
    run.recipe_file.write_text(line)
    run.final.mkdir()
    with pytest.raises(RecipeError, match=message) as raised:
        RunFolder.open(tmp_path, Recipe(), resume=True)
    assert str(run.recipe_file) in str(raised.value)
    with pytest.raises(RecipeError, match=message):
        run.is_finished(Recipe())


class Killed(BaseException):
    """As sudden as kill -9."""


def killed_at(moment: int, patch: pytest.MonkeyPatch, write: Callable[[], None]) -> bool:
    """Whether `write` died before its `moment`-th call that changes or syncs a file; then no later one works either."""
    calls = iter(range(10_000))

    def mortal(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **settings: Any) -> Any:
            if next(calls) >= moment:
                raise Killed
            return call(*arguments, **settings)

        return called

    with patch.context() as dying:
        for owner, name in ((Path, "rename"), (Path, "mkdir"), (Path, "write_text"), (os, "fsync"), (shutil, "rmtree")):
            dying.setattr(owner, name, mortal(getattr(owner, name)))
        try:
            write()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("name", ["best", "final", "checkpoints/step_2"])
@pytest.mark.parametrize("before", ["old", None])
def test_a_kill_leaves_a_folder_as_it_was_or_as_it_was_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, before: str | None
) -> None:
    found, moment, again = set(), 0, True
    while again:
        run = tmp_path / str(moment)
        RunFolder.open(run, Recipe(), resume=False)
        if before:
            (run / name).mkdir(parents=True)
            (run / name / "weights").write_text(before)

        def write(run: Path = run) -> None:
            with whole_folder(run / name) as folder:
                (folder / "adapter").mkdir()
                (folder / "adapter/weights").write_text("new")
                (folder / "weights").write_text("new")

        again = killed_at(moment, monkeypatch, write)
        RunFolder.open(run, Recipe(), resume=True)
        left = {str(p.relative_to(run)): p.read_text() for p in run.rglob("weights")}
        whole = {f"{name}/weights": "new", f"{name}/adapter/weights": "new"}
        assert left in ({f"{name}/weights": before} if before else {}, whole)
        assert not list(run.rglob(".*"))
        found.add(left == whole)
        moment += 1
    assert found == {True, False}
    assert moment > 8


def test_what_a_kill_left_is_the_writer_s_alone_to_mend(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, Recipe(), resume=False)
    for name in ("checkpoints/.step_3.partial", "checkpoints/.mine.partial", ".best.old", ".final.partial"):
        (tmp_path / name).mkdir(parents=True)
    RunFolder.open(tmp_path, Recipe(), resume=True, writes=False)
    assert len(list(tmp_path.rglob(".*"))) == 4
    RunFolder.open(tmp_path, Recipe(), resume=True)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_dir()}
    assert left == {"checkpoints", "checkpoints/.mine.partial", "best"}


def test_what_torch_says_of_a_full_disk_is_an_error_of_the_user_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder.open(tmp_path, Recipe(), resume=False)

    def full(*_: object, **settings: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

    policy: Any = None
    monkeypatch.setattr("visionr1.training.run_folder.save_trained", lambda *_, **__: None)
    monkeypatch.setattr("visionr1.training.run_folder.save_policy", full)
    with pytest.raises(TrainingError, match=r"cannot write .*best: .*unexpected pos.*; there is no checkpoint yet"):
        folder.write_model("best", policy, torch.float32)
    (tmp_path / "checkpoints/step_2").mkdir(parents=True)
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"cannot write .*step_4: .*; the newest checkpoint, .*step_2, is kept"):
        folder.write_checkpoint(policy, {}, step=4, keep=1)
    assert not list(tmp_path.rglob(".*"))


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
        lambda: torch.save({**{name: {} for name in STATE_FIELDS}, "position": {"step": 1}}, file),
        lambda: torch.save({**{name: {} for name in STATE_FIELDS}, "log_lengths": {"metrics.jsonl": "x"}}, file),
        file.unlink,
    ):
        spoil()
        with pytest.raises(CheckpointError, match=r"trainer_state.pt is damaged .*delete .*step_10, .* from step_2$"):
            folder.read_state(newest)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_checkpoint_that_cannot_be_opened_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    folder = RunFolder.open(tmp_path, Recipe(), resume=False)
    checkpoint = tmp_path / "checkpoints/step_2"
    checkpoint.mkdir(parents=True)
    torch.save({}, checkpoint / "trainer_state.pt")

    def refuse(*_: object, **settings: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match=rf"cannot read .*trainer_state\.pt: {os.strerror(number)}") as raised:
        folder.read_state(checkpoint)
    assert "delete" not in str(raised.value)


def test_an_error_that_is_none_of_the_disk_s_is_not_called_a_full_disk(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path, Recipe(), resume=False)
    with pytest.raises(RuntimeError, match=r"^CUDA error$"), folder.writing(tmp_path / "final"):
        raise RuntimeError("CUDA error")


def test_files_that_a_kill_left_half_written_are_removed_at_the_next_start(tmp_path: Path) -> None:
    for name in (".versions.json.abcd12_3", ".recipe.toml.00000000", ".results.json.zzzzzzzz", ".mine.abcdefgh"):
        (tmp_path / name).write_text("{")
    RunFolder.open(tmp_path, Recipe(), resume=False)
    assert [path.name for path in tmp_path.glob(".*")] == [".mine.abcdefgh"]


def test_the_command_can_be_pasted_whatever_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["visionr1", "train", "demo", "--set", 'phase.0.name="a b; touch x"'])
    RunFolder.open(tmp_path, Recipe(), resume=False)
    command = read_json(tmp_path / "versions.json")["command"]
    assert shlex.split(command) == ["visionr1", *sys.argv[1:]]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"cannot write into .*file/run: .*choose another --run-dir"):
        RunFolder.open(tmp_path / "file/run", Recipe(), resume=False)


@pytest.mark.parametrize("row", ["7", "[]", "{}", '{"sample_id": 7}', '{"sample_id": null}'])
def test_a_foreign_row_of_a_log_is_named(tmp_path: Path, row: str) -> None:
    folder = RunFolder.open(tmp_path, Recipe(), resume=False)
    (tmp_path / "skipped.jsonl").write_text('{"sample_id": "1"}\n' + row + "\n")
    with pytest.raises(TrainingError, match=r"skipped\.jsonl, row 2: expected an object as the run wrote it"):
        folder.rows("skipped.jsonl", "sample_id", str)
