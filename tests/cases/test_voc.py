"""Cases 01 to 08: ids and folders of Pascal VOC as users have them, each by the way a user goes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from visionr1 import cli

DATA = Path(__file__).parent / "data"


def score(capsys: pytest.CaptureFixture[str], data: Path, *options: str | Path) -> dict[str, Any]:
    """Return the result of `visionr1 eval --data ... --json`."""
    assert cli.main(["eval", "--data", str(data), "--resamples", "0", "--json", *map(str, options)]) == 0
    return dict(json.loads(capsys.readouterr().out))


# ---- case 01: ultralytics/ultralytics#21557: images named by digits, 000005.jpg and 0001.jpg


@pytest.mark.parametrize("results", ["results.json", "results_int.json"])
def test_boxes_of_images_named_by_digits(results: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = DATA / "case_01/t_vocdigits"
    assert score(capsys, folder, "--predictions", folder / results)["metrics"]["AP"] == 1.0


def test_the_same_images_named_by_letters(capsys: pytest.CaptureFixture[str]) -> None:
    folder = DATA / "case_01/t_vocletters"
    assert score(capsys, folder, "--predictions", folder / "results.json")["metrics"]["AP"] == 1.0


def test_replies_to_images_named_by_digits(capsys: pytest.CaptureFixture[str]) -> None:
    folder = DATA / "case_01/t_vocdigits"
    result = score(capsys, folder, "--predictions", folder / "replies.jsonl", "--dialect", "qwen25")
    assert result["counts"]["unparsable"] == 0 and result["metrics"]["precision"] == 1.0


@pytest.mark.parametrize("names", [("0001", "0002"), ("01", "1")])
def test_string_ids_come_back_as_the_file_has_them(
    names: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(DATA / "case_01/s_strids", tmp_path / "data")
    for file in ("_annotations.coco.json", "res.json"):
        text = (folder / file).read_text()
        for old, new in zip(("0001", "0002"), names, strict=True):
            text = text.replace(f'id": "{old}"', f'id": "{new}"')
        (folder / file).write_text(text)

    rows = tmp_path / "out.json"
    result = score(capsys, folder, "--predictions", folder / "res.json", "--coco-results", rows)
    assert result["metrics"]["AP"] == 1.0
    assert [row["image_id"] for row in json.loads(rows.read_text())] == list(names)
