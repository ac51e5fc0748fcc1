"""Replies of model families (`families/`), by `visionr1 eval`: right figures where a dialect reads them, else a hint.

All of them describe the same boxes, four an image, perfectly. Where the dialect is not theirs, AP is 0, nothing is
guessed, and one line names what they are and which dialect to choose.
"""

import json
from pathlib import Path

import pytest

from visionr1.cli import main

FOLDER = Path(__file__).parent / "families"


def evaluate(name: str, dialect: str, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, dict[str, float]], str]:
    """Return the record of an evaluation, and what was said beside it."""
    files = ["--predictions", str(FOLDER / f"{name}.jsonl"), "--data", str(FOLDER / "truth.json")]
    assert main(["eval", *files, "--dialect", dialect, "--resamples", "0", "--json"]) == 0
    said = capsys.readouterr()
    return json.loads(said.out), said.err


@pytest.mark.parametrize(
    ("name", "dialect", "faults"),
    [
        ("qwen25_right", "qwen25", {}),
        ("qwen3_norm1000", "qwen3", {}),
        ("internvl", "internvl", {}),
        ("qwen2vl", "qwen2vl", {}),
        ("gemini", "gemini", {}),
        ("paligemma", "paligemma", {}),
        ("unit_floats", "json:grid=1", {}),
        ("unit_floats", "lfm", {"other_key": 4}),
        ("key_bbox", "json:key=bbox", {}),
        ("percat_nolabel", "json:label=none", {}),
        ("single_quotes", "glm", {"other_syntax": 4, "unreadable": 4}),
        # Decoded without special tokens, as TRL and verl do.
        ("internvl_stripped", "internvl", {"other_syntax": 4}),
        ("internvl_stripped", "qwen3", {"surrounding_text": 4}),
        ("internvl", "qwen3", {"surrounding_text": 4}),  # tags from 0 to 1000, the space of qwen3
        ("qwen2vl", "qwen3", {"not_a_list": 4, "other_box_form": 4, "surrounding_text": 4}),
        ("qwen2vl", "internvl", {"not_a_list": 4, "other_box_form": 4, "other_syntax": 4}),
        ("key_bbox", "qwen3", {"other_key": 4}),
        ("single_quotes", "qwen3", {"other_syntax": 4, "unreadable": 4}),
        # Boxes in the thought are no answer, whether the reply or the prompt opened it.
        ("full_think", "qwen3", {"surrounding_text": 4}),
        ("full_think", "think+qwen3", {"surrounding_text": 4}),
        ("prefilled_think", "qwen3", {"surrounding_text": 4}),
        ("prefilled_think", "think+qwen3", {"surrounding_text": 4}),
        ("prefilled_think", "open-think+qwen3", {"surrounding_text": 4}),
        # One category a prompt.
        ("percat_label", "qwen3", {}),
        ("percat_nolabel", "qwen3", {"assumed_label": 8, "wrong_keys": 8}),
        ("percat_nested", "qwen3", {"other_box_form": 8}),
        ("percat_wrapped", "qwen3", {"not_a_list": 8}),
    ],
)
def test_perfect_replies_are_perfect(
    name: str, dialect: str, faults: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    record, said = evaluate(name, dialect, capsys)
    assert record["metrics"]["AP50"] == pytest.approx(1) and record["metrics"]["F1"] == 1
    assert record["counts"]["malformed_boxes"] == record["counts"]["truncated"] == 0
    assert record["faults"] == faults
    assert "no box overlaps" not in said


def test_a_list_of_four_numbers_alone_is_one_box(capsys: pytest.CaptureFixture[str]) -> None:
    # The replies name one of two objects of each category: half of them are found, and no box is wrong.
    record, _ = evaluate("percat_barelist", "qwen3", capsys)
    assert record["counts"]["predicted_boxes"] == 8 and record["counts"]["malformed_boxes"] == 0
    assert (record["metrics"]["precision"], record["metrics"]["recall"]) == (1, 0.5)


@pytest.mark.parametrize(
    ("name", "dialect", "num_predicted", "named"),
    [
        ("qwen3_norm1000", "qwen25", 16, "replies look like dialect qwen3 (0-1000): as qwen3 AP50 would be 100.0"),
        ("qwen25_right", "qwen3", 16, "replies look like dialect qwen25 (pixels of the model's input)"),
        ("unit_floats", "qwen3", 16, "dialect json:key=bbox_2d,order=xyxy,grid=1 (numbers from 0 to 1): as json:"),
        ("unit_floats", "qwen25", 16, "dialect json:key=bbox_2d,order=xyxy,grid=1 (numbers from 0 to 1): as json:"),
        ("internvl_stripped", "qwen25", 16, "replies look like dialect qwen3 (0-1000)"),
        ("key_bbox", "qwen25", 16, "read bbox); replies look like dialect qwen3"),
        ("visual_rft", "qwen3", 16, "a box overlaps one of another label, '' where 'cat' is true"),
        ("gemini", "qwen3", 16, "dialect gemini (box_2d, y first, 0-1000): as gemini AP50 would be 100.0"),
        ("gemini", "qwen25", 16, "box_2d is Gemini's key, whose boxes begin with y"),
        ("gemini", "paligemma", 0, "replies look like dialect gemini"),
        ("qwen3_norm1000", "gemini", 16, "bbox_2d is Qwen's key, whose boxes begin with x"),
        (
            "paligemma",
            "qwen3",
            0,
            "the location tokens of PaliGemma, which this dialect does not write (dialect paligemma",
        ),
        ("paligemma", "qwen3", 0, "replies look like dialect paligemma"),
        ("molmo", "qwen3", 0, "the points of Molmo or Qwen2.5-VL, and points are no boxes"),
        ("molmo", "rex", 0, "the points of Molmo or Qwen2.5-VL, and points are no boxes"),
        ("qwen2vl", "qwen25", 0, "box tags as Qwen2-VL and InternVL write them, from 0 to 1000"),
        ("qwen2vl", "qwen25", 0, "replies look like dialect qwen2vl"),
        ("internvl", "qwen25", 0, "replies look like dialect internvl"),
        ("prefilled_think", "qwen25", 16, "replies look like dialect qwen3"),
    ],
)
def test_replies_of_another_family_are_named_and_not_guessed(
    name: str, dialect: str, num_predicted: int, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record, said = evaluate(name, dialect, capsys)
    assert record["metrics"]["F1"] == 0
    assert record["counts"]["predicted_boxes"] == num_predicted
    (line,) = [line for line in said.splitlines() if "no box overlaps a true one" in line]
    assert named in line and "docs/faq.md#every-score-is-0-and-there-are-boxes" in line
