"""`visionr1 eval --predictions FILE --data COCO --json`: one object, pycocotools' figures, no images, every guard."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.detection_problems import pycocotools_figures, random_problem
from support.evaluating import evaluate_file
from visionr1 import cli
from visionr1.evaluation import format_results


def run(folder: Path, truth: Any, results: Any, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    files = ["--predictions", str(folder / "results.json"), "--data", str(folder / "truth.json")]
    assert cli.main(["eval", *files, "--json", "--resamples", "2", *more]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1 and printed.err == ""
    found: dict[str, Any] = json.loads(printed.out, parse_constant=pytest.fail)  # no NaN, no Infinity
    return found


def test_twelve_figures_in_pycocotools_order_and_the_rest_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, results = random_problem(7)  # scores with ties, crowd regions; no image file anywhere
    record = run(tmp_path, truth, results, capsys)
    np.testing.assert_allclose(record["coco"], pycocotools_figures(truth, results), rtol=0, atol=1e-12)
    assert {"metrics", "interval", "counts", "faults", "per_category", "protocol"} <= set(record)
    assert record["protocol"]["name"] == "coco_results" and record["protocol"]["scores"] == "file"
    assert record["counts"]["crowd_regions"] == sum(row["iscrowd"] for row in truth["annotations"])


def test_data_may_be_a_folder_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = random_problem(8)
    alone = run(tmp_path, truth, results, capsys)
    for split in ("train", "test"):
        (tmp_path / "set" / split).mkdir(parents=True)
        name = tmp_path / "set" / split / "_annotations.coco.json"
        name.write_text(json.dumps(truth if split == "test" else {}))
    files = ["--predictions", str(tmp_path / "results.json"), "--data", str(tmp_path / "set")]
    assert cli.main(["eval", *files, "--json", "--resamples", "2", "--split", "test"]) == 0
    assert json.loads(capsys.readouterr().out) == alone


def guard(change: str, truth: Any, results: Any) -> None:
    rows = truth["annotations"]
    if change == "annotation ids from 0":
        for number, row in enumerate(rows):
            row["id"] = number
    elif change == "ids as strings":
        for row in [*rows, *results]:
            row["image_id"], row["category_id"] = str(row["image_id"]), str(row["category_id"])
    elif change == "names as image ids":
        for row in [*truth["images"], *rows, *results]:
            key = "id" if "file_name" in row else "image_id"
            row[key] = f"{row[key]:06d}.jpg"
    elif change == "no area and no iscrowd":
        for row in rows:
            del row["area"], row["iscrowd"]
    elif change == "category absent from the split":
        truth["categories"].append({"id": 77, "name": "absent"})
    elif change == "result of an unknown category":
        results.append({**results[0], "category_id": 99})


@pytest.mark.parametrize(
    "change",
    [
        "annotation ids from 0",
        "ids as strings",
        "names as image ids",
        "no area and no iscrowd",
        "category absent from the split",
        "result of an unknown category",
    ],
)
def test_what_does_no_harm(change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = random_problem(9, crowd=0)
    for row in truth["annotations"]:
        row["area"] = row["bbox"][2] * row["bbox"][3]
    plain = run(tmp_path, truth, results, capsys)
    guard(change, truth, results)
    record = run(tmp_path, truth, results, capsys)
    assert record["coco"] == plain["coco"] and record["metrics"] == plain["metrics"]
    assert record["counts"]["categories_without_truth"] == (change == "category absent from the split")
    assert record["counts"]["unknown_categories"] == (change == "result of an unknown category")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image_id": 12345}, "row 0: image_id"),
        ({"score": float("nan")}, "row 0: score"),
        ({"bbox": [0, 0, float("inf"), 1]}, "row 0: bbox"),
    ],
)
def test_what_is_refused(row: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = random_problem(9)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps([{**results[0], **row}]))
    files = ["--predictions", str(tmp_path / "results.json"), "--data", str(tmp_path / "truth.json")]
    assert cli.main(["eval", *files, "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and message in printed.err


def test_nothing_predicted_and_nothing_true(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = random_problem(10, crowd=0)
    assert run(tmp_path, truth, [], capsys)["coco"][0] == 0
    nothing_true = run(tmp_path, {**truth, "annotations": []}, results, capsys)
    assert nothing_true["coco"] == [-1] * 12 and nothing_true["counts"]["true_boxes"] == 0


def test_more_than_100_boxes_in_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boxes = [[10.0 * column, 10.0 * row, 8.0, 8.0] for row in range(15) for column in range(10)]
    rows = [{"image_id": 1, "category_id": 1, "bbox": box} for box in boxes]
    truth = {
        "images": [{"id": 1, "width": 200, "height": 200}],
        "categories": [{"id": 1, "name": "grain"}],
        "annotations": [{**row, "id": number} for number, row in enumerate(rows)],
    }
    results = [{**row, "score": 1.0} for row in rows]
    limited = run(tmp_path, truth, results, capsys)
    assert limited["metrics"]["AR100"] == pytest.approx(2 / 3) and limited["metrics"]["recall"] == 1
    record = run(tmp_path, truth, results, capsys, "--protocol", "mmdet")
    assert record["metrics"]["AR1000"] == pytest.approx(1) and record["metrics"]["AP"] == pytest.approx(1)


def test_large_files_have_intervals_only_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, results = random_problem(11)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    monkeypatch.setattr("visionr1.evaluation.detection.scoring.MAX_RESAMPLED", len(results) - 1)
    monkeypatch.setattr("visionr1.evaluation.detection.scoring.NUM_RESAMPLES", 2)
    files = tmp_path / "results.json", tmp_path / "truth.json"
    large = evaluate_file(*files)
    assert not large.interval and "no intervals; --resamples 1000" in format_results({"large": large})
    assert evaluate_file(*files, num_resamples=2).interval
    monkeypatch.setattr("visionr1.evaluation.detection.scoring.MAX_RESAMPLED", len(results))
    assert evaluate_file(*files).interval
