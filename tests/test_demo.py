import json
from pathlib import Path

import pytest

from visionr1 import demo as room
from visionr1.assets import recipe_path
from visionr1.errors import TrainingError
from visionr1.training.recipe import Recipe, load_recipe


@pytest.fixture
def short(qwen3_folder: Path) -> Recipe:
    """The demo's recipe, cut to two steps of a random model."""
    overrides = ["train.minutes=0", "train.steps=2", "train.batch_size=2", "rollout.group_size=2", "threads=1"]
    recipe = load_recipe(recipe_path("demo"), [*overrides, "rollout.max_new_tokens=8", "checkpoint.every=1"])
    return recipe.with_model(str(qwen3_folder))


def test_goes_on_after_an_interrupt_and_leaves_results_and_report(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, measured = tmp_path / "demo", room.measure

    def interrupted(name: str, *rest: object) -> object:
        if name == "trained":
            raise KeyboardInterrupt
        return measured(name, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(room, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            room.demo(short, folder)
    files = [folder / "metrics.jsonl", folder / "final/model.safetensors", folder / "evaluation/base.json"]
    before = [path.stat().st_mtime_ns for path in files]

    room.demo(short, folder)

    assert [path.stat().st_mtime_ns for path in files] == before
    found = json.loads((folder / "results.json").read_text())
    for name in ("base", "trained"):
        stored = json.loads((folder / "evaluation" / f"{name}.json").read_text())
        assert found[name] == stored["metrics"]
        assert stored["counts"]["images"] == found["protocol"]["images"] == 72
    for name, gain in found["gain"].items():
        assert gain["difference"] == pytest.approx(found["trained"][name] - found["base"][name], abs=1e-6)
        assert gain["interval"][0] <= gain["interval"][1]
    assert (folder / "report.html").is_file()
    said = capsys.readouterr().out
    assert "protocol default: qwen25, greedy, float32, 8 tokens" in said
    assert "Change, paired over the images: AP +0.0 [" in said

    with pytest.raises(TrainingError, match="holds a finished demo"):
        room.demo(short, folder)


def test_never_writes_into_a_folder_of_something_else(short: Recipe, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(TrainingError, match="is not empty and holds no demo"):
        room.demo(short, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_new_demo_goes_beside_the_finished_ones(tmp_path: Path) -> None:
    assert room.next_run_dir(tmp_path) == tmp_path / "demo"
    for name in ("demo", "demo-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").touch()
    (tmp_path / "demo-3").mkdir()  # not finished: to go on with
    assert room.next_run_dir(tmp_path) == tmp_path / "demo-3"
