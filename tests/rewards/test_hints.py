"""Why no box overlaps a true one: said only where none does, with the fault and the space that explain it."""

import json
from pathlib import Path

import pytest

from visionr1.cli import main
from visionr1.completions import CompletionRow
from visionr1.dialects import DIALECTS, get_dialect
from visionr1.rewards.hints import RepliesWithTruth, commonest_fault, explain_no_overlap, find_other_space
from visionr1.samples import Boxes, GroundTruth

SIZE, SEEN = (640, 480), (1288, 952)
TRUTH = GroundTruth(Boxes.of([[64, 48, 128, 96], [320, 240, 384, 288]], ["cat", "dog"]), ("cat", "dog"), SIZE, SEEN)


def written(dialect: str) -> str:
    return get_dialect(dialect).render(TRUTH.boxes, size_wh=SIZE, input_size_wh=SEEN)


def replies(text: str, dialect: str, **more: bool) -> RepliesWithTruth:
    return RepliesWithTruth(get_dialect(dialect), [(text, TRUTH)] * 3, **more)


@pytest.mark.parametrize("dialect", ["qwen25", "qwen3", "internvl", "griffon", "think+qwen3", "open-think+qwen25"])
def test_nothing_is_said_of_right_replies(dialect: str) -> None:
    assert explain_no_overlap(replies(written(dialect), dialect)) == ""


@pytest.mark.parametrize(
    ("meant", "asked"),
    [("qwen25", "qwen3"), ("qwen3", "qwen25"), ("think+qwen3", "think+qwen25"), ("griffon", "internvl")],
)
def test_the_space_that_they_are_in_is_named(meant: str, asked: str) -> None:
    other = find_other_space(replies(written(meant), asked))
    assert other is not None and (other.dialect.name, other.num_met, other.num_true) == (meant, 6, 6)
    assert "so read, 6 of 6 true boxes would be met" in explain_no_overlap(replies(written(meant), asked))


def test_a_space_that_needs_the_models_size_is_left_out_where_it_is_not_known() -> None:
    other = find_other_space(replies(written("qwen25"), "qwen3", knows_input_size=False))
    assert other is None or other.dialect.name != "qwen25"


@pytest.mark.parametrize("text", ["", "[]", "I see nothing.", '[{"bbox_2d": [1, 2, 3, 4], "label": "cat"}]'])
def test_no_space_is_named_that_meets_nothing(text: str) -> None:
    assert find_other_space(replies(text, "qwen25")) is None
    assert "look like" not in explain_no_overlap(replies(text, "qwen25"))


def test_an_empty_answer_that_is_well_formed_needs_no_words() -> None:
    assert explain_no_overlap(replies("[]", "qwen25")) == ""
    no_object = GroundTruth(Boxes.empty(), ("cat",), SIZE, SEEN)
    assert explain_no_overlap(RepliesWithTruth(get_dialect("qwen25"), [("nothing", no_object)])) == ""


def test_the_commonest_fault_is_that_of_most_replies() -> None:
    texts = ['[{"bbox": [1, 2, 3, 4], "label": "cat"}]'] * 2 + ["nothing"]
    parsed = [get_dialect("qwen25").parse(text, size_wh=SIZE, input_size_wh=SEEN) for text in texts]
    assert commonest_fault(parsed) == (
        "the commonest fault, in 2 of 3 replies: other key (expected bbox_2d and label, read bbox)"
    )


def test_score_says_it_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    line = json.dumps(CompletionRow(text=written("qwen3"), truth=TRUTH).to_json()) + "\n"
    rows.write_text(line * 2, encoding="utf-8")
    assert main(["score", str(rows)]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert said.err.count("replies look like dialect qwen3 (0-1000)") == 1
    assert main(["score", str(rows), "--dialect", "qwen3"]) == 0
    assert "look like" not in capsys.readouterr().err


@pytest.mark.parametrize("dialect", [*DIALECTS, "json:key=bbox,order=yxyx,grid=image", "open-think+rex"])
def test_score_gives_a_written_truth_full_marks(
    dialect: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(CompletionRow(text=written(dialect), truth=TRUTH).to_json()) + "\n", encoding="utf-8")
    assert main(["score", str(rows), "--dialect", dialect]) == 0
    said = capsys.readouterr()
    score = json.loads(said.out)
    assert score["format"] == 1 and "look like" not in said.err
    # Kosmos-2's patches are too coarse for the boxes.
    assert score["total"] == 3 or (dialect == "kosmos2" and score["total"] > 2.8)
