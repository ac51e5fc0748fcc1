"""Attacks on a terminal (B2, B3, C2): names from files command nothing and forge no line; no encoding ends a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from visionr1.cli import main
from visionr1.terminal import printable

HOSTILE = "\x1b[31mcat\x1b[0m\x1b]0;pwned\x07\x9b2J\u202e\nerror: all fine"


def write_data(folder: Path, category: str, name: str = "a.png") -> Path:
    """Write a COCO folder of one image with one box of `category`."""
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (64, 48)).save(folder / "a.png")
    content = {
        "images": [{"id": 1, "file_name": name, "width": 64, "height": 48}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 32, 24], "iscrowd": 0}],
        "categories": [{"id": 1, "name": category}],
    }
    (folder / "_annotations.coco.json").write_text(json.dumps(content))
    return folder


def assert_harmless(printed: str) -> None:
    assert printable(printed) == printed
    assert not [line for line in printed.splitlines() if line.startswith("error: all fine")]


def test_b2_data_check_prints_names_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "check", str(write_data(tmp_path / "a", HOSTILE))])
    main(["data", "check", str(write_data(tmp_path / "b", "cat", HOSTILE))])
    main(["data", "check", str(write_data(tmp_path / "c", "cat", HOSTILE)), "--on-bad", "skip"])
    printed = capsys.readouterr()
    assert r"\x1b[31mcat" in printed.out + printed.err
    assert_harmless(printed.out)
    assert_harmless(printed.err)


def test_b2_tables_and_messages_print_names_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(write_data(tmp_path / "data", HOSTILE))
    results = tmp_path / f"{HOSTILE[:30]}.json"
    results.write_text(json.dumps([{"image_id": 1, "category_id": 1, "bbox": [8, 8, 32, 24], "score": 0.5}]))
    out = tmp_path / "out"
    assert main(["eval", "--data", data, "--predictions", str(results), "--out", str(out)]) == 0
    (stored,) = out.glob("evaluation/*.json")
    copy = stored.with_name(f"{HOSTILE[:20]}\n.json")
    copy.write_bytes(stored.read_bytes())
    assert main(["compare", str(stored), str(copy), "--resamples", "9"]) == 0
    assert main(["report", str(out), "--out", str(tmp_path / f"{HOSTILE[:20]}\n.html")]) == 0
    assert main(["report", str(tmp_path / HOSTILE[:30])]) == 2
    assert main(["train", f"no{HOSTILE}"]) == 2
    assert main(["train", "demo", "--set", f"{HOSTILE}=1"]) == 2
    assert main(["train", "demo", "--dry-run", "--set", "train.name=a\x9b2J\u202e"]) == 0
    assert main(["score", f"{HOSTILE[:20]}\n.jsonl"]) == 2
    with pytest.raises(SystemExit):
        main(["report", "run", HOSTILE])
    printed = capsys.readouterr()
    assert_harmless(printed.out)
    assert_harmless(printed.err)


def test_b2_reasons_of_scores_are_printed_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"text": HOSTILE, "boxes": [[1, 1, 9, 9]], "labels": ["cat"], "categories": ["cat"]}
    size = {"width": 64, "height": 48, "input_width": 64, "input_height": 48}
    (tmp_path / "rows.jsonl").write_text(json.dumps({**row, **size}) + "\n" + json.dumps({HOSTILE: 1}) + "\n")
    assert main(["score", str(tmp_path / "rows.jsonl"), "--explain"]) == 2
    printed = capsys.readouterr()
    assert_harmless(printed.out)
    assert_harmless(printed.err)


def run_command(arguments: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command line in a process of its own, whose streams have an encoding of their own."""
    command = [sys.executable, "-m", "visionr1", *arguments]
    return subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, check=False)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_b3_a_result_is_not_lost_for_a_letter_that_the_terminal_lacks(tmp_path: Path, encoding: str) -> None:
    data = write_data(tmp_path / "data", "猫")
    done = run_command(["data", "check", str(data)], tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert rb"\u732b: 1" in done.stdout


def test_b3_a_folder_whose_name_is_not_utf_8_is_named(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    data = write_data(tmp_path / "data", "cat")
    os.rename(data, folder)  # noqa: PTH104 (a path of bytes)
    command = [sys.executable, "-m", "visionr1", "data", "check"]
    done = subprocess.run([*command, folder], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert rb"caf\udce9" in done.stdout


def test_c2_a_working_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    script = "import os, sys; os.rmdir(os.getcwd()); from visionr1.cli import main; sys.exit(main(sys.argv[1:]))"
    folder = tmp_path / "gone"
    folder.mkdir()
    command = [sys.executable, "-c", script, "report", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr != "error: [Errno 2] No such file or directory\n"


def test_an_unexpected_traceback_is_printable(tmp_path: Path) -> None:
    script = (
        "import sys, visionr1.report.page as page\n"
        "def fail(*_): raise KeyError(chr(27) + '[31m')\n"
        "page.write_report = fail\n"
        "from visionr1.cli import main; sys.exit(main(['report', '.']))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "did not expect this" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] ... can't allocate memory: you tried")])
def test_c13_memory_that_ran_out_is_an_error_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("visionr1.report.page.write_report", fail)
    assert main(["report", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: memory ran out")
    assert "--batch-size" in message
