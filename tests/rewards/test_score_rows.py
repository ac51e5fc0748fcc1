"""`visionr1 score`: a row out for every row in, in order, whatever they hold."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from visionr1 import cli
from visionr1.dialects import get_dialect
from visionr1.errors import RecipeError
from visionr1.rewards import PRESETS, FixedStages, Scorer
from visionr1.rewards.score_rows import score_rows

ROW = {
    "text": '[{"bbox_2d": [10, 10, 30, 30], "label": "cat"}]',
    "boxes": [[10, 10, 30, 30], [60, 60, 80, 90]],
    "labels": ["cat", "dog"],
    "categories": ["cat", "dog"],
    "width": 100,
    "height": 100,
    "input_width": 100,
    "input_height": 100,
}


def make(preset: str, dialect: str = "qwen25", **options: object) -> Scorer:
    return PRESETS.resolve(preset).make(options, get_dialect(dialect))


def line(**changes: object) -> str:
    return json.dumps({key: value for key, value in {**ROW, **changes}.items() if value != "absent"})


def test_a_row_of_preset_paper() -> None:
    (scored,) = score_rows([line()], "rows.jsonl", make("paper"))
    assert scored.result == {
        "total": 2.5,
        "format": 1.0,
        "recall": 0.5,
        "precision": 1.0,
        "stage": [0.5, 0.5, 0.75],
        "plain_recall": 0.5,
        "plain_precision": 1.0,
        "num_predicted": 1,
        "pairs": [{"predicted": 0, "true": 0, "iou": 1.0, "valid": True, "label_correct": True}],
        "faults": [],
    }
    assert scored.reasons == (
        "2.500 = format 1.000 + recall 0.500 + precision 1.000 (xi0 0.5, xi1 0.5, xi2 0.75)",
        "1 predicted, 2 true boxes, 1 valid pairs",
        "box 0 matches true box 0: IoU 1.000, 'cat'",
        "true box 1 ('dog') is missed",
    )


def test_reasons_name_faults_and_what_matches_nothing() -> None:
    text = '[{"bbox_2d": [10, 10, 30, 28], "label": "dog"}, {"bbox_2d": [0, 0, 5, 5], "label": "cat"}, {"a": 1}]'
    (scored,) = score_rows([line(text=text)], "rows.jsonl", make("paper"))
    assert "box 0 matches true box 0: IoU 0.900, 'dog' where 'cat' is true" in scored.reasons
    assert "box 1 ('cat') matches no true box" in scored.reasons
    assert "fault in item 2: not_four_numbers (bbox_2d is None)" in scored.reasons


@pytest.mark.parametrize(("progress", "step", "xi0"), [(0.0, 0.5, 0.5), (0.5, 0.5, 0.75), (1.0, 1.0, 0.5)])
def test_the_stage_follows_progress(progress: float, step: float, xi0: float) -> None:
    (scored,) = score_rows([line()], "rows.jsonl", make("paper"), stage=FixedStages(step).at(progress))
    assert scored.result["stage"][0] == xi0  # type: ignore[index]


def test_a_row_of_preset_release() -> None:
    rows = [line(), line(num_instances=1), line(boxes=[], labels=[]), line(num_instances=None)]
    first, fewer, none, null = score_rows(rows, "rows.jsonl", make("release", step="0"))
    assert first.result["total"] == 2.5 and fewer.result["total"] == 3.0
    (pair,) = first.result["pairs"]  # type: ignore[misc, attr-defined]
    assert pair == {"predicted": 0, "true": 0, "giou": pytest.approx(1.0)} and first.result["stage"] == 0
    assert "box 0 matches true box 0: GIoU 1.000" in first.reasons
    (fault,) = none.result["faults"]  # type: ignore[misc, attr-defined]
    assert fault["kind"] == "public_code_raises" and "where nothing is" in fault["detail"] == none.reasons[-1]
    assert null.result == first.result


def test_a_row_of_preset_vlm_r1() -> None:
    text = f"<think>t</think><answer>```json{ROW['text']}```</answer>"
    (scored,) = score_rows([line(text=text)], "rows.jsonl", make("vlm_r1"))
    assert set(scored.result) == set(
        "total od_ap od_ap50 odLength map weighted_sum format repetition num_predicted faults".split()
    )
    assert scored.result["faults"] == []
    assert scored.result["total"] == 1.5 and scored.result["od_ap50"] == pytest.approx(0.5)
    assert scored.reasons[:2] == ("1.500 = odLength 0.500 + format 1.000", "1 predicted, 2 true boxes")
    (referring,) = score_rows([line(text=text, boxes=[[1, 2, 3, 4]], labels=["cat"])], "rows", make("vlm_r1"))
    assert referring.result["rec_format"] == 1.0


@pytest.mark.parametrize(
    ("completion", "found"),
    [
        (ROW["text"], ["no <answer>", "no ```json fence", "not <think>"]),  # well formed for preset paper
        (f"<think></think><answer>```{ROW['text']}```</answer>", ["no ```json fence"]),  # another fence
        ("<think></think><answer>```json[{```</answer>", ["what the last ```json fence holds is no JSON list"]),
        ("<think></think><answer>```json```</answer>", ["no ```json fence"]),  # an empty one
        ("<think></think><answer>None</answer>", []),
        ("<think></think><answer>```json\n[]```</answer>\n", ["not <think>"]),
    ],
)
def test_preset_vlm_r1_says_what_it_does_not_read(completion: str, found: list[str]) -> None:
    (scored,) = score_rows([line(text=completion)], "rows.jsonl", make("vlm_r1"))
    details = [fault["detail"] for fault in scored.result["faults"]]  # type: ignore[attr-defined]
    assert len(details) == len(found) and list(scored.reasons[3:]) == details
    assert all(detail.startswith(begin) for detail, begin in zip(details, found, strict=True))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("nonsense", "rows.jsonl:1: expected a JSON object, found 'nonsense'"),
        ("[" * 100_000, "rows.jsonl:1: expected a JSON object"),  # deeper than can be read
        (b"\xff\xfe{", "rows.jsonl:1: expected a JSON object"),  # no UTF-8
        ("[1]", "rows.jsonl:1: expected a JSON object, found '[1]'"),
        (line(text="absent"), "field text: expected it, found only boxes, labels"),
        ("{}", "field text: expected it, found only an empty object"),
        (b"caf\xe9\n", "expected a JSON object, found 'caf\ufffd' ("),
        (line(text=None), "field text: expected a text, found None"),
        (line(boxes=[[1, 2, 3]]), "field boxes[0]: expected four numbers x1, y1, x2, y2 in pixels, found [1, 2, 3]"),
        (line(boxes=[[1, 2, 3, True]]), "field boxes[0]: expected four numbers"),  # a truth value
        (line(boxes=[[1, 2, 3, float("nan")]]), "field boxes[0]: expected four numbers"),
        (line(boxes=[[1, 2, 3, 10**400]]), "field boxes[0]: expected four numbers"),  # no float64 holds it
        (line(boxes={}), "field boxes: expected a list of [x1, y1, x2, y2], found {}"),
        (line(boxes=[[9, 2, 3, 4]], labels=["cat"]), "field boxes[0]: expected x1 < x2 and y1 < y2, found [9.0,"),
        (line(labels=["cat"]), "field labels: expected one for each of 2 boxes, found ['cat']"),
        (line(labels=["cat", "dgo"]), "field labels[1]: expected one of the 2 categories, found 'dgo'"),
        (line(labels=["cat", 3]), "field labels: expected a list of texts, found ['cat', 3]"),
        (line(categories="cat"), "field categories: expected a list of texts, found 'cat'"),
        (line(width=0), "field width: expected a positive whole number of pixels, found 0"),
        (line(input_height=99.5), "field input_height: expected a positive whole number of pixels, found 99.5"),
        (line(num_instances=-1), "field num_instances: expected a whole number from 0, found -1"),
    ],
)
def test_a_bad_row_gets_its_error_and_the_others_their_score(row: str | bytes, message: str) -> None:
    bad, good = score_rows([row, line()], "rows.jsonl", make("paper"))
    assert str(bad.result["error"]).startswith("rows.jsonl:1: ") and message in str(bad.result["error"])
    assert good.result["total"] == 2.5


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(RecipeError, match="unknown dialect 'latin'; known: gemini, glm, griffon, internvl"):
        make("paper", dialect="latin")
    with pytest.raises(RecipeError, match="preset vlm_r1 does not read the dialect 'griffon', but qwen25, qwen3"):
        make("vlm_r1", dialect="griffon")
    with pytest.raises(RecipeError, match="unknown preset 'best'"):
        make("best")


def test_the_command_reads_a_pipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join([line(), "", line(text="\ud800 猫")]) + "\n"  # half a character is model text too
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert cli.main(["score", "-", "--explain"]) == 0
    captured = capsys.readouterr()
    rows = [json.loads(row) for row in captured.out.splitlines()]
    assert [row["total"] for row in rows] == [2.5, 0.0]
    assert "true box 1 ('dog') is missed" in captured.err


def test_the_command_ends_quietly_where_its_reader_does(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text((line() + "\n") * 2_000)
    program = [sys.executable, "-m", "visionr1", "score", str(path)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["total"] == 2.5
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_the_command_draws_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (100, 100), (90, 120, 90)).save("photo.png")
    Path("rows.jsonl").write_text("{}\n" + line() + "\n")
    assert cli.main(["score", "rows.jsonl", "--explain", "--image", "photo.png"]) == 2
    assert "drawn: photo.score-2.png" in capsys.readouterr().err
    with Image.open("photo.score-2.png") as drawn:
        assert drawn.width > 2 * 400  # both sides, enlarged
    assert not Path("photo.score-1.png").exists()
    Path("rows.jsonl").write_text(line(width=200) + "\n" + line())
    assert cli.main(["score", "rows.jsonl", "--explain", "--image", "photo.png"]) == 2
    captured = capsys.readouterr()
    assert [json.loads(row)["total"] for row in captured.out.splitlines()] == [1.0, 2.5]  # a picture costs no row
    assert "not drawn: photo.png: the annotations say 200x100 pixels, but the file has 100x100" in captured.err
    assert captured.err.endswith("error: 1 of 2 rows could not be drawn; see above\n")
    assert cli.main(["score", "rows.jsonl", "--explain", "--image", "nofile.png"]) == 2
    assert capsys.readouterr() == ("", "error: --image: expected an image file, found no nofile.png\n")
    assert cli.main(["score", "rows.jsonl", "--image", "photo.png"]) == 2
    assert capsys.readouterr().err == "error: --image needs --explain and preset paper\n"


def test_the_command_says_that_there_are_no_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n\n")
    assert cli.main(["score", str(path)]) == 0
    assert capsys.readouterr() == ("", f"{path}: no rows\n")


def test_the_command_counts_bad_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line() + "\n{}\n" + line() + "\n")
    assert cli.main(["score", str(path), "--preset", "release", "--release-step", "1500"]) == 2
    captured = capsys.readouterr()
    rows = [json.loads(row) for row in captured.out.splitlines()]
    assert ["total" in row for row in rows] == [True, False, True]
    assert f"{path}:2: field text" in rows[1]["error"]
    assert captured.err == 'error: 1 of 3 rows are wrong and have no score; the "error" of each says why\n'


def test_the_command_names_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["score", "no/such.jsonl"]) == 2
    assert capsys.readouterr().err == "error: cannot read no/such.jsonl: No such file or directory\n"


@pytest.mark.parametrize("share", ["x", "1.5", "nan"])
def test_a_share_is_a_number_from_0_to_1(share: str) -> None:
    with pytest.raises(SystemExit):
        cli.main(["score", "-", "--progress", share])
