"""Benchmarks through the command line, each on a small tree in its true layout, with figures worked out by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.benchmark_trees import (
    BOXES,
    image_row,
    write_d3,
    write_grefcoco,
    write_json,
    write_lines,
    write_lisa,
    write_ovdeval,
    write_refcoco,
    write_v3det,
)
from visionr1 import cli
from visionr1.errors import RecipeError
from visionr1.evaluation import BENCHMARKS
from visionr1.evaluation.protocols import PROTOCOLS

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Scores predictions: a list for all units, or by unit; returns the JSON object that is printed."""

    def score(benchmark: str, data: Path, said: Any, *more: str) -> dict[str, Any]:
        folder = tmp_path / "said"
        for name, rows in said.items() if isinstance(said, dict) else [("all", said)]:
            write_json(folder / f"{name}.json", rows)
        where = folder if isinstance(said, dict) else folder / "all.json"
        command = ["eval", "--benchmark", benchmark, "--data", str(data), "--predictions", str(where)]
        assert cli.main([*command, "--resamples", "20", "--json", *more]) == 0, capsys.readouterr().err
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return score


def metrics(record: dict[str, Any], name: str) -> dict[str, float]:
    found: dict[str, float] = record["results"][name]["metrics"]
    return found


# RefCOCO and its like


def test_refcoco_by_split_with_what_is_missing(tmp_path: Path, run: Run) -> None:
    said = {
        "val": [{"sample_id": "100", "bbox": BOXES[11]}, {"sample_id": "101", "bbox": BOXES[12]}],
        "testA": [{"sample_id": "102", "bbox": BOXES[12]}],
    }
    record = run("refcoco", write_refcoco(tmp_path), said)
    assert metrics(record, "val") == pytest.approx({"accuracy": 1 / 3, "mean IoU": 1 / 3})
    assert metrics(record, "testA") == {"accuracy": 1.0, "mean IoU": 1.0}
    assert record["missing"] == ["testB"] and record["complete"] is False
    assert record["notes"] == [
        "val: 3 expressions, of the benchmark's 10834",
        "testA: 1 expressions, of the benchmark's 5657",
    ]
    assert record["results"]["val"]["counts"]["images"] == 2 and record["results"]["val"]["interval"]["accuracy"]
    assert record["results"]["val"]["protocol"]["comparison"] == "at_least"


def test_replies_in_the_pixels_of_the_model(tmp_path: Path, run: Run) -> None:
    """Image 1 is 100 x 80 and the model saw it at 200 x 160."""
    rows = [
        {
            "sample_id": "102",
            "image_id": 1,
            "input_size_wh": [200, 160],
            "text": '```json\n[{"bbox_2d": [100, 20, 140, 60], "label": "right man"}]\n```',
        }
    ]
    more = ("--split", "testA", "--dialect", "qwen25", "--protocol", "vision_r1")
    record = run("refcoco", write_refcoco(tmp_path), rows, *more)
    assert metrics(record, "testA") == {"accuracy": 1.0, "mean IoU": 1.0, "accuracy strict": 1.0}
    stated = record["results"]["testA"]["protocol"]
    assert (stated["name"], stated["comparison"], stated["dialect"]) == ("vision_r1", "above", "qwen25")


def test_grefcoco(tmp_path: Path, run: Run) -> None:
    rows = [{"sample_id": "200", "bbox": BOXES[11], "score": 0.9}, {"sample_id": "200", "bbox": BOXES[12]}]
    rows += [{"sample_id": "202", "bbox": [0, 0, 50, 30]}]  # IoU 3/4; and nothing for 201, which has no target
    record = run("grefcoco", write_grefcoco(tmp_path), rows, "--split", "val")
    assert metrics(record, "val") == {"Pr@(F1=1)": 1.0, "N-acc": 1.0, "T-acc": 1.0} and record["missing"] == []
    record = run("grefcoco", tmp_path, rows, "--split", "val", "--protocol", "match_iou=0.8")
    assert metrics(record, "val") == pytest.approx({"Pr@(F1=1)": 2 / 3, "N-acc": 1.0, "T-acc": 1.0})


def test_lisa_grounding_is_scored_against_its_file(tmp_path: Path, run: Run) -> None:
    rows = [{"sample_id": "0", "bbox": [10, 10, 21, 21]}, {"sample_id": "1", "bbox": [50, 40, 41, 10]}]
    record = run("lisa", write_lisa(tmp_path), rows)
    assert metrics(record, "test") == pytest.approx({"accuracy": 0.5, "mean IoU": (1 + 10 / 31) / 2})


