"""Attacks by values (rows of B1, C9): numbers beyond all bounds, nestings, a user's own reward, thousands of boxes."""

import json
from pathlib import Path

import pytest
from PIL import Image

from visionr1.cli import main

ROW = {"text": '[{"bbox_2d": [1, 1, 9, 9], "label": "cat"}]', "boxes": [[1, 1, 9, 9]], "labels": ["cat"]}
ROW |= {"categories": ["cat"], "width": 64, "height": 48, "input_width": 64, "input_height": 48}


@pytest.mark.parametrize("digits", [10, 400, 5000])
def test_b1_a_number_of_instances_beyond_all_bounds_is_a_bad_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], digits: int
) -> None:
    text = json.dumps({**ROW, "num_instances": 1})
    (tmp_path / "rows.jsonl").write_text(text.replace('_instances": 1', '_instances": 1' + "0" * digits))
    assert main(["score", str(tmp_path / "rows.jsonl"), "--preset", "release"]) == 2
    assert "error" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("logprobs", [[1e299], [-1e299], [1e299, 1e299], [0.0, -1e299]])
def test_b1_log_probabilities_beyond_all_bounds_end_in_no_traceback(tmp_path: Path, logprobs: list[float]) -> None:
    size = {"id": 1, "file_name": "a.png", "width": 64, "height": 48}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 8, 8]}
    content = {"images": [size], "annotations": [box], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    row = {"image_id": 1, "text": ROW["text"], "input_size_wh": [64, 48], "token_logprobs": logprobs}
    row["token_ends"] = [len(str(ROW["text"]))] * len(logprobs)
    (tmp_path / "replies.jsonl").write_text(json.dumps(row))
    command = ["eval", "--data", str(tmp_path / "truth.json"), "--predictions", str(tmp_path / "replies.jsonl")]
    assert main([*command, "--dialect", "qwen25", "--protocol", "scores=token"]) in (0, 2)


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "seed = " + "9" * 5000, "seed = 1e999", "\ud800"])
def test_b1_recipes_beyond_all_bounds_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_bytes(text.encode(errors="surrogatepass"))
    assert main(["train", str(recipe), "--dry-run"]) == 2
    assert f"recipe {recipe}" in capsys.readouterr().err
    assert main(["train", "demo", "--dry-run", "--set", text.replace("a =", "seed=")]) == 2


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ("Score(1.0, {}, notes=7)", "notes: expected a tuple of texts, found 7"),
        ("Score(1.0, {}, notes='abc')", "notes: expected a tuple of texts, found 'abc'"),
        ("Score(1.0, {}, notes=('a', None))", "notes: expected a tuple of texts"),
        ("Score(1.0, {}, pairs=3)", "pairs: expected tuple or None, found 3"),
        ("Score(1.0, {}, reply='x')", "reply: expected Reply or None, found 'x'"),
        ("Score(1.0, {}, stage=0)", "stage: expected Stage or None, found 0"),
    ],
)
def test_a_score_made_by_hand_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reward: str, message: str
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW))
    (tmp_path / "mine.py").write_text(
        f"from visionr1.rewards import Score\ndef reward(text, factor=None): return {reward}\n"
    )
    assert main(["score", str(tmp_path / "rows.jsonl"), "--preset", f"{tmp_path / 'mine.py'}:reward"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("value", ["nan", "inf", "[1.0, nan]"])
def test_an_option_that_is_not_annotated_takes_no_number_that_is_not_finite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW))
    (tmp_path / "mine.py").write_text("def reward(text, factor=None): return 1.0\n")
    command = ["score", str(tmp_path / "rows.jsonl"), "--preset", f"{tmp_path / 'mine.py'}:reward"]
    assert main([*command, "--option", f"factor={value}"]) == 2
    assert "factor: expected a finite number" in capsys.readouterr().err
    assert main([*command, "--option", "factor=[1, 2.5]"]) == 0


def test_c9_thousands_of_equal_boxes_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Took 20 s and 1.2 GB."""
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    boxes = [{"id": number, "image_id": 1, "category_id": 1, "bbox": [8, 8, 32, 24]} for number in range(9000)]
    image = {"id": 1, "file_name": "a.png", "width": 64, "height": 48}
    content = {"images": [image], "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "_annotations.coco.json").write_text(json.dumps(content))
    assert main(["data", "check", str(tmp_path)]) == 2  # a dialect reads 1,000 boxes at most
    printed = capsys.readouterr().out
    assert "cat: 9000" in printed
    assert "9000 true boxes, and of a reply 1000 are read, so none can be right" in printed
