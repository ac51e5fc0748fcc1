"""Stored results side by side: paired where that is right, marked where it is not; exports."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.detection_problems import pycocotools_figures, random_problem
from support.evaluating import evaluate_file
from visionr1 import cli
from visionr1.data import read_dataset
from visionr1.dialects import get_dialect
from visionr1.errors import DataError, MissingDependency
from visionr1.evaluation import (
    Prediction,
    Replies,
    compare,
    evaluate,
    to_supervision,
    write_evaluation,
    write_predictions,
)
from visionr1.samples import Boxes


def store(folder: Path, name: str, results: list[dict[str, Any]], truth: dict[str, Any], *more: str) -> Path:
    """Evaluate results through the command line; the stored result."""
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / f"{name}.json").write_text(json.dumps(results))
    files = ["--predictions", str(folder / f"{name}.json"), "--data", str(folder / "truth.json")]
    assert cli.main(["eval", *files, "--out", str(folder), "--resamples", "2", *more]) == 0
    return folder / f"evaluation/{name}.json"


def test_results_on_the_same_images_have_a_paired_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, results = random_problem(1, images=20, crowd=0)
    paths = [store(tmp_path, "few", results[::2], truth), store(tmp_path, "all", results, truth)]
    capsys.readouterr()
    assert cli.main(["compare", *map(str, paths), "--resamples", "50"]) == 0
    printed = capsys.readouterr().out
    assert "all - few: paired over the images: AP " in printed and "not comparable" not in printed
    record = compare(paths, num_resamples=50).to_json()
    recall = record["differences"]["all"]["recall"]
    metrics = [record["results"][name]["metrics"]["recall"] for name in ("few", "all")]
    assert recall["difference"] == pytest.approx(metrics[1] - metrics[0]) and recall["interval"][0] > 0


def test_another_protocol_or_other_data_is_marked_and_not_subtracted(tmp_path: Path) -> None:
    truth, results = random_problem(2, images=8)
    first = store(tmp_path, "first", results, truth)
    assert store(tmp_path, "constant", results, truth).is_file()
    store(tmp_path, "constant", results, truth, "--protocol", "mmdet")
    constant = tmp_path / "evaluation/constant-mmdet.json"
    (tmp_path / "other").mkdir()
    more_truth, more_results = random_problem(2, images=9)
    other = store(tmp_path / "other", "first", more_results, more_truth)
    compared = compare([first, constant, other])
    text = compared.table()
    assert "constant-mmdet *" in text and "* constant-mmdet: protocol mmdet" in text
    assert "constant-mmdet - " in text and "no difference: another protocol" in text
    assert f"{other.with_suffix('')} +" in text and "+ On other data than the first: not comparable." in text
    assert "no difference: other data" in text
    assert set(compared.to_json()["differences"].values()) == {
        "no difference: another protocol",
        "no difference: other data",
    }


def test_what_has_changed_since_is_refused(tmp_path: Path) -> None:
    truth, results = random_problem(3, images=8)
    paths = [store(tmp_path, "a", results, truth), store(tmp_path, "b", results[::2], truth)]
    (tmp_path / "b.json").write_text(json.dumps(results[1::2]))
    with pytest.raises(DataError, match="one of them has changed, so evaluate again"):
        compare(paths, num_resamples=2)
    (tmp_path / "b.json").unlink()
    assert f"no difference: {tmp_path / 'b.json'}, which {paths[1]} was computed from" in compare(paths).table()
    with pytest.raises(DataError, match="expected each result once, found one twice among"):
        compare([paths[0], paths[0].parent / ".." / "evaluation" / "a.json"])
    with pytest.raises(DataError, match="expected a result that `visionr1 eval --out` wrote"):
        compare([tmp_path / "truth.json"])


def test_rows_that_were_skipped_are_skipped_again(tmp_path: Path) -> None:
    truth, results = random_problem(3, images=8)
    truth["annotations"].append({"image_id": 12345, "category_id": 1, "bbox": [0, 0, 9, 9]})
    paths = [store(tmp_path, name, rows, truth, "--on-bad", "skip") for name, rows in (("a", results), ("b", []))]
    assert "paired over the images: AP " in compare(paths, num_resamples=2).table()


@pytest.mark.parametrize("benchmark", ["", "coco"])
def test_images_that_no_model_was_asked_about_stay_out(tmp_path: Path, benchmark: str) -> None:
    truth = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in (1, 2)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": i, "category_id": 1, "bbox": [0, 0, 9, 9]} for i in (1, 2)],
    }
    data = tmp_path / "set/annotations/instances_val2017.json"
    data.parent.mkdir(parents=True)
    data.write_text(json.dumps(truth))
    (tmp_path / "set/val2017").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "set/val2017/1.png")  # the other one is missing
    dataset = read_dataset(data, on_bad="skip")
    paths = []
    for name, text in (("before", "[]"), ("after", '[{"bbox_2d": [0, 0, 9, 9], "label": "cat"}]')):
        said = [Prediction(image_id=1, text=text, sample_id="1", input_size_wh=(40, 30))]
        result = evaluate(dataset, Replies(said, get_dialect("qwen25")), num_resamples=2).result
        facts = {"model": name, "data": str(tmp_path / "set"), "split": "val", "on_bad": "skip", "unit": "val"}
        write_evaluation(tmp_path / name, "val", result, None, **facts, benchmark=benchmark)
        write_predictions(tmp_path / name / "val.predictions.jsonl", said)
        paths.append(tmp_path / name / "val.json")
    difference = compare(paths, num_resamples=2).differences[str(tmp_path / "after/val")]
    assert not isinstance(difference, str) and difference["AP"].difference == pytest.approx(1)


def test_scores_side_by_side_are_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = random_problem(4)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "r.json").write_text(json.dumps(results))
    files = ["--predictions", str(tmp_path / "r.json"), "--data", str(tmp_path / "truth.json"), "--resamples", "0"]
    assert cli.main(["eval", *files, "--scores", "file,constant"]) == 0
    printed = capsys.readouterr().out
    assert "r-file" in printed and "r-constant *" in printed and "box score constant 1" in printed
    assert cli.main(["eval", *files, "--scores", "file,constant", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["r-file", "r-constant"]
    assert cli.main(["eval", *files, "--scores", "best"]) == 2
    assert "expected one of constant, rank, token, file" in capsys.readouterr().err


def test_a_result_is_replaced_by_none_of_anything_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = random_problem(4)
    path = store(tmp_path, "r", results, truth)
    before = path.read_bytes()
    assert store(tmp_path, "r", results, truth).read_bytes() == before  # the same again
    for name in ("truth", "r"):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / f"other/{name}.json").write_bytes((tmp_path / f"{name}.json").read_bytes())
    command = ["eval", "--out", str(tmp_path), "--resamples", "0", "--predictions"]
    for said, data, more, message in (
        ("other/r.json", "truth.json", [], "model: expected"),
        ("r.json", "other/truth.json", [], "data: expected"),
        ("r.json", "truth.json", ["--on-bad", "skip"], 'on_bad: expected "skip", found "raise"'),
    ):
        assert cli.main([*command, str(tmp_path / said), "--data", str(tmp_path / data), *more]) == 2
        error = capsys.readouterr().err
        assert f"{path} holds a result of another evaluation: {message}" in error
        assert "choose another --out, or delete it" in error and path.read_bytes() == before
    facts = {"model": str(tmp_path / "r.json"), "data": str(tmp_path / "truth.json"), "split": "test"}
    result = evaluate_file(tmp_path / "r.json", tmp_path / "truth.json", protocol=["mmdet"], num_resamples=0)
    with pytest.raises(DataError, match=r"protocol max_dets: expected \[100, 300, 1000\], found \[1, 10, 100\]"):
        write_evaluation(tmp_path / "evaluation", "r", result, None, **facts)


def test_one_file_of_boxes_has_one_score_a_box(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", "--model", "tiny", "--data", "bccd", "--coco-results", str(tmp_path / "boxes.json")]
    assert cli.main([*command, "--scores", "constant,rank"]) == 2
    assert "one score a box: choose one of --scores constant,rank" in capsys.readouterr().err


def test_coco_results_score_the_same_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = random_problem(5, images=10)
    truth["annotations"] = [row for row in truth["annotations"] if not row["iscrowd"]]
    said = [
        {
            "image_id": image["id"],
            "text": json.dumps(
                [
                    {
                        "bbox_2d": [round(x), round(y), round(x + w) + 1, round(y + h) + 1],
                        "label": f"c{r['category_id']}",
                    }
                    for r in results
                    if r["image_id"] == image["id"]
                    for x, y, w, h in [[max(0.0, side) for side in r["bbox"]]]
                ]
            ),
            "input_size_wh": [640, 480],
        }
        for image in truth["images"]
    ]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "said.json").write_text(json.dumps(said))
    files = ["--predictions", str(tmp_path / "said.json"), "--data", str(tmp_path / "truth.json"), "--resamples", "0"]
    out = tmp_path / "boxes.json"
    command = ["eval", *files, "--dialect", "qwen25", "--protocol", "vision_r1_coco", "--json"]
    assert cli.main([*command, "--coco-results", str(out)]) == 0
    record = json.loads(capsys.readouterr().out)
    rows = json.loads(out.read_text())
    assert record["coco"][0] > 0 and {row["score"] for row in rows} == {0.99}
    np.testing.assert_allclose(pycocotools_figures(truth, rows), record["coco"], rtol=0, atol=1e-12)


BOXES = Boxes.of([[1, 2, 3, 4], [5, 6, 7, 9]], ["Dog", "cow"])


def test_supervision_is_named_if_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingDependency, match=r"supervision is not installed.*visionr1\[supervision\]"):
        to_supervision(BOXES, ("cat", "dog"))


def test_supervision_gets_boxes_classes_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=lambda **columns: columns))
    found = to_supervision(BOXES, ("cat", "dog"), np.array([0.5, 1.0]))
    assert found["xyxy"].tolist() == BOXES.xyxy.tolist() and found["xyxy"].dtype == np.float32
    assert found["class_id"].tolist() == [1, -1] and found["confidence"].tolist() == [0.5, 1.0]
    assert found["data"]["class_name"].tolist() == ["Dog", "cow"]
    assert to_supervision(BOXES, ("cat",))["confidence"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": 3}, "metrics: expected dict, found 3"),
        ({"protocol": [1]}, r"protocol: expected dict, found \[1\]"),
        ({"prediction_files": 3}, "prediction_files: expected list, found 3"),
        ({"interval": {"AP": [1]}}, r"interval of AP: expected \[low, high\], found \[1\]"),
    ],
)
def test_a_field_of_another_type_is_named(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    record = {"model": "m", "data": "d", "split": "", "metrics": {}, "protocol": {}, "interval": {}, "counts": {}}
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file in files:
        file.write_text(json.dumps({**record, **changes}))
    with pytest.raises(DataError, match=rf"a\.json: {message}"):
        compare(files)