# Detection


def result(image: int, category: int, box: list[float], score: float = 1.0) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def test_d3_full_pres_abs_and_by_length(tmp_path: Path, run: Run) -> None:
    rows = [result(0, 1, [10, 10, 20, 20]), result(1, 3, [0, 0, 40, 40]), result(2, 4, [70, 70, 9, 9])]
    record = run("d3", write_d3(tmp_path), rows)
    aps = {name: found["metrics"]["AP"] for name, found in record["results"].items()}
    assert aps == pytest.approx(
        {"FULL": 1 / 2, "PRES": 2 / 3, "ABS": 0, "1-3 words": 1, "4-6 words": 0, "10 or more words": 0}
    )
    assert record["notes"] == ["d3: 4 descriptions, of the benchmark's 422"]
    counts = {name: found["counts"]["predicted_boxes"] for name, found in record["results"].items()}
    assert counts["FULL"] == 3 and counts["PRES"] == 3 and counts["ABS"] == 0 and counts["1-3 words"] == 2


def test_stray_boxes_count_where_their_sentence_was_asked_for(tmp_path: Path, run: Run) -> None:
    def said(image: int, sentence: str, *labels: str) -> dict[str, Any]:
        boxes = [{"bbox_2d": [0, 0, 500, 500], "label": label} for label in labels]
        return {"image_id": image, "categories": [sentence], "text": json.dumps(boxes), "input_size_wh": [100, 80]}

    rows = [said(0, "a dog", "a cat"), said(0, "dog not led by ropes", "dog not led by ropes", "a cat", "a cat")]
    record = run("d3", write_d3(tmp_path), rows, "--dialect", "qwen3")
    counts = {name: record["results"][name]["counts"]["predicted_boxes"] for name in ("FULL", "PRES", "ABS")}
    assert counts == {"FULL": 4, "PRES": 1, "ABS": 3}


def test_ovdeval_nms_ap_of_every_label_on_every_object(tmp_path: Path, run: Run) -> None:
    """Both labels on each car, the wrong one scored higher: AP 1/2, as half of the ranking is right; NMS-AP 0."""
    both = [result(i, c, [10, 10, 40, 40], 0.9 if c == i else 0.5) for i in (0, 1) for c in (0, 1)]
    right = [row for row in both if row["score"] == 0.5]
    record = run("ovdeval", write_ovdeval(tmp_path), {"color": both, "negation": right})
    assert metrics(record, "color")["AP"] == 0 and metrics(record, "negation")["AP"] == pytest.approx(1)
    assert record["mean"]["AP"] == pytest.approx(1 / 2) and "celebrity" in record["missing"]
    assert record["results"]["color"]["protocol"]["suppression"] == "truth"
    plain = run("ovdeval", tmp_path, {"color": both, "negation": right}, "--protocol", "suppression=none")
    assert metrics(plain, "color")["AP"] == pytest.approx(1 / 2)


def test_v3det_all_base_and_novel_over_the_tree(tmp_path: Path, run: Run) -> None:
    """A robin (novel) on a bird (base) is ignored; a sword is no Sword."""
    rows = [
        result(1, 2, [10, 10, 20, 20]),
        result(1, 3, [10, 10, 20, 20]),
        result(2, 3, [0, 0, 30, 30], 0.5),
        result(1, 5, [50, 50, 20, 20]),
    ]
    record = run("v3det", write_v3det(tmp_path), rows)
    aps = {name: found["metrics"]["AP"] for name, found in record["results"].items()}
    assert aps == pytest.approx({"all": 2 / 3, "base": 1 / 2, "novel": 1})  # without the tree novel were 1/2
    assert record["results"]["all"]["protocol"]["max_dets"] == [1, 10, 300]
    assert record["notes"] == ["val: 2 images, of the benchmark's 29821"]


def test_coco_says_when_it_is_not_all_of_val2017(tmp_path: Path, run: Run) -> None:
    content = {
        "images": [image_row(1, "1.jpg")],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}],
    }
    write_json(tmp_path / "annotations/instances_val2017.json", content)
    record = run("coco", tmp_path, [result(1, 1, [1, 1, 9, 9])])
    assert metrics(record, "val2017")["AP"] == pytest.approx(1)
    assert record["notes"] == ["val2017: 1 images, of the benchmark's 5000"] and record["complete"] is False


