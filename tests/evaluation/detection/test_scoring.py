"""Figures of replies: what counts, what does not, and what stands beside AP."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.evaluating import evaluate_file as _evaluate_file
from visionr1 import evaluation
from visionr1.data import BoxTable, read_table, table_of
from visionr1.dialects import get_dialect
from visionr1.errors import DataError
from visionr1.evaluation import (
    DEFAULT,
    Prediction,
    Protocol,
    Replies,
    Result,
    evaluate_replies,
    format_results,
)
from visionr1.samples import Boxes, Query, Sample

evaluate_file = partial(_evaluate_file, num_resamples=5)
QWEN = get_dialect("qwen25")
SIZE = (100, 100)


def sample(name: str, boxes: list[list[float]], labels: list[str]) -> Sample:
    image: Any = Path("none.jpg")
    return Sample(name, image, Query("detection", ("cat", "dog")), Boxes.of(boxes, labels), SIZE, image_id=name)


SAMPLES = [
    sample("a", [[0, 0, 40, 40], [50, 50, 90, 90]], ["cat", "dog"]),
    sample("b", [[10, 10, 60, 60]], ["cat"]),
    sample("c", [], []),
]


def said(*texts: str, truncated: bool = False) -> list[Prediction]:
    return [
        Prediction(image_id=s.id, sample_id=s.id, text=text, input_size_wh=SIZE, truncated=truncated)
        for s, text in zip(SAMPLES, texts, strict=True)
    ]


def gold(index: int) -> str:
    return QWEN.render(SAMPLES[index].truth, size_wh=SIZE, input_size_wh=SIZE)


def box(label: str, *xyxy: int) -> str:
    return json.dumps({"bbox_2d": xyxy, "label": label})


def evaluate(*texts: str, protocol: Protocol = DEFAULT, truncated: bool = False) -> Result:
    predictions = said(*texts, truncated=truncated)
    return evaluation.evaluate(SAMPLES, Replies(predictions, QWEN), protocol=protocol, num_resamples=10).result


def test_the_truth_as_replies_is_perfect() -> None:
    result = evaluate(gold(0), gold(1), gold(2))
    assert result.metrics == pytest.approx(dict.fromkeys(result.metrics, 1.0))
    assert result.counts["well_formed"] == 3 and result.counts["unparsable"] == 0
    assert result.faults == {} and result.protocol.dialect == "qwen25"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("[]", {"precision": 1, "recall": 2 / 3}),  # nothing said of image b
        ("the cat is left", {"precision": 1, "recall": 2 / 3}),  # no box, so none is false
        (f"[{box('dog', 10, 10, 60, 60)}]", {"precision": 2 / 3, "recall": 2 / 3}),  # right box, wrong label
        (f"[{box('cow', 10, 10, 60, 60)}]", {"precision": 2 / 3, "recall": 2 / 3}),  # unknown label: a false box
        (f"[{box('CAT ', 10, 10, 60, 60)}]", {"precision": 1, "recall": 1}),  # strip and casefold
        (f"[{box('cat', 60, 60, 10, 10)}]", {"precision": 1, "recall": 1}),  # corners in another order
        (f"[{box('cat', 60, 10, 60, 60)}]", {"precision": 2 / 3, "recall": 2 / 3}),  # empty: a malformed prediction
        (f"[{box('cat', 10, 10, 60, 60)}, {box('cat', 11, 11, 60, 60)}]", {"precision": 3 / 4, "recall": 1}),  # twice
        (f"[{box('cat', 10, 10, 60, 60)}, {{", {"precision": 1, "recall": 1}),  # cut off: the complete box counts
        (f"[{box('cat', 10, 10, 60, 35)}]", {"precision": 1, "recall": 1}),  # IoU exactly 0.5
        (f"[{box('cat', 10, 10, 60, 34)}]", {"precision": 2 / 3, "recall": 2 / 3}),  # just below
    ],
)
def test_precision_and_recall(reply: str, expected: dict[str, float]) -> None:
    result = evaluate(gold(0), reply, gold(2))
    assert {name: result.metrics[name] for name in expected} == pytest.approx(expected)


def test_faults_are_counted_by_reply_and_labels_by_box() -> None:
    cows = f"[{box('cow', 0, 0, 9, 9)}, {box('cow', 9, 9, 19, 19)}, {box('cat', 9, 9, 9, 3)}]"
    result = evaluate(cows, "no idea", f"[{box('cat', 1, 1, 9, 9)}, {{", truncated=False)
    assert result.faults == {"inverted": 1, "unreadable": 1, "truncated": 1, "unknown_label": 1}
    wanted = {
        "unknown_labels": 2,
        "malformed_boxes": 1,
        "unparsable": 1,
        "truncated": 1,
        "replies": 3,
        "well_formed": 0,
    }
    assert {name: result.counts[name] for name in wanted} == wanted
    assert result.counts["predicted_boxes"] == 4 and result.counts["true_boxes"] == 3


def test_truncated_by_the_token_limit_counts_without_a_fault() -> None:
    assert evaluate(gold(0), gold(1), gold(2), truncated=True).counts["truncated"] == 3


def test_strict_counts_a_faulty_reply_as_empty() -> None:
    salvaged = evaluate(gold(0), gold(1)[:-5], gold(2))
    assert salvaged.metrics["AP"] == pytest.approx(1) and salvaged.metrics["AP strict"] == pytest.approx(0.75, abs=0.01)
    strict = evaluate(gold(0), gold(1)[:-5], gold(2), protocol=Protocol(name="test", parse="strict"))
    assert strict.metrics["AP"] == strict.metrics["AP strict"] == salvaged.metrics["AP strict"]
    assert strict.metrics["recall"] == pytest.approx(2 / 3) and strict.metrics["precision"] == 1


def test_rank_scores_put_the_first_boxes_first() -> None:
    two = f"[{box('cat', 70, 70, 90, 90)}, {box('cat', 10, 10, 60, 60)}]"  # the false one first
    constant = evaluate(gold(0), two, gold(2)).metrics["AP"]
    ranked = evaluate(gold(0), two, gold(2), protocol=Protocol(name="test", scores="rank")).metrics["AP"]
    assert ranked < 1 and constant < 1
    swapped = f"[{box('cat', 10, 10, 60, 60)}, {box('cat', 70, 70, 90, 90)}]"
    assert evaluate(gold(0), swapped, gold(2), protocol=Protocol(name="test", scores="rank")).metrics["AP"] > 0.999


def test_order_of_emission_decides_within_an_image() -> None:
    true, false = box("cat", 10, 10, 60, 60), box("cat", 70, 70, 90, 90)
    first = evaluate(gold(0), f"[{true}, {false}]", gold(2))
    last = evaluate(gold(0), f"[{false}, {true}]", gold(2))
    assert first.metrics["AP"] > 0.999 > last.metrics["AP"]


def test_crowd_regions_excuse_boxes_inside_them() -> None:
    table = crowded()
    lone = f"[{box('cat', 5, 5, 15, 15)}, {box('dog', 20, 20, 30, 30)}]"
    result = evaluate_replies(
        table, [Prediction(image_id=1, text=lone, input_size_wh=SIZE)], dialect=QWEN, num_resamples=5
    )
    assert result.counts["crowd_regions"] == 1 and result.counts["true_boxes"] == 1
    assert result.counts["predicted_boxes"] == 1  # the cat in the crowd of cats counts as nothing, the dog as false
    assert result.metrics["precision"] == 0


def crowded() -> BoxTable:
    table = table_of([sample("1", [[0, 0, 50, 50], [60, 60, 70, 70]], ["cat", "cat"])])
    return BoxTable(
        path=table.path,
        image_ids=(1,),
        file_names=("",),
        sizes_wh=table.sizes_wh,
        category_ids=table.category_ids,
        categories=table.categories,
        image=table.image,
        category=table.category,
        xywh=table.xywh,
        area=table.area,
        iscrowd=np.array([True, False]),
    )


def test_a_result_survives_json() -> None:
    result = evaluate(gold(0), "no idea", gold(2))
    record = json.loads(json.dumps(result.to_json(), allow_nan=False))
    again = Result.from_json(record)
    assert again == result and again.to_json() == result.to_json()
    assert len(record["coco"]) == 12 and record["metrics"]["AP"] == record["coco"][0]


def test_the_table_states_the_protocol_and_marks_another() -> None:
    one = evaluate(gold(0), gold(1), gold(2))
    other = evaluate(gold(0), gold(1), gold(2), protocol=Protocol(name="mine", scores="rank"))
    text = format_results({"base": one, "ranked": other})
    assert "protocol default: qwen25" in text and "ranked *" in text and "* ranked: protocol mine" in text
    assert "100.0 [" in text and "base *" not in text


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (lambda p: p[:2], "sample 'c': expected one prediction, found 0"),  # an image without a reply
        (lambda p: [*p, p[0]], "sample 'a': expected one prediction, found 2"),  # two replies
        (lambda p: [*p, Prediction(image_id="x", sample_id="x", text="")], "are of no sample of the set, such as 'x'"),
    ],
)
def test_predictions_must_fit_the_samples(predictions: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluation.evaluate(SAMPLES, Replies(predictions(said("", "", "")), QWEN))


# Files of predictions

TRUTH = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 100}, {"id": 2, "file_name": "b.jpg"}],
    "categories": [{"id": 3, "name": "cat"}],
    "annotations": [{"id": 0, "image_id": 1, "category_id": 3, "bbox": [10, 10, 20, 20]}],
}
RIGHT = {"image_id": 1, "category_id": 3, "bbox": [10, 10, 20, 20], "score": 0.5}


def write(folder: Path, name: str, content: Any) -> Path:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / name


def test_results_file_is_scored_without_images(tmp_path: Path) -> None:
    data = write(tmp_path, "truth.json", TRUTH)
    result = evaluate_file(write(tmp_path, "results.json", [RIGHT, {**RIGHT, "category_id": 99}]), data)
    assert result.metrics["AP"] == pytest.approx(1) and result.protocol.scores == "file"
    assert result.counts["unknown_categories"] == 1
    assert "unknown categories" in format_results({"x": result})
    with pytest.raises(DataError, match=r"results.json: category_id: .* such as 3 for 'cat', .* none in 1, but 'cat'"):
        evaluate_file(write(tmp_path, "results.json", [{**RIGHT, "category_id": "cat"}]), data)


def test_boxes_beyond_the_image_are_counted(tmp_path: Path) -> None:
    """As boxes that are xyxy, or in pixels of another size, are."""
    data = write(tmp_path, "truth.json", {**TRUTH, "images": [{"id": 1, "width": 30, "height": 30}, {"id": 2}]})
    rows = [
        RIGHT,
        {**RIGHT, "bbox": [10, 10, 20, 21.5]},
        {**RIGHT, "image_id": 2, "bbox": [0, 0, 999, 9]},
    ]  # 2: no size
    assert evaluate_file(write(tmp_path, "results.json", rows), data).counts["boxes_beyond_image"] == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**RIGHT, "image_id": 7}, "row 1: image_id: expected the id of an image of .*truth.json, found 7"),
        ({**RIGHT, "image_id": None}, "row 1: image_id: .*found None"),
        ({**RIGHT, "bbox": [1, 2, 3]}, r"row 1: bbox: expected four finite numbers .* found \[1, 2, 3\]"),
        ({**RIGHT, "bbox": [1, 2, 3, float("nan")]}, "row 1: bbox: .*nan"),
        ({**RIGHT, "bbox": ["1", 2, 3, 4]}, "row 1: bbox"),  # a string is no number
        ({"image_id": 1, "response": ""}, "row 1: expected a bbox .* or a text .*, found only 'image_id', 'response'"),
        ({**RIGHT, "score": float("nan")}, "row 1: score: expected a finite number, found nan"),
        ({**RIGHT, "score": float("inf")}, "row 1: score"),
        ({k: v for k, v in RIGHT.items() if k != "score"}, "row 1: score: .*found None"),
        ({**RIGHT, "score": True}, "row 1: score"),  # true is no number
        ([1], "row 1: expected an object"),
    ],
)
def test_a_bad_results_row_is_named(tmp_path: Path, row: Any, message: str) -> None:
    data = write(tmp_path, "truth.json", TRUTH)
    with pytest.raises(DataError, match=message):
        evaluate_file(write(tmp_path, "results.json", [RIGHT, row]), data)


@pytest.mark.parametrize("content", ["", "{", "[1", '{"a": 1}', "\x00"])
def test_a_broken_predictions_file_is_named(tmp_path: Path, content: str) -> None:
    data = write(tmp_path, "truth.json", TRUTH)
    with pytest.raises(DataError, match=r"results\.json"):
        evaluate_file(write(tmp_path, "results.json", content), data)


def test_no_predictions_is_a_result_of_0(tmp_path: Path) -> None:
    data = write(tmp_path, "truth.json", TRUTH)
    assert evaluate_file(write(tmp_path, "results.json", "[]"), data).metrics["AP"] == 0


def test_raw_replies_are_scored_and_images_without_one_counted(tmp_path: Path) -> None:
    data = write(tmp_path, "truth.json", TRUTH)
    reply = {"image_id": "1", "text": f"[{box('cat', 5, 5, 15, 15)}]", "input_size_wh": [50.0, 50]}
    file = write(tmp_path, "replies.jsonl", "\ufeff" + json.dumps(reply) + "\r\n\n")
    result = evaluate_file(file, data, dialect="qwen25")
    assert result.metrics["AP"] == pytest.approx(1) and result.counts["images_without_reply"] == 1
    with pytest.raises(DataError, match="--dialect"):
        evaluate_file(file, data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, "image_id 9, which"),  # unknown
        ({"image_id": 2}, "image 2: width, height: needed"),  # the data set does not give its size
        ({"input_size_wh": None}, "has no input_size_wh"),  # pixels of what?
        ({"input_size_wh": [0, 5]}, "row 0: input_size_wh"),
        ({"text": 5}, "row 0: text"),
        ({"categories": "cat"}, "row 0: categories"),
    ],
)
def test_a_bad_reply_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    data = write(tmp_path, "truth.json", TRUTH)
    row = {"image_id": 1, "text": "[]", "input_size_wh": [50, 50], **change}
    with pytest.raises(DataError, match=message):
        evaluate_file(write(tmp_path, "replies.json", [row]), data, dialect="qwen25")


def test_labels_need_categories_of_different_names(tmp_path: Path) -> None:
    twice = {**TRUTH, "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "cat "}]}
    data = write(tmp_path, "truth.json", twice)
    by_id = evaluate_file(write(tmp_path, "results.json", [RIGHT]), data)  # ids say which is meant
    assert by_id.metrics["AP"] == pytest.approx(1)
    with pytest.raises(DataError, match="2 categories are called 'cat'"):
        evaluate_replies(read_table(data), [], dialect=QWEN)


def test_names_that_differ_in_case_alone_are_told_apart_by_it(tmp_path: Path) -> None:
    two = {**TRUTH, "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "Cat"}]}
    indexes = read_table(write(tmp_path, "truth.json", two)).label_indexes([("cat", "Cat"), ("Cat",)])
    assert indexes["cat", "Cat"] == {"cat": 0, "Cat": 1}
    assert indexes["Cat",] == {"cat": 1, "Cat": 1}  # no other was asked for
