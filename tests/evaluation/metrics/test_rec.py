"""Accuracy of referring: worked cases, the two comparisons, intervals over images, replies and files of boxes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from visionr1.dialects import get_dialect
from visionr1.errors import DataError, RecipeError
from visionr1.evaluation import (
    Prediction,
    PredictionFiles,
    Protocol,
    Replies,
    Result,
    Unit,
    evaluate,
    paired_difference,
    read_protocol,
)
from visionr1.evaluation.metrics.ratios import RatioResampler
from visionr1.evaluation.metrics.rec import REC, rec_ratios
from visionr1.evaluation.protocols import EXPRESSION_DEFAULT, EXPRESSION_PROTOCOLS
from visionr1.samples import Boxes, Query, Sample

TRUE = [0, 0, 20, 10]


def sample(identity: str, *boxes: Any, image_id: int = 1) -> Sample:
    image = Image.new("RGB", (1, 1))
    return Sample(
        identity, image, Query("referring", ("it",)), Boxes.of(boxes, ["it"] * len(boxes)), (100, 100), image_id
    )


def box_row(identity: str, xyxy: list[float], **more: Any) -> dict[str, Any]:
    x1, y1, x2, y2 = xyxy
    return {"sample_id": identity, "bbox": [x1, y1, x2 - x1, y2 - y1], **more}


def scored(tmp_path: Path, samples: list[Sample], rows: list[Any], *protocol: str, **how: Any) -> Result:
    (tmp_path / "said.json").write_text(json.dumps(rows))
    stated = read_protocol(protocol, EXPRESSION_DEFAULT, EXPRESSION_PROTOCOLS)
    files = PredictionFiles([tmp_path / "said.json"])
    return evaluate(samples, files, metric=REC, protocol=stated, **{"num_resamples": 0, **how}).result


def score(samples: list[Sample], said: list[Prediction], protocol: Protocol, dialect: str = "qwen3") -> Result:
    unit = Unit(name="unit", samples=samples)
    return REC.score(unit, Replies(said, get_dialect(dialect)), protocol, 0)["unit"]


def test_accuracy_and_mean_iou_of_a_worked_case(tmp_path: Path) -> None:
    samples = [sample(str(i), TRUE, image_id=i) for i in range(4)]
    rows = [
        box_row("0", [0, 0, 20, 10]),  # IoU 1
        box_row("1", [0, 0, 15, 10]),  # IoU .75
        box_row("2", [10, 0, 30, 10]),  # IoU 1/3
    ]  # and nothing for 3
    result = scored(tmp_path, samples, rows)
    assert result.metrics == {"accuracy": 0.5, "mean IoU": pytest.approx((1 + 0.75 + 1 / 3) / 4)}
    assert result.counts == {"images": 4, "samples": 4, "true_boxes": 4, "predicted_boxes": 3}


@pytest.mark.parametrize(
    ("protocol", "accuracy"),
    [([], 1.0), (["mmdet"], 1.0), (["vision_r1"], 0.0), (["vlm_r1"], 0.0), (["comparison=above"], 0.0)],
)
def test_an_iou_of_just_a_half_is_right_or_not_as_the_protocol_says(
    tmp_path: Path, protocol: list[str], accuracy: float
) -> None:
    result = scored(tmp_path, [sample("a", TRUE)], [box_row("a", [0, 0, 10, 10])], *protocol)
    assert result.metrics["accuracy"] == accuracy and result.metrics["mean IoU"] == 0.5
    assert ("IoU >= 0.5" if accuracy else "IoU > 0.5") in result.protocol.line()


def test_of_several_boxes_the_best_scored_counts_then_the_first(tmp_path: Path) -> None:
    right, wrong = box_row("a", TRUE), box_row("a", [50, 50, 60, 60])
    samples = [sample("a", TRUE)]
    for rows, accuracy in [
        ([right, wrong], 1.0),
        ([wrong, right], 0.0),  # the best of all would be an oracle
        ([{**wrong, "score": 0.3}, {**right, "score": 0.4}], 1.0),
    ]:
        assert scored(tmp_path, samples, rows).metrics["accuracy"] == accuracy


def test_boxes_are_not_read_with_an_extra_pixel(tmp_path: Path) -> None:
    """Ends are not pixels: [0, 0, 2, 1] and [0, 0, 1, 1] have IoU 1/2, and not 2/3 as with width x2 - x1 + 1."""
    result = scored(tmp_path, [sample("a", [0, 0, 2, 1])], [box_row("a", [0, 0, 1, 1])], "comparison=above")
    assert result.metrics == {"accuracy": 0.0, "mean IoU": 0.5}


def test_a_truth_of_zero_size_counts_and_is_never_found(tmp_path: Path) -> None:
    samples = [sample("a", [5, 5, 5, 9]), sample("b", TRUE)]
    rows = [box_row("a", [5, 5, 5, 9]), box_row("b", TRUE)]
    assert scored(tmp_path, samples, rows).metrics["accuracy"] == 0.5


def reply(identity: str, text: str, **more: Any) -> Prediction:
    return Prediction(sample_id=identity, image_id=1, text=text, **more)


def test_replies_are_read_in_their_dialect_with_the_strict_figure_beside() -> None:
    samples = [sample(i, TRUE) for i in "abcd"]
    said = [
        reply("a", '[{"bbox_2d": [0, 0, 200, 100], "label": "it"}]'),  # per mille of 100 x 100 pixels
        reply("b", 'Sure! [{"bbox_2d": [0, 0, 200, 100], "label": "something else"}]'),  # right, but not well formed
        reply("c", "no idea", truncated=True),
    ]
    result = score(samples, said, EXPRESSION_DEFAULT)
    assert result.metrics == {"accuracy": 0.5, "mean IoU": 0.5, "accuracy strict": 0.25}
    assert result.counts["replies"] == 3 and result.counts["samples_without_reply"] == 1
    assert (result.counts["well_formed"], result.counts["unparsable"], result.counts["truncated"]) == (1, 1, 1)
    assert result.faults["surrounding_text"] == 1 and result.protocol.dialect == "qwen3"
    strict = replace(EXPRESSION_DEFAULT, parse="strict")
    again = score(samples, said, strict)
    assert again.metrics == {"accuracy": 0.25, "mean IoU": 0.25}


def test_intervals_are_over_images_not_expressions(tmp_path: Path) -> None:
    """Ten expressions of one right image and ten of one wrong: all or nothing, in every resample of images."""
    samples = [sample(f"{image}-{n}", TRUE, image_id=image) for image in (1, 2) for n in range(10)]
    rows = [box_row(f"1-{n}", TRUE) for n in range(10)]
    result = scored(tmp_path, samples, rows, num_resamples=200)
    assert result.metrics["accuracy"] == 0.5 and result.interval["accuracy"] == (0.0, 1.0)
    assert result.counts["images"] == 2 and result.counts["samples"] == 20


def test_the_paired_difference_knows_that_the_images_are_the_same(tmp_path: Path) -> None:
    samples = [sample(str(i), TRUE, image_id=i) for i in range(40)]
    few = scored(tmp_path, samples, [box_row(str(i), TRUE) for i in range(0, 40, 2)])
    more = scored(tmp_path, samples, [box_row(str(i), TRUE) for i in range(40) if i % 2 == 0 or i < 10])
    assert few.resampler is not None and more.resampler is not None
    found = paired_difference(few.resampler, more.resampler, num_resamples=300)["accuracy"]
    assert found.difference == pytest.approx(5 / 40) and 0 < found.interval[0] < 5 / 40 < found.interval[1]
    other = scored(tmp_path, samples[:9], [])
    with pytest.raises(ValueError, match="same samples"):
        paired_difference(few.resampler, other.resampler)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=12))
def test_a_resample_is_the_set_in_which_images_stand_as_often_as_drawn(rows: list[tuple[int, bool]]) -> None:
    samples = [sample(str(n), TRUE, image_id=image) for n, (image, _) in enumerate(rows)]
    right = [np.array([TRUE], float) if ok else np.zeros((0, 4)) for _, ok in rows]
    over, under = rec_ratios(right, [one.truth.xyxy for one in samples], EXPRESSION_DEFAULT)
    assert over[:, 0].tolist() == [float(ok) for _, ok in rows] and (under == 1).all()
    said = [reply(str(n), '[{"bbox_2d": [0, 0, 200, 100], "label": "it"}]') for n, (_, ok) in enumerate(rows) if ok]
    result = score(samples, said, EXPRESSION_DEFAULT)
    assert isinstance(result.resampler, RatioResampler)
    times = np.arange(len(result.resampler.images))[None] + 1  # the first image once, the second twice, ...
    weights = [1 + list(result.resampler.images).index(image) for image, _ in rows]
    expected = sum(w for w, (_, ok) in zip(weights, rows, strict=True) if ok) / sum(weights)
    assert result.resampler.figures(times)[0, 0] == pytest.approx(expected)


BAD_FILES: list[tuple[Any, str]] = [
    ([{"sample_id": "zz", "bbox": [1, 2, 3, 4]}], "row 0: the box has sample_id 'zz', which is not of the set; .*'a'"),
    ([box_row("a", TRUE), {"sample_id": "a", "bbox": [1, 2, 3]}], "row 1: bbox: expected four finite numbers"),
    ([{"sample_id": "a", "bbox": [1, 2, 3, float("nan")]}], "row 0: bbox"),
    ([{"sample_id": "a", "bbox": [1, 2, 3, 4], "score": "high"}], "row 0: score: expected a finite number"),
    ([{"sample_id": "a", "image_id": 1, "text": "[]"}], "say how they write boxes with --dialect"),
    ({"not": "a list"}, "expected a list of predictions"),
]


@pytest.mark.parametrize(("rows", "message"), BAD_FILES)
def test_bad_files_are_named(tmp_path: Path, rows: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        scored(tmp_path, [sample("a", TRUE)], rows)


def test_bad_replies_are_named() -> None:
    def score_one(said: list[Prediction], dialect: str = "qwen3", **change: Any) -> None:
        score([replace(sample("a", TRUE), **change)], said, EXPRESSION_DEFAULT, dialect)

    with pytest.raises(DataError, match="sample 'a': expected one reply, found two"):
        score_one([reply("a", "[]"), reply("a", "[]")])
    with pytest.raises(DataError, match="a reply has sample_id 'b', which is not of the set"):
        score_one([reply("b", "[]")])
    with pytest.raises(DataError, match="has no input_size_wh; boxes of dialect qwen25 are in pixels"):
        score_one([reply("a", "[]")], "qwen25")
    with pytest.raises(DataError, match="width and height of its image are needed"):
        score_one([reply("a", "[]")], size_wh=(0, 0))
    with pytest.raises(DataError, match=r"accuracy is of one true box, but this one has 0; is it gRefCOCO\?"):
        score_one([], truth=Boxes.empty())


def test_protocols_of_expressions_have_their_own_names_and_fields() -> None:
    assert set(EXPRESSION_PROTOCOLS) >= {"default", "vision_r1", "vlm_r1", "mmdet", "qwen3vl", "grec", "grec_giou"}
    for protocol in EXPRESSION_PROTOCOLS.values():
        assert type(protocol).from_json(protocol.to_json()) == protocol
    changed = read_protocol(["vlm_r1", "match_iou=0.75"], EXPRESSION_DEFAULT, EXPRESSION_PROTOCOLS)
    assert changed.comparison == "above" and changed.match_iou == 0.75 and changed.name == "vlm_r1 with match_iou=0.75"
    with pytest.raises(RecipeError, match="unknown protocol 'vision_r1_coco'; did you mean 'vision_r1'"):
        read_protocol(["vision_r1_coco"], EXPRESSION_DEFAULT, EXPRESSION_PROTOCOLS)
    with pytest.raises(RecipeError, match="a protocol has no field 'max_dets'"):
        read_protocol(["max_dets=1,10,100"], EXPRESSION_DEFAULT, EXPRESSION_PROTOCOLS)
