"""Protocols by name, overridden, printed, stored, and really asked."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.evaluating import evaluate_file
from visionr1 import cli
from visionr1.data import present_categories, table_of
from visionr1.dialects import get_dialect, instruction
from visionr1.errors import DataError, RecipeError
from visionr1.evaluation import (
    COCO_RESULTS,
    DEFAULT,
    PROTOCOLS,
    Prediction,
    Protocol,
    ask,
    evaluate_replies,
    format_results,
    read_protocol,
)
from visionr1.samples import Boxes, Query, Sample

SIZE = (100, 100)
QWEN3 = get_dialect("qwen3")


def sample(name: str, labels: list[str]) -> Sample:
    boxes = [[10.0 + 20 * i, 10, 25 + 20 * i, 40] for i in range(len(labels))]
    return Sample(
        name, Path("none.jpg"), Query("detection", ("cat", "dog")), Boxes.of(boxes, labels), SIZE, image_id=name
    )


def said(image: str, text: str, *categories: str) -> Prediction:
    return Prediction(image_id=image, text=text, categories=categories)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("vision_r1_coco", {"prompt": "joint", "categories": "all", "constant_score": 0.99, "parse": "salvage"}),
        ("vision_r1_odinw", {"prompt": "per_category", "categories": "present", "constant_score": 0.99}),
        ("qwen25vl", {"prompt": "per_category", "categories": "all", "max_dets": (100, 300, 1000)}),
        ("qwen3vl", {"prompt": "joint", "categories": "all", "parse": "strict", "max_dets": (100, 300, 1000)}),
        ("mmdet", {"scores": "file", "max_dets": (100, 300, 1000), "order": "image_id"}),
    ],
)
def test_named_protocols_are_what_their_sources_say(name: str, fields: dict[str, Any]) -> None:
    protocol = read_protocol([name])
    assert {key: getattr(protocol, key) for key in fields} == fields
    assert Protocol.from_json(json.loads(json.dumps(protocol.to_json()))) == protocol
    assert protocol.line().startswith(f"protocol {name}: ")


def test_every_protocol_has_its_own_name() -> None:
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items()) and len(set(PROTOCOLS.values())) == 7


def test_fields_are_overridden_and_the_name_says_so() -> None:
    protocol = read_protocol(["qwen3vl", "scores=rank", "max_dets=1,10,500", "constant_score=.5", "max_new_tokens=7"])
    assert protocol.scores == "rank" and protocol.max_dets == (1, 10, 500) and protocol.constant_score == 0.5
    assert protocol.name == "qwen3vl with scores=rank, max_dets=1,10,500, constant_score=.5, max_new_tokens=7"
    assert protocol.parse == "strict" and protocol.max_new_tokens == 7
    assert read_protocol([], COCO_RESULTS) is COCO_RESULTS and read_protocol(["prompt=joint"]).name != "default"


def test_two_names_of_one_protocol_are_one() -> None:
    """`--scores constant` and no setting at all: neither is marked, and their results may be subtracted."""
    same, other = read_protocol(["scores=constant"]), read_protocol(["scores=rank"])
    assert same == DEFAULT and len({same, DEFAULT}) == 1 and other != DEFAULT
    samples = [sample("a", ["cat"])]
    results = {
        protocol.name: evaluate_replies(
            table_of(samples), [said("a", "[]")], dialect=QWEN3, protocol=protocol, num_resamples=0
        )
        for protocol in (DEFAULT, same, other)
    }
    text = format_results(results)
    assert text.count("protocol default") == 2 and "default with scores=constant *" not in text
    assert "default with scores=rank *" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["qwen3v1"], "unknown protocol 'qwen3v1'; did you mean 'qwen3vl'"),
        (["scores=rank", "mmdet"], "comes first"),
        (["score=rank"], "no field 'score'; did you mean 'scores'"),
        (["name=mine"], "no field 'name'"),
        (["dialect=qwen3"], "no field 'dialect'"),
        (["scores=best"], "expected one of constant, rank, token, file, found 'best'"),
        (["max_dets=100"], "three numbers of boxes, ascending"),
        (["max_dets=100,10,1"], "ascending"),
        (["max_dets=a,b,c"], "ascending"),
        (["match_iou=0"], "an IoU above 0"),
        (["match_iou=nan"], "an IoU above 0"),
        (["constant_score=inf"], "a finite number"),
        (["max_new_tokens=-1"], "a number of tokens"),
        (["template=find it"], "with {} where"),
    ],
)
def test_a_wrong_setting_is_named(settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_protocol(settings)


def test_a_template_takes_the_place_of_the_instruction() -> None:
    query = Query("detection", ("cat", "dog"))
    qwen3vl = PROTOCOLS["qwen3vl"].template
    assert instruction(query, template=qwen3vl) == (
        "Locate every instance that belongs to the following categories: 'cat, dog'. "
        "Report bbox coordinates in JSON format."
    )
    assert instruction(query, template="") == instruction(query)
    assert qwen3vl in replace(PROTOCOLS["qwen3vl"], dialect="qwen3").line()
    assert PROTOCOLS["qwen25vl"].template == get_dialect("qwen25").templates["grounding"]


def test_present_categories_tell_what_is_there() -> None:
    kept = present_categories([sample("a", ["dog"]), sample("b", []), sample("c", ["dog", "cat"])])
    assert [(s.id, s.query.categories) for s in kept] == [("a", ("dog",)), ("c", ("cat", "dog"))]


def test_every_category_is_asked_of_images_that_list_their_own() -> None:
    lists = {"1": ("cat",), "2": ("dog", "cat")}
    samples = [replace(sample(name, []), query=Query("detection", own)) for name, own in lists.items()]
    assert [asked.query.categories for asked in ask(samples, DEFAULT)] == [*lists.values()]
    inter = read_protocol(["categories=every"])
    assert [asked.query.categories for asked in ask(samples, inter)] == [("cat", "dog")] * 2
    assert len(ask(samples, replace(inter, prompt="per_category"))) == 4
    assert "; every category of the set in one prompt; " in replace(inter, dialect="qwen3").line()


def test_a_hint_is_stated_and_counted() -> None:
    samples = [sample("a", ["cat"]), sample("b", ["dog"])]
    replies = [said("a", "[]", "cat"), said("b", "[]", "dog")]
    text = format_results(
        {
            "x": evaluate_replies(
                table_of(samples), replies, dialect=QWEN3, protocol=PROTOCOLS["vision_r1_odinw"], num_resamples=0
            )
        }
    )
    assert "only the categories present in the truth (a hint)" in text and "categories asked, of all  2 / 4" in text


def test_a_hint_in_anyones_replies_is_found_and_marked() -> None:
    samples = [sample("a", ["cat"]), sample("b", ["dog"])]
    evaluate = partial(evaluate_replies, table_of(samples), dialect=QWEN3, num_resamples=0)
    whole = evaluate([said("a", "[]"), said("b", "[]")])
    hinted = evaluate([said("a", "[]", "Cat"), said("b", "[]", "dog")])
    assert hinted.protocol.categories == "present" and hinted.protocol.name == "default with categories=present"
    text = format_results({"whole": whole, "hinted": hinted})
    assert "hinted *" in text and "only the categories present in the truth (a hint)" in text
    assert "categories asked, of all 4 / 4 2 / 4" in " ".join(text.split())
    absent = evaluate([said("a", "[]", "cat"), said("b", "[]", "cat")])  # asked for one that is not there
    assert absent.protocol.name == "default" and "categories asked, of all" in format_results({"x": absent})
    assert "categories asked" not in format_results({"whole": whole})
    assert "? images" in format_results({"x": replace(whole, counts={})})  # as a stored result may lack them


def test_a_box_counts_only_for_what_its_prompt_asked() -> None:
    table = table_of([sample("a", ["cat", "dog"])])
    cat, dog = (
        '{"bbox_2d": [100, 100, 250, 400], "label": "cat"}',
        '{"bbox_2d": [300, 100, 450, 400], "label": "dog"}',
    )
    protocol = read_protocol(["prompt=per_category"])
    both = [said("a", f"[{cat}, {dog}]", "cat"), said("a", f"[{dog}]", "dog")]
    result = evaluate_replies(table, both, dialect=QWEN3, protocol=protocol, num_resamples=0)
    assert (
        result.extras["coco"][0] == pytest.approx(1)
        and result.metrics["precision"] == pytest.approx(2 / 3)
        and result.metrics["recall"] == 1
    )
    assert result.counts["unknown_labels"] == 1


def test_only_model_pixels_need_the_input_size() -> None:
    samples = [sample("a", ["cat"])]
    right = QWEN3.render(samples[0].truth, size_wh=SIZE, input_size_wh=SIZE)
    scored = evaluate_replies(table_of(samples), [said("a", right)], dialect=QWEN3, num_resamples=0)
    assert scored.extras["coco"][0] == pytest.approx(1)
    for name in ("qwen25", "think+qwen25"):
        with pytest.raises(DataError, match="must be given"):
            evaluate_replies(table_of(samples), [said("a", right)], dialect=get_dialect(name), num_resamples=0)


def test_scores_of_a_file_are_not_of_replies_nor_ranks_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="mmdet takes scores from a results file"):
        evaluate_replies(table_of([sample("a", ["cat"])]), [], dialect=QWEN3, protocol=PROTOCOLS["mmdet"])
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{**box, "id": 1}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    false = {**box, "bbox": [50, 50, 9, 9], "score": 0.9}
    (tmp_path / "results.json").write_text(json.dumps([{**box, "score": 0.1}, false]))
    files = tmp_path / "results.json", tmp_path / "truth.json"
    kept = evaluate_file(*files, num_resamples=0)
    constant = evaluate_file(*files, protocol=["scores=constant"], num_resamples=0)
    assert kept.extras["coco"][0] == pytest.approx(0.5) and constant.extras["coco"][0] == pytest.approx(
        1
    )  # the right one comes first
    assert constant.protocol.name == "coco_results with scores=constant"
    with pytest.raises(DataError, match="scores=rank is for replies"):
        evaluate_file(*files, protocol=["scores=rank"])


def test_the_command_line_takes_a_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text("[]")
    command = ["eval", "--predictions", str(tmp_path / "results.json"), "--data", "bccd", "--json", "--protocol"]
    assert cli.main([*command, "mmdet", "--protocol", "match_iou=.75"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["protocol"]["name"] == "mmdet with match_iou=.75" and record["protocol"]["match_iou"] == 0.75
    assert "AR1000" in record["metrics"] and len(record["coco"]) == 12
    assert cli.main([*command, "mmdte"]) == 2
    assert "did you mean 'mmdet'" in capsys.readouterr().err


def test_a_stored_score_that_no_float_can_hold_is_named() -> None:
    record = {**DEFAULT.to_json(), "constant_score": 10**400}
    with pytest.raises(
        DataError, match=r"protocol\.constant_score: expected float, found <a whole number of 1329 bits>"
    ):
        Protocol.from_json(record)
