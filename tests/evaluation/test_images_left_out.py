"""Images that bad rows cost (`--on-bad skip`): predictions of them do not count, and the figures say how many."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from support.evaluating import evaluate_file
from visionr1.cli import main
from visionr1.errors import DataError

BOX = [5, 5, 30, 30]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images with a cat each; the second has another, whose box is no box."""
    rows: dict[str, Any] = {"images": [], "categories": [{"id": 1, "name": "cat"}], "annotations": []}
    for image_id, boxes in ((1, [BOX]), (2, [BOX, ["60", "5", "30", "30"]])):
        Image.new("RGB", (100, 80)).save(tmp_path / f"{image_id}.png")
        rows["images"].append({"id": image_id, "file_name": f"{image_id}.png", "width": 100, "height": 80})
        for box in boxes:
            rows["annotations"].append({"image_id": image_id, "category_id": 1, "bbox": box, "area": 900})
    (tmp_path / "_annotations.coco.json").write_text(json.dumps(rows))
    return tmp_path


def write_results(folder: Path) -> Path:
    """Write a right box for every cat, also for the one whose annotation is bad."""
    rows = []
    for image_id, box in ((1, BOX), (2, BOX), (2, [60, 5, 30, 30])):
        rows.append({"image_id": image_id, "category_id": 1, "bbox": box, "score": 0.9})
    path = folder / "results.json"
    path.write_text(json.dumps(rows))
    return path


def test_boxes_of_an_image_left_out_do_not_count(folder: Path) -> None:
    results = write_results(folder)
    with pytest.raises(DataError, match="--on-bad skip"):
        evaluate_file(results, folder)
    result = evaluate_file(results, folder, on_bad="skip")
    assert result.metrics["AP"] == pytest.approx(1)
    assert result.counts["images"] == 1 and result.counts["images_left_out"] == 1


def test_replies_to_an_image_left_out_do_not_count(folder: Path) -> None:
    rows = [{"image_id": image_id, "text": '[{"bbox_2d": [5, 5, 35, 35], "label": "cat"}]'} for image_id in (1, 2)]
    replies = folder / "replies.jsonl"
    replies.write_text("".join(json.dumps(row | {"input_size_wh": [100, 80]}) + "\n" for row in rows))
    result = evaluate_file(replies, folder, dialect="qwen25", on_bad="skip")
    assert result.counts["replies"] == 1 and result.counts["images_left_out"] == 1


def test_the_table_says_it_and_the_stored_result_can_be_compared(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write_results(folder)
    for out in ("a", "b"):
        command = ["eval", "--predictions", str(results), "--data", str(folder), "--on-bad", "skip"]
        assert main([*command, "--out", str(folder / out)]) == 0
    printed = capsys.readouterr()
    assert "images left out" in printed.out and "images left out: 1 (1 for bad box)" in printed.err

    stored = [str(folder / out / "evaluation/results.json") for out in ("a", "b")]
    assert main(["compare", *stored]) == 0
    assert "paired over the images" in capsys.readouterr().out
