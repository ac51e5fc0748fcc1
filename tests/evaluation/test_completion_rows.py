"""What a run writes to rollouts.jsonl is evaluated as it is: every completion is an image."""

import json
from pathlib import Path

import pytest

from support.evaluating import evaluate_file
from visionr1 import cli
from visionr1.completions import CompletionRow
from visionr1.errors import DataError
from visionr1.evaluation import compare
from visionr1.samples import Boxes, GroundTruth

TRUTH = GroundTruth(Boxes.of([[10, 10, 30, 30]], ["cat"]), ("cat", "dog"), (100, 100), (50, 50))
RIGHT = json.dumps([{"bbox_2d": [5, 5, 15, 15], "label": "cat"}])


def write_rows(file: Path, *texts: str) -> Path:
    rows = [
        CompletionRow(text=text, truth=TRUTH, sample_id="7", image_id=7, index=index).to_json()
        for index, text in enumerate(texts)
    ]
    file.write_text("".join(json.dumps({"step": 1, **row, "total": 0.5}) + "\n" for row in rows))
    return file


def test_every_completion_counts_as_an_image(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rollouts.jsonl", RIGHT, "[]", RIGHT, "no idea")
    result = evaluate_file(file, None, dialect="qwen25", num_resamples=5)
    assert result.metrics["recall"] == 0.5 and result.metrics["precision"] == 1
    assert (result.counts["images"], result.counts["replies"], result.counts["unparsable"]) == (4, 4, 1)
    assert "every completion counts as an image" in result.protocol.line()


def test_with_data_its_crowd_regions_count_too(tmp_path: Path) -> None:
    box = {"image_id": 7, "category_id": 1, "bbox": [10, 10, 20, 20]}
    crowd = {"image_id": 7, "category_id": 1, "bbox": [60, 60, 30, 30], "iscrowd": 1}
    data = tmp_path / "truth.json"
    content = {"images": [{"id": 7, "width": 100, "height": 100}], "categories": [{"id": 1, "name": "cat"}]}
    data.write_text(json.dumps({**content, "annotations": [box, crowd]}))
    in_crowd = json.dumps([*json.loads(RIGHT), {"bbox_2d": [31, 31, 44, 44], "label": "cat"}])
    file = write_rows(tmp_path / "rollouts.jsonl", in_crowd, in_crowd)
    assert evaluate_file(file, None, dialect="qwen25", num_resamples=0).metrics["precision"] == 0.5
    result = evaluate_file(file, data, dialect="qwen25", num_resamples=0)
    assert result.metrics["precision"] == 1 and result.counts["crowd_regions"] == 2
    other = data.with_name("other.json")
    other.write_text(data.read_text().replace("7", "8"))
    with pytest.raises(DataError, match=r"a completion has image_id 7, which .*other\.json does not have"):
        evaluate_file(file, other, dialect="qwen25")


def test_through_the_command_line_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, texts in (("before", ["[]", RIGHT]), ("after", [RIGHT, RIGHT])):
        file = write_rows(tmp_path / f"{name}.jsonl", *texts)
        command = ["eval", "--predictions", str(file), "--dialect", "qwen25", "--resamples", "2"]
        assert cli.main([*command, "--out", str(tmp_path)]) == 0
    stored = [tmp_path / f"evaluation/{name}.json" for name in ("before", "after")]
    difference = compare(stored, num_resamples=5).differences["after"]
    assert not isinstance(difference, str) and difference["recall"].difference == 0.5
    capsys.readouterr()
    file = tmp_path / "raw.jsonl"
    file.write_text(json.dumps({"image_id": 1, "text": "[]"}))
    assert cli.main(["eval", "--predictions", str(file), "--dialect", "qwen25"]) == 2
    assert "its rows carry no true boxes; say with --data what has them" in capsys.readouterr().err
    assert cli.main(["eval", "--model", "tiny"]) == 2
    assert "--data: expected what has the true boxes" in capsys.readouterr().err
    file.write_text(json.dumps({"text": "[]", "boxes": [[1, 2]], "labels": ["cat"]}))
    assert cli.main(["eval", "--predictions", str(file), "--dialect", "qwen25"]) == 2
    assert "raw.jsonl: row 0: field boxes[0]: expected four numbers" in capsys.readouterr().err


def test_a_true_box_that_is_inverted_is_named(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rollouts.jsonl", RIGHT)
    file.write_text(file.read_text().replace("[10.0, 10.0, 30.0, 30.0]", "[30.0, 30.0, 10.0, 10.0]"))
    with pytest.raises(DataError, match=r"row 0: field boxes\[0\]: expected x1 < x2 and y1 < y2"):
        evaluate_file(file, None, dialect="qwen25", num_resamples=5)
