"""COCO files and folders with a model: what its processor takes, and what `eval` reads again."""

import shutil
from pathlib import Path

import pytest

from visionr1 import cli

CASES = Path(__file__).parent / "data"


def check(capsys: pytest.CaptureFixture[str], case: str, *arguments: str) -> tuple[int, str]:
    """Run `visionr1 data check` on the input of a case; return its exit status and all that it printed."""
    status = cli.main(["data", "check", str(CASES / case), *arguments])
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def test_an_image_that_the_model_cannot_take_is_found_beforehand(capsys: pytest.CaptureFixture[str]) -> None:
    """2400x8 among ordinary images: "absolute aspect ratio must be smaller than 200", in the middle of a run."""
    assert check(capsys, "case_19/a_aspect")[0] == 0  # nothing is wrong with the file
    status, printed = check(capsys, "case_19/a_aspect", "--model", "tiny")
    assert status == 2 and printed.count("FAILED") == 1
    assert "FAILED sample 3: " in printed and "2400x8" in printed


def test_the_check_takes_the_dialect_and_the_sizes_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    folder = "case_12/p_fiftyone"
    status, printed = check(capsys, folder, "--model", "tiny")
    assert status == 0 and "3.0000 of 3" in printed
    assert check(capsys, folder, "--model", "tiny", "--dialect", "internvl")[0] == 0
    status, printed = check(capsys, folder, "--model", "no-such-model")
    assert status == 2 and "no-such-model" in printed


def test_eval_and_compare_read_the_images_that_were_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "labels/export.json"
    file.parent.mkdir()
    shutil.copy(CASES / "case_12/p_fiftyone/labels.json", file)
    pictures = tmp_path / "far/away/pictures"
    shutil.copytree(CASES / "case_12/p_fiftyone/data", pictures)

    stored = []
    for out in ("a", "b"):
        command = ["eval", "--model", "tiny", "--data", str(file), "--images", str(pictures), "--on-bad", "skip"]
        assert cli.main([*command, "--max-new-tokens", "2", "--out", str(tmp_path / out)]) == 0
        stored += [str(path) for path in (tmp_path / out / "evaluation").glob("*.json")]
    assert cli.main(["compare", *stored]) == 0
    assert "paired over the images" in capsys.readouterr().out