# Tables, files, protocols, errors


def test_the_table_names_metrics_missing_splits_and_the_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ovdeval(tmp_path / "data", ["color"])
    rows = [result(0, 1, [10, 10, 40, 40])]
    said = write_lines(tmp_path / "color.jsonl", rows)
    command = ["eval", "--benchmark", "ovdeval", "--data", str(tmp_path / "data"), "--predictions", str(said)]
    assert cli.main([*command, "--resamples", "5", "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "NMS-AP" in text and "NOT all of ovdeval: missing are celebrity, landmark" in text
    assert text.count("protocol coco_results") == 1 and "NMS-AP; IoU >=" in text
    stored = json.loads((tmp_path / "out/ovdeval/color.json").read_text())
    assert stored["benchmark"] == "ovdeval" and stored["unit"] == "color"
    assert stored["metrics"]["AP"] == pytest.approx(0.5)
    assert json.loads((tmp_path / "out/ovdeval.json").read_text())["benchmark"] == "ovdeval"
    write_refcoco(tmp_path / "ref")
    boxes = write_json(tmp_path / "val.json", [])
    command = ["eval", "--benchmark", "refcoco", "--data", str(tmp_path / "ref"), "--predictions", str(boxes)]
    assert cli.main([*command, "--split", "val", "--resamples", "5"]) == 0
    text = capsys.readouterr().out
    assert "images  samples  accuracy" in text and "right at IoU >= 0.5; of several boxes the first counts" in text


ERRORS: list[tuple[list[str], str]] = [
    (["--benchmark", "refcoc"], "unknown benchmark 'refcoc'; did you mean 'refcoco'?; known: coco, d3"),
    (["--benchmark", "refcoco"], "no refcoco val or testA or testB; expected refcoco/refs(unc).p"),
    (["--benchmark", "lisa"], "expected lisa_test.json or lisa_test.jsonl of LISA-Grounding"),
    (["--benchmark", "d3"], "expected d3_json/d3_full_annotations.json or d3_full_annotations.json of D3"),
    (["--benchmark", "d3", "--split", "test"], "--split test: d3 has one evaluated split"),
    (["--benchmark", "ovdeval"], "expected annotations/celebrity.json of OVDEval"),
    (["--benchmark", "v3det"], "expected annotations/v3det_2023_v1_val.json"),
    (["--benchmark", "v3det", "--protocol", "num_negatives=-1"], "expected a number of categories, 0 or more"),
    (["--benchmark", "grefcoco", "--protocol", "min_score=nan"], "expected a finite number"),
    (["--benchmark", "refcoco", "--protocol", "mmdett"], "unknown protocol 'mmdett'; did you mean 'mmdet'"),
    (["--benchmark", "ovdeval", "--scores", "rank,constant"], "--scores and --coco-results are not for a --benchmark"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_users_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    said = write_json(tmp_path / "said.json", [])
    (tmp_path / "empty").mkdir()
    assert cli.main(["eval", "--data", str(tmp_path / "empty"), "--predictions", str(said), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_several_units_need_a_file_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_refcoco(tmp_path)
    said = write_json(tmp_path / "said/val.json", [])
    command = ["eval", "--benchmark", "refcoco", "--data", str(tmp_path), "--predictions"]
    assert cli.main([*command, str(said)]) == 2
    assert "no predictions for val; expected val.json, val.jsonl" in capsys.readouterr().err
    assert cli.main([*command, str(said.parent)]) == 2
    assert "no predictions for testA" in capsys.readouterr().err


def test_fields_of_a_benchmark_hold_under_every_protocol() -> None:
    for name in PROTOCOLS:
        assert BENCHMARKS.known("ovdeval").read_protocol([name]).suppression == "truth"
        assert BENCHMARKS.known("v3det").read_protocol([name]).max_dets == (1, 10, 300)
    with pytest.raises(RecipeError, match="unknown benchmark 'voc'"):
        BENCHMARKS.known("voc")


def test_the_help_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["eval", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(f" {name}" in text for name in BENCHMARKS)


@pytest.mark.parametrize(
    ("benchmark", "write", "replies"),
    [
        ("refcoco", write_refcoco, [3, 1]),
        ("d3", write_d3, [6]),
        ("ovdeval", write_ovdeval, [2, 2]),
        ("v3det", write_v3det, [2]),
    ],
)
def test_a_model_is_asked(
    qwen25_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    benchmark: str,
    write: Callable[[Path], Path],
    replies: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(tmp_path / "data")
    command = ["eval", "--benchmark", benchmark, "--data", str(tmp_path / "data"), "--model", str(qwen25_folder)]
    command += ["--max-new-tokens", "2", "--resamples", "2", "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--shard", "1/2"]) == 0
    assert f"of {sum(replies)} replies are in" in capsys.readouterr().out
    assert cli.main([*command, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    rows = sorted((tmp_path / "out" / benchmark).glob("*.predictions.jsonl"))
    assert sorted(len(path.read_text().splitlines()) - 1 for path in rows) == sorted(replies)  # the first says of what
    stated = next(iter(record["results"].values()))["protocol"]
    assert stated["dialect"] == "qwen25" and stated["max_new_tokens"] == 2
    said = [json.loads(line)["categories"] for path in rows for line in path.read_text().splitlines()[1:]]
    if benchmark == "d3":
        assert said[:2] == [["a dog"], ["dog not led by ropes"]]  # its group's sentences, one a prompt
    if benchmark == "ovdeval":
        assert said == [["a blue car", "a red car"]] * 4  # the order does not tell which is there
    if benchmark == "v3det":
        assert said == [["animal", "bird", "robin", "Sword", "sword"]] * 2  # 20 negatives, of which there are but these
    monkeypatch.setattr("visionr1.evaluation.runner.generate", pytest.fail)  # scored otherwise: nothing is asked again
    before = (tmp_path / f"out/{benchmark}.json").read_bytes()
    assert cli.main([*command, "--protocol", "match_iou=0.6"]) == 0
    assert (tmp_path / f"out/{benchmark}-match_iou=0.6.json").is_file()
    assert (tmp_path / f"out/{benchmark}.json").read_bytes() == before


def test_results_of_two_models_are_compared_in_pairs(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    write_refcoco(tmp_path / "ref")
    write_d3(tmp_path / "d3")
    few = [{"sample_id": "100", "bbox": BOXES[11]}]
    more = [*few, {"sample_id": "103", "bbox": BOXES[21]}]
    for name, rows in (("few", few), ("more", more)):
        write_json(tmp_path / name / "val.json", rows)
        out = ("--split", "val", "--out", str(tmp_path / name / "out"))
        command = ["eval", "--benchmark", "refcoco", "--data", str(tmp_path / "ref"), *out]
        assert cli.main([*command, "--predictions", str(tmp_path / name / "val.json"), "--resamples", "5"]) == 0
        assert cli.main([*command[:-3], "testA", *out[2:], "--predictions", str(tmp_path / name / "val.json")]) == 2
        assert 'refcoco.json holds a result of another evaluation: split: expected "testA"' in capsys.readouterr().err
        boxes = write_json(tmp_path / name / "d3.json", [result(0, 1, [10, 10, 20, 20])][: name == "more"])
        command = ["eval", "--benchmark", "d3", "--data", str(tmp_path / "d3"), "--out", str(tmp_path / name / "out")]
        assert cli.main([*command, "--predictions", str(boxes), "--resamples", "5"]) == 0
    capsys.readouterr()
    stored = [str(tmp_path / name / "out/refcoco/val.json") for name in ("few", "more")]
    assert cli.main(["compare", *stored, "--resamples", "50"]) == 0
    text = capsys.readouterr().out
    assert "paired over the images: accuracy +33.3 [" in text and "not comparable" not in text
    stored = [str(tmp_path / name / "out/d3/PRES.json") for name in ("few", "more")]
    assert cli.main(["compare", *stored, str(tmp_path / "more/out/d3/FULL.json"), "--json", "--resamples", "50"]) == 0
    record = json.loads(capsys.readouterr().out)
    found, other = record["differences"].values()
    assert found["AP"]["difference"] == pytest.approx(1 / 3) and other == "no difference: other data"
    write_json(tmp_path / "more/val.json", few)
    stored = [str(tmp_path / name / "out/refcoco/val.json") for name in ("few", "more")]
    assert cli.main(["compare", *stored]) == 2
    assert "now give accuracy 33.33, but 66.67 is stored" in capsys.readouterr().err
