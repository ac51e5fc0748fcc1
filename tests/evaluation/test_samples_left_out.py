"""Rows that are samples of their own: predictions of those that `--on-bad skip` leaves out are not scored."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from visionr1.cli import main


def write_rows(folder: Path) -> None:
    """Write LISA's file of four rows, of which two cannot be used, and one of them has an image of its own."""
    rows: list[dict[str, Any]] = []
    for index in range(4):
        Image.new("RGB", (40, 30)).save(folder / f"{index}.png")
        rows.append({"image": f"{index}.png", "normal_caption": "the cat", "solution": [1, 2, 21, 22]})
    rows[1]["solution"] = [30, 2, 21, 22]
    rows[2] |= {"image": "0.png", "solution": ["1", 2, 3, 4]}
    (folder / "lisa_test.json").write_text(json.dumps(rows))


@pytest.mark.parametrize("form", ["boxes", "replies"])
def test_predictions_of_rows_that_were_skipped_are_passed_over(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path)
    predictions: list[dict[str, Any]] = []
    for index in range(4):
        row: dict[str, Any] = {"sample_id": str(index), "bbox": [1, 2, 20, 20]}
        if form == "replies":
            text = '[{"bbox_2d": [1, 2, 21, 22], "label": "the cat"}]'
            row = {"sample_id": str(index), "image_id": index, "input_size_wh": [40, 30], "text": text}
        predictions.append(row)
    file = tmp_path / "predictions.json"
    file.write_text(json.dumps(predictions))
    arguments = ["eval", "--predictions", str(file), "--benchmark", "lisa", "--data", str(tmp_path)]
    if form == "replies":
        arguments += ["--dialect", "qwen25"]

    assert main(arguments) == 2
    assert main([*arguments, "--on-bad", "skip"]) == 0
    printed = capsys.readouterr()
    assert "100.0" in printed.out
    assert "skipped 2 bad box" in printed.err
    assert "images left out: 1" in printed.err

    # One that the set never had is still refused.
    predictions[0]["sample_id"] = "77"
    file.write_text(json.dumps(predictions))
    assert main([*arguments, "--on-bad", "skip"]) == 2
    assert "77" in capsys.readouterr().err


def test_predictions_of_conversations_that_were_skipped_are_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The image of a row that was skipped is left out where no other row has it."""
    lines = []
    results = []
    for index, answer in enumerate(['[{"bbox_2d": [1, 2, 21, 22], "label": "cat"}]', "I see a cat."]):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{index}.png")
        turns = [
            {"from": "human", "value": "<image>Find the following objects: ['cat']"},
            {"from": "gpt", "value": answer},
        ]
        lines.append(json.dumps({"image": f"{index}.png", "conversations": turns}) + "\n")
        results.append({"image_id": f"{index}.png", "category_id": 1, "bbox": [1, 2, 20, 20], "score": 1})
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(lines))
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    arguments = ["eval", "--predictions", str(file), "--data", str(rows), "--on-bad", "skip"]
    assert main(arguments) == 0
    assert "images left out" in capsys.readouterr().out
