import errno
import json
from pathlib import Path

import pytest
from PIL import Image

from visionr1 import __version__, cli
from visionr1.cli.score import SCORE_ROW
from visionr1.dialects import DIALECTS, describe_dialects
from visionr1.errors import DataError, MissingDependency, needs_extra
from visionr1.rewards import Reward
from visionr1.rewards.score_rows import score_rows


def test_the_commands_are_the_files_of_the_package_in_the_order_of_the_help() -> None:
    names = cli.command_names()
    assert names[: len(cli.ORDER)] == list(cli.ORDER)
    files = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    assert set(names) == files - {"__init__", "arguments"}


@pytest.mark.parametrize("command", cli.command_names())
def test_help_of_each_command_teaches_by_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    assert f"example:\n  visionr1 {command}" in capsys.readouterr().out


def test_help_names_every_dialect_and_shows_a_row_that_scores(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(name in describe_dialects() for name in DIALECTS)
    for command in (["eval"], ["score"], ["data", "check"]):
        with pytest.raises(SystemExit):
            cli.main([*command, "--help"])
        said = capsys.readouterr().out
        assert describe_dialects() in " ".join(said.split()) and "example:\n  visionr1 " in said
        assert (SCORE_ROW in said) == (command == ["score"])
    assert f"```json\n{SCORE_ROW}\n```" in (Path(__file__).parents[2] / "docs/rewards.md").read_text()
    (scored,) = score_rows([SCORE_ROW], "rows.jsonl", Reward())
    assert scored.result["total"] == 2.5


def test_users_error_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"error: {tmp_path} is no run: it has neither metrics.jsonl nor evaluation/*.json\n"


def test_an_error_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "\x1b[31mrun"
    folder.mkdir()
    assert cli.main(["report", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error and r"\x1b[31mrun is no run" in error


def test_a_table_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The head of a column is the name of the file with the predictions."""
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 20}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    predictions = tmp_path / "\x1b[31mmine.json"
    predictions.write_text(json.dumps([{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.5}]))

    command = ["eval", "--data", str(tmp_path / "truth.json"), "--predictions", str(predictions)]
    assert cli.main([*command, "--out", str(tmp_path / "out")]) == 0

    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert r"\x1b[31mmine" in printed.out and r"\x1b[31mmine.json" in printed.err


def test_an_unexpected_error_says_last_what_to_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("visionr1.report.page.write_report", broken)
    with pytest.raises(KeyError) as raised:
        cli.main(["report", str(tmp_path)])
    (note,) = raised.value.__notes__  # Python prints it below the traceback
    assert note.startswith(f"visionr1 {__version__} did not expect this.")
    assert note.endswith(f"the command: visionr1 report {tmp_path}")


def test_what_the_system_says_of_a_file_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "report.html")

    monkeypatch.setattr("visionr1.report.page.write_report", full)
    assert cli.main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: [Errno {errno.ENOSPC}] No space left on device: 'report.html'\n"


def test_interrupt_is_status_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("visionr1.report.page.write_report", interrupted)
    assert cli.main(["report", str(tmp_path)]) == 130


@pytest.mark.parametrize("number", ["0", "-5", "1.5", "many"])
@pytest.mark.parametrize(
    "said",
    [
        ["eval", "--model", "tiny", "--data", "bccd", "--max-new-tokens"],
        ["eval", "--model", "tiny", "--data", "bccd", "--batch-size"],
        ["vqa", "GQA", "--model", "tiny", "--out", "o", "--max-new-tokens"],
        ["predict", "photo.jpg", "--categories", "cat", "--max-new-tokens"],
    ],
)
def test_counts_are_whole_numbers_from_1(said: list[str], number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([*said, number])
    assert stopped.value.code == 2
    assert f"{said[-1]}: expected a number from 1 up, but found '{number}'" in capsys.readouterr().err


def test_dry_run_prints_the_resolved_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "demo", "--dry-run", "--set", "train.learning_rate=0.5", "--model", "m"]) == 0
    out = capsys.readouterr().out
    assert "learning_rate = 0.5" in out and 'path = "m"' in out


def test_unknown_key_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "demo", "--dry-run", "--set", "train.lerning_rate=0.5"]) == 2
    assert "did you mean train.learning_rate?" in capsys.readouterr().err


def test_a_missing_package_is_named_with_its_remedy() -> None:
    with pytest.raises(MissingDependency, match=r'pip install "visionr1\[train\]"'), needs_extra("train"):
        import no_such_package  # noqa: F401
    with pytest.raises(ModuleNotFoundError) as raised, needs_extra("train"):
        import visionr1.no_such_room  # noqa: F401
    assert not isinstance(raised.value, MissingDependency)
    with pytest.raises(DataError), needs_extra("train"):
        raise DataError("passes")
