"""Training and evaluation with a dialect and a reader from files outside the package: those of docs/extending.md."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from support.extending import guide_file, yolo_folder
from support.training import GRPO, SFT, rows
from visionr1.cli import main
from visionr1.errors import CheckpointError
from visionr1.models.loading import load_policy
from visionr1.samples import Query

Run = Callable[..., int]


@pytest.mark.parametrize("text", [SFT, GRPO], ids=["sft", "grpo"])
def test_a_dialect_trains_and_is_evaluated(run: Run, tmp_path: Path, text: str) -> None:
    dialect = f"{guide_file('A dialect', tmp_path)}:DIALECT"
    settings = {
        "model.dialect": dialect,
        "model.template": "find {}",
        "eval.every": "2",
        "eval.limit": "2",
        "eval.max_new_tokens": "4",
    }
    folder = tmp_path / "own"
    assert run(text, "own", *(part for key, value in settings.items() for part in ("--set", f"{key}={value}"))) == 0

    # Every evaluation during training was asked and read as the recipe says.
    evaluation = rows(folder, "evaluations.jsonl")[0]
    assert evaluation["protocol"]["dialect"] == "lines" and evaluation["protocol"]["template"] == "find {}"

    # The model folder keeps the dialect's name and the template. No code is imported for a name that a file gives.
    assert json.loads((folder / "final/visionr1.json").read_text()) == {"dialect": "lines", "template": "find {}"}
    with pytest.raises(CheckpointError, match=r"unknown dialect 'lines'.*--dialect my_dialect\.py:NAME"):
        load_policy(folder)
    policy = load_policy(folder, dialect=dialect)
    image = Image.new("RGB", (64, 64))
    assert "find cat, dog" in policy.encode(image, Query("detection", ("cat", "dog"))).text
    assert "where is cat" in policy.encode(image, Query("detection", ("cat",)), "where is {}").text


def test_a_run_and_an_evaluation_read_data_by_a_reader(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = f"{guide_file('A reader', tmp_path)}:READER"
    data = yolo_folder(tmp_path / "set").as_posix()
    recipe = SFT.replace('source = "scenes"', f'source = "{data}"').partition("scenes =")[0]
    recipe += f'[[phase]]\nsteps = 2\n[eval]\nevery = 2\nsource = "{data}"\nmax_new_tokens = 4\n'
    assert run(recipe, "own", "--set", f"data.0.reader={reader}", "--set", f"eval.reader={reader}") == 0
    assert [row["step"] for row in rows(tmp_path / "own")] == [1, 2]
    assert rows(tmp_path / "own", "evaluations.jsonl")[0]["images"] == 2

    capsys.readouterr()
    arguments = ["--model", str(tmp_path / "own"), "--data", data, "--reader", reader, "--max-new-tokens", "4"]
    assert main(["eval", *arguments, "--json", "--out", str(tmp_path / "own")]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["images"] == 2

    # The result names its reader, and a page about the run does without the images that only it can read.
    stored = json.loads((tmp_path / "own/evaluation/own.json").read_text(encoding="utf-8"))
    assert stored["reader"] == "yolo"
    assert main(["report", str(tmp_path / "own")]) == 0
    assert main(["eval", *arguments, "--benchmark", "coco"]) == 2
    assert "--reader is for a data set" in capsys.readouterr().err
