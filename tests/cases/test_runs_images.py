"""Pictures that a model cannot be fed: named, skipped if told to, counted, and no end of a run (F6, F16, case 19)."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from support.training import killed_at, rows, weights
from visionr1.cli import main
from visionr1.files import read_json

DATA = Path(__file__).parent / "data"
RECIPE = """
method = "{method}"
[model]
path = "{model}"
[checkpoint]
every = 1
[train]
steps = 4
batch_size = 2
learning_rate = 1e-3
[rollout]
group_size = 2
max_new_tokens = 8
[[data]]
source = "{data}"
"""


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """Four images with a box each, of which the second is too long and thin for any processor of Qwen's."""
    folder = tmp_path / "four"
    folder.mkdir()
    sizes = [(64, 48), (2, 401), (48, 64), (64, 64)]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (width, height) in enumerate(sizes, 1):
        name = f"{number}.png"
        Image.new("RGB", (width, height), (40 * number, 90, 120)).save(folder / name)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        box = [0, 0, width, height / 2]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box, "iscrowd": 0})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "_annotations.coco.json").write_text(json.dumps(content))
    return folder / "_annotations.coco.json"


@pytest.fixture
def recipe(tmp_path: Path, four: Path, qwen3_folder: Path) -> str:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(method="sft", model=qwen3_folder.as_posix(), data=four.as_posix()))
    return str(path)


def test_eval_names_the_sample_the_file_and_the_way_out(
    four: Path, qwen3_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "--model", str(qwen3_folder), "--data", str(four), "--max-new-tokens", "8"]) == 2
    message = capsys.readouterr().err
    assert f"sample 2: {four.parent / '2.png'}: " in message
    assert "--on-bad skip" in message


