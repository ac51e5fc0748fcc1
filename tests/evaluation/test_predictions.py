"""Files of predictions: shards of one evaluation are one; what is there twice, or is not of it, is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.benchmark_trees import BOXES, write_json, write_refcoco
from support.detection_problems import random_problem
from support.evaluating import evaluate_file
from visionr1 import cli
from visionr1.errors import DataError
from visionr1.evaluation import compare

REPLY = {"text": '[{"bbox_2d": [0, 0, 9, 9], "label": "c1"}]', "input_size_wh": [640, 480]}


def write(folder: Path, *files: Any) -> list[Path]:
    return [write_json(folder / f"part-{number}.json", rows) for number, rows in enumerate(files)]


@pytest.mark.parametrize("by", ["image_id", "category_id"])
def test_results_in_several_files_are_those_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str], by: str) -> None:
    truth, results = random_problem(5, images=12)
    data = write_json(tmp_path / "truth.json", truth)
    results.sort(key=lambda row: row["image_id"])  # equal scores in one image stay in the order of the files
    parts = [[row for row in results if row[by] % 3 == rest] for rest in range(3)]
    whole = evaluate_file(write_json(tmp_path / "all.json", [*parts[0], *parts[1], *parts[2]]), data, num_resamples=0)
    files = write(tmp_path, *parts, [])  # a shard without a box
    command = ["eval", "--data", str(data), "--resamples", "2", "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--json", "--predictions", *map(str, files)]) == 0
    assert json.loads(capsys.readouterr().out)["coco"] == list(whole.extras["coco"])
    assert cli.main([*command, "--json", "--predictions", str(tmp_path / "all.json")]) == 0
    stored = [tmp_path / f"out/evaluation/{name}.json" for name in ("part-0", "all")]
    difference = compare(stored, num_resamples=2).differences["all"]  # from all files again
    assert not isinstance(difference, str) and difference["AP"].difference == 0


def test_boxes_that_two_files_have_are_named(tmp_path: Path) -> None:
    truth, results = random_problem(5, crowd=0)
    data = write_json(tmp_path / "truth.json", truth)
    one, other = write(tmp_path, results, results[-1:])
    image = results[-1]["image_id"]
    with pytest.raises(DataError, match=rf"part-0.json and .*part-1.json both have boxes of 'c\d' in image {image};"):
        evaluate_file([one, other], data)
    assert evaluate_file(write(tmp_path, results + results[-1:]), data).counts["predicted_boxes"] == len(results) + 1


def test_replies_in_parts_and_what_was_answered_twice(tmp_path: Path) -> None:
    truth, _ = random_problem(6, images=4)
    data = write_json(tmp_path / "truth.json", truth)
    said = [{"image_id": row["id"], **REPLY} for row in truth["images"]]
    header = {"replies_of": {"model": "m", "weights": 7}}  # as --shard leaves its parts
    whole = evaluate_file(write(tmp_path, said), data, dialect="qwen25", num_resamples=0)
    parts = write(tmp_path, [header, *said[:2]], [header, *said[2:]])
    assert evaluate_file(parts, data, dialect="qwen25", num_resamples=0) == whole
    twice = write(tmp_path, said, said[1:])
    with pytest.raises(
        DataError, match=rf"part-1.json: row 0: image {said[1]['image_id']} was answered in .*0.json: row 1"
    ):
        evaluate_file(twice, data, dialect="qwen25")
    prompts = [{**row, "categories": [name]} for row in said for name in ("c1", "c2")]  # one for each category
    assert evaluate_file(write(tmp_path, prompts), data, dialect="qwen25").counts["replies"] == 8


def test_files_that_are_not_of_one_evaluation(tmp_path: Path) -> None:
    truth, results = random_problem(6, images=4)
    data = write_json(tmp_path / "truth.json", truth)
    said = [{"image_id": row["id"], **REPLY} for row in truth["images"]]
    other = [{"replies_of": {"model": "other"}}, *said[:1]]
    for files in ([results, said], [other, [{"replies_of": {"model": "m"}}, *said[1:]]]):
        with pytest.raises(DataError, match=r"part-0.json and .*part-1.json are not of one evaluation"):
            evaluate_file(write(tmp_path, *files), data, dialect="qwen25")


def test_a_first_row_says_how_replies_are_read_and_were_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, _ = random_problem(6, images=4)
    data = write_json(tmp_path / "truth.json", truth)
    said = [{"image_id": row["id"], **REPLY} for row in truth["images"]]
    words = {"prompt": "joint", "categories": "all", "template": "", "max_new_tokens": 7, "dtype": "float32"}
    header = {"replies_of": {"model": "m", "dialect": "qwen25", "decoding": "greedy", **words}}
    (stated,) = write(tmp_path, [header, *said])
    found = evaluate_file(stated, data, num_resamples=0)
    line = found.protocol.line()
    assert found == evaluate_file(stated, data, dialect="qwen25", num_resamples=0)
    assert "default: qwen25, greedy, float32, 7 tokens; all categories in one prompt; salvage parse; " in line
    assert evaluate_file(stated, data, protocol=found.protocol, num_resamples=0) == found  # as `compare` does
    line = evaluate_file(stated, data, protocol=["qwen25vl"], num_resamples=0).protocol.line()
    assert "qwen25vl (asked otherwise): qwen25, greedy, float32, 7 tokens; all categories in one prompt; " in line
    (raw,) = write(tmp_path, said)
    with pytest.raises(DataError, match="say how they write boxes with --dialect"):
        evaluate_file(raw, data)
    raws = evaluate_file(raw, data, dialect="qwen25", protocol=["qwen25vl"], num_resamples=0).protocol
    assert "qwen25, taken as all categories in a prompt each: wording and decoding are not stated; " in raws.line()
    assert (raws.template, raws.decoding, raws.max_new_tokens, raws.name) == ("", "", 0, "qwen25vl")


def test_what_the_table_says_of_odd_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = random_problem(6, images=4)
    command = ["eval", "--data", str(write_json(tmp_path / "truth.json", truth)), "--resamples", "0", "--predictions"]
    said = [{"image_id": truth["images"][0]["id"], "sample_id": name, **REPLY} for name in ("one", "two")]
    assert cli.main([*command, *map(str, write(tmp_path, said)), "--dialect", "qwen25"]) == 0
    assert "prompts answered again" in capsys.readouterr().out
    assert cli.main([*command, *map(str, write(tmp_path, [*results, {**results[0], "category_id": 99}]))]) == 0
    assert "unknown categories" in capsys.readouterr().out
    (tmp_path / "empty.jsonl").write_text("")
    assert cli.main([*command, str(tmp_path / "empty.jsonl"), "--dialect", "qwen25"]) == 2
    assert "empty.jsonl: expected replies or boxes, found no row" in capsys.readouterr().err


def test_boxes_of_expressions_in_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_refcoco(tmp_path)
    boxes = [{"sample_id": "100", "bbox": BOXES[11]}, {"sample_id": "101", "bbox": BOXES[12]}]
    command = ["eval", "--benchmark", "refcoco", "--data", str(data), "--split", "val", "--json", "--predictions"]
    assert cli.main([*command, *map(str, write(tmp_path, boxes[:1], boxes[1:]))]) == 0
    parts = capsys.readouterr().out
    assert cli.main([*command, *map(str, write(tmp_path, boxes))]) == 0
    assert capsys.readouterr().out == parts
    assert cli.main([*command, *map(str, write(tmp_path, boxes, boxes[1:]))]) == 2
    assert "part-0.json has boxes of sample '101' too" in capsys.readouterr().err
