"""COCO folders as tools write them and users keep them: where the annotations are, and where the pictures."""

import json
import shutil
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from visionr1 import cli
from visionr1.data import read_dataset
from visionr1.errors import DataError

CASES = Path(__file__).parent / "data"


def check(path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run `visionr1 data check` and return its exit status and all that it printed."""
    status = cli.main(["data", "check", str(path), *arguments])
    printed = capsys.readouterr()
    return status, printed.out + printed.err


# Case 12: where the pictures are


def test_the_pictures_of_a_partly_downloaded_set_are_used(capsys: pytest.CaptureFixture[str]) -> None:
    """30 images in the file, of which the last 5 lie in val2017/ (giddyyupp/coco-minitrain#40)."""
    folder = CASES / "case_12/n_subset"
    status, printed = check(folder, capsys, "--on-bad", "skip")
    assert status == 0 and "\n5 images, " in printed
    assert "images left out: 25 (25 for missing image)" in printed

    # The message names the folder where the pictures should be.
    status, printed = check(folder, capsys)
    assert status == 2 and "val2017/000000000001.jpg, found no such file" in printed
    assert "--images" in printed and "docs/faq.md#" in printed


def test_a_thumbnail_beside_the_file_is_not_taken_for_the_picture(capsys: pytest.CaptureFixture[str]) -> None:
    """images/1..3.jpg, and a thumbnail 2.jpg beside the annotations."""
    folder = CASES / "case_12/x_twodirs"
    status, printed = check(folder, capsys)
    assert status == 0 and "\n3 images, " in printed
    samples = read_dataset(folder).samples
    assert [sample.image for sample in samples] == [folder / f"images/{number}.jpg" for number in (1, 2, 3)]


def test_one_file_may_annotate_two_folders(tmp_path: Path) -> None:
    """One JSON over train2017/ and val2017/."""
    source = json.loads((CASES / "case_12/p_fiftyone/labels.json").read_text())
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_default.json").write_text(json.dumps(source))
    for number, folder in ((1, "train2017"), (2, "val2017")):
        (tmp_path / folder).mkdir()
        shutil.copy(CASES / f"case_12/p_fiftyone/data/{number}.jpg", tmp_path / folder)
    dataset = read_dataset(tmp_path)
    assert [sample.image.parent.name for sample in dataset.samples] == ["train2017", "val2017"]  # type: ignore[union-attr]
    assert dataset.report.adjusted["images_in_other_folders"] == 2


FOLDERS = [
    "case_12/p_fiftyone",  # FiftyOne: data/ and labels.json
    "case_12/p_fiftyone/labels.json",
    "case_15/s_rot",  # CVAT: annotations/instances_default.json, images/default/
    "case_22/p_cvat",  # CVAT: the pictures in images/
    "case_22/p_cvat2",  # CVAT: a subset that its user called Train
    "case_20/p_labelstudio",  # Label Studio: result.json and images/
]


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_of_tools_are_read(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = check(CASES / folder, capsys)
    assert status == 0 and "score 3.0000 of 3" in printed


def test_a_cvat_subset_is_a_split() -> None:
    assert len(read_dataset(CASES / "case_22/p_cvat2", split="train").samples) == 2


def test_a_json_of_another_name_is_advised(tmp_path: Path) -> None:
    shutil.copy(CASES / "case_20/p_labelstudio/result.json", tmp_path / "my_export.json")
    with pytest.raises(DataError, match=r"but my_export\.json: name the file itself"):
        read_dataset(tmp_path)


# `--images`


def test_the_folder_of_the_images_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "labels/export.json"
    file.parent.mkdir()
    shutil.copy(CASES / "case_12/p_fiftyone/labels.json", file)
    pictures = tmp_path / "far/away/pictures"
    shutil.copytree(CASES / "case_12/p_fiftyone/data", pictures)

    assert check(file, capsys)[0] == 2
    status, printed = check(file, capsys, "--images", str(pictures))
    assert status == 0 and "\n2 images, " in printed

    # A name that is wrong, and a format that has its own place for images.
    assert check(file, capsys, "--images", str(tmp_path / "nowhere"))[0] == 2
    status, printed = check(CASES / "case_18/n_qwen/rows2.jsonl", capsys, "--images", str(pictures))
    assert status == 2


def test_a_recipe_names_the_folder_of_the_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "tiny", "--dry-run", "--data", str(tmp_path), "--images", str(tmp_path)]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert printed.count(f'images = "{tmp_path}"') == printed.count(f'source = "{tmp_path}"')  # phases and eval
    assert cli.main(["train", "tiny", "--dry-run", "--images", str(tmp_path)]) == 2
    assert "--images: expected --data too" in capsys.readouterr().err


# Case 20: names that other systems wrote; case 16: names in macOS's spelling


def test_backslashes_of_windows_separate(capsys: pytest.CaptureFixture[str]) -> None:
    """Label Studio on Windows writes images\\1.jpg (label-studio-converter#139)."""
    status, printed = check(CASES / "case_20/p_backslash", capsys)
    assert status == 0 and "adjusted 2 images under another spelling" in printed


@pytest.mark.parametrize("folder", ["p_url", "x_url"])
def test_the_end_of_a_url_is_read_if_it_lies_there(folder: str, tmp_path: Path) -> None:
    """Names are URLs; in x_url one with a signature of 300 letters, whose file is not there."""
    shutil.copytree(CASES / "case_20" / folder, tmp_path / "set")
    shutil.copy(tmp_path / "set/2.jpg", tmp_path / "set/1.jpg")
    assert len(read_dataset(tmp_path / "set").samples) == 2


def test_a_url_whose_file_is_not_there_is_a_missing_image(capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = check(CASES / "case_20/x_url", capsys)
    assert status == 2 and "found no such file" in printed and len(printed) < 1500
    status, printed = check(CASES / "case_20/x_url", capsys, "--on-bad", "skip")
    assert status == 0 and "images left out: 1 (1 for missing image)" in printed


def test_folders_that_are_not_there_are_no_matter_of_spelling(capsys: pytest.CaptureFixture[str]) -> None:
    """images\\1/1.jpg, but 1.jpg lies beside the file: any 1.jpg could be meant, so it is not guessed."""
    status, printed = check(CASES / "case_20/p_ls139", capsys)
    assert status == 2 and "found no such file" in printed and "--images" in printed


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_found_in_either_unicode_form(tmp_path: Path, form: str) -> None:
    """p_nfd: file_name composed, file decomposed (llmsresearch/paperbanana#240), and the other way round."""
    name = "Äpfel 고양이.png"
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    Image.new("RGB", (100, 80)).save(tmp_path / unicodedata.normalize(other, name))  # type: ignore[arg-type]
    rows = {
        "images": [{"id": 1, "file_name": unicodedata.normalize(form, name), "width": 100, "height": 80}],  # type: ignore[arg-type]
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(rows))
    assert len(read_dataset(tmp_path).samples) == 1