def test_eval_counts_a_skipped_image_as_one_without_a_reply(
    four: Path, qwen3_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    command = ["eval", "--model", str(qwen3_folder), "--data", str(four), "--max-new-tokens", "8", "--batch-size", "1"]
    out = tmp_path / "out"
    assert main([*command, "--on-bad", "skip", "--out", str(out)]) == 0
    assert caplog.text.count("sample 2: ") == 1
    (stored,) = out.glob("evaluation/*.json")
    counts = read_json(stored)["counts"]
    assert (counts["images"], counts["replies"], counts["images_without_reply"]) == (4, 3, 1)
    assert "images without reply" in capsys.readouterr().out

    # What is stored can be compared, drawn, and gone on with.
    copy = stored.with_name("copy.json")
    shutil.copy(stored, copy)
    shutil.copy(stored.with_suffix(".predictions.jsonl"), copy.with_suffix(".predictions.jsonl"))
    assert main(["compare", str(stored), str(copy), "--resamples", "9"]) == 0
    assert main(["report", str(out)]) == 0
    assert main([*command, "--on-bad", "skip", "--out", str(out)]) == 0


@pytest.mark.parametrize("name", ["a_aspect", "a_corrupt", "a_zero"])
def test_case_19_evaluation_goes_on_without_bad_pictures(
    name: str, qwen3_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures came never, however often it was run."""
    data = Path(shutil.copytree(DATA / "case_19" / name.replace("a_corrupt", "a_aspect"), tmp_path / name))
    if name == "a_corrupt":
        for number in (1, 2, 3):
            path = data / f"{number}.jpg"
            with Image.open(path) as image:
                size = image.size
            if size == (2400, 8):
                Image.effect_noise(size, 90).convert("RGB").save(path)
                path.write_bytes(path.read_bytes()[:2000])
    command = ["eval", "--model", str(qwen3_folder), "--data", str(data), "--max-new-tokens", "8", "--json"]
    assert main(command) == 2
    capsys.readouterr()
    assert main([*command, "--on-bad", "skip"]) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert counts["images_without_reply"] == 1
    assert counts["replies"] == counts["images"] - 1


@pytest.mark.parametrize("method", ["sft", "grpo"])
@pytest.mark.parametrize("workers", [0, 1])
def test_train_skips_names_and_counts_what_cannot_be_fed(
    recipe: str,
    four: Path,
    tmp_path: Path,
    method: str,
    workers: int,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    arguments = ["train", recipe, "--run-dir", str(tmp_path / "run"), "--set", f"method={method}"]
    arguments += ["--set", f"workers={workers}", "--set", "data.0.on_bad=skip"]
    assert main(arguments) == 0
    assert caplog.text.count("sample 2 is skipped: sample 2: ") == 1  # once, though it is drawn twice
    assert "samples skipped: 1 (see " in capsys.readouterr().out
    skipped = rows(tmp_path / "run", "skipped.jsonl")
    assert [row["sample_id"] for row in skipped] == ["2", "2"]
    assert sum(row["skipped_samples"] for row in rows(tmp_path / "run")) == 2

    # Its own rollouts can be scored and measured.
    if method == "grpo":
        rollouts = str(tmp_path / "run/rollouts.jsonl")
        assert main(["score", rollouts, "--dialect", "qwen3"]) == 0
        assert main(["eval", "--predictions", rollouts, "--dialect", "qwen3", "--resamples", "0"]) == 0


def test_a_stopped_run_goes_on_without_the_bad_sample(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--resume ended at the same image, and refused the data without it: a dead end."""
    arguments = ["train", recipe, "--run-dir", str(tmp_path / "stopped")]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert "sample 2: " in message
    assert "--resume --set data.0.on_bad=skip" in message
    assert main([*arguments, "--resume"]) == 2

    # Skipping from the start, from the stop, and leaving the sample out by its name all draw the same samples.
    assert main([*arguments, "--resume", "--set", "data.0.on_bad=skip"]) == 0
    assert main([*arguments, "--resume", "--set", "data.0.on_bad=skip"]) == 0
    assert "is finished already" in capsys.readouterr().out
    for name, setting in (("skip", "data.0.on_bad=skip"), ("named", 'data.0.leave_out=["2"]')):
        assert main(["train", recipe, "--run-dir", str(tmp_path / name), "--set", setting]) == 0
    expected = weights(tmp_path / "stopped")
    for name in ("skip", "named"):
        found = weights(tmp_path / name)
        assert all(found[key].equal(value) for key, value in expected.items())


def test_a_killed_run_that_skips_is_resumed_exactly(recipe: str, tmp_path: Path) -> None:
    arguments = ["train", recipe, "--set", "method=grpo", "--set", "data.0.on_bad=skip", "--set", "train.steps=6"]
    assert main([*arguments, "--run-dir", str(tmp_path / "alone")]) == 0
    for step, resume in ((2, []), (3, ["--resume"]), (5, ["--resume"])):
        with killed_at(step, "metrics.jsonl"):
            main([*arguments, "--run-dir", str(tmp_path / "killed"), *resume])
    assert main([*arguments, "--run-dir", str(tmp_path / "killed"), "--resume"]) == 0
    for log in ("metrics.jsonl", "rollouts.jsonl", "skipped.jsonl"):
        assert rows(tmp_path / "killed", log) == rows(tmp_path / "alone", log)
    for name, value in weights(tmp_path / "alone").items():
        assert value.equal(weights(tmp_path / "killed")[name])


def test_resume_leaves_named_samples_out_and_accepts_no_other_change_of_the_data(
    recipe: str, four: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", recipe, "--run-dir", str(tmp_path / "run")]
    assert main(arguments) == 2
    capsys.readouterr()
    assert main([*arguments, "--resume", "--set", 'data.0.leave_out=["7"]']) == 2
    assert "has no sample '7'" in capsys.readouterr().err
    content = read_json(four)
    changed = {**content, "images": content["images"][1:], "annotations": content["annotations"][1:]}
    four.write_text(json.dumps(changed))
    assert main([*arguments, "--resume", "--set", 'data.0.leave_out=["2"]']) == 2
    assert "has changed since" in capsys.readouterr().err
    four.write_text(json.dumps(content))
    assert main([*arguments, "--resume", "--set", 'data.0.leave_out=["2"]']) == 0
    assert 'leave_out = ["2"]' in (tmp_path / "run/recipe.toml").read_text()


def test_resume_accepts_that_images_were_moved(recipe: str, four: Path, tmp_path: Path) -> None:
    arguments = ["train", recipe, "--run-dir", str(tmp_path / "run")]
    assert main(arguments) == 2
    (tmp_path / "moved").mkdir()
    for image in four.parent.glob("*.png"):
        image.rename(tmp_path / "moved" / image.name)
    arguments += ["--resume", "--set", 'data.0.leave_out=["2"]']
    assert main(arguments) == 2
    assert main([*arguments, "--set", f"data.0.images={tmp_path / 'moved'}"]) == 0


def test_a_set_of_which_nothing_can_be_fed_is_an_error(
    recipe: str, four: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = read_json(four)
    content = {key: rows[1:2] if key != "categories" else rows for key, rows in content.items()}
    four.write_text(json.dumps(content))
    assert main(["train", recipe, "--run-dir", str(tmp_path / "run"), "--set", "data.0.on_bad=skip"]) == 2
    assert "none of 1 samples can be used; sample 2: " in capsys.readouterr().err


def test_evaluation_during_training_skips_likewise(
    recipe: str, four: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", recipe, "--run-dir", str(tmp_path / "run"), "--set", "data.0.on_bad=skip"]
    arguments += ["--set", "eval.every=2", "--set", f"eval.source={four}", "--set", "eval.max_new_tokens=8"]
    assert main(arguments) == 2
    assert f"{four.parent / '2.png'}" in capsys.readouterr().err
    assert main([*arguments, "--set", "eval.on_bad=skip", "--resume"]) == 0
    assert [row["counts"]["images_without_reply"] for row in rows(tmp_path / "run", "evaluations.jsonl")] == [1, 1]
