import json
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from support.dialects import ALL_DIALECTS
from visionr1 import cli
from visionr1.data import BoxDataset, data_path, read_coco, read_dataset
from visionr1.data.check import check_data
from visionr1.dialects import get_dialect


def tiny_set(folder: Path, boxes: list[list[float]], category: str = "cat") -> BoxDataset:
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    rows = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "categories": [{"id": 1, "name": category}],
        "annotations": [{"id": i, "image_id": 1, "category_id": 1, "bbox": box} for i, box in enumerate(boxes, 1)],
    }
    (folder / "_annotations.coco.json").write_text(json.dumps(rows))
    return read_coco(folder)


@pytest.mark.parametrize("dialect", sorted(ALL_DIALECTS))
def test_every_truth_of_bccd_comes_back_and_scores_full_marks(dialect: str) -> None:
    check = check_data(read_coco(data_path("bccd"), split="test"), get_dialect(dialect))
    assert check.failures == () and check.images == 72 and check.boxes == 945
    # Kosmos-2's patches are too coarse for some of the small cells.
    assert check.mean_total == pytest.approx(3) if dialect != "kosmos2" else 2.9 < check.mean_total < 3


def test_boxes_that_rounding_spoils_are_counted_and_are_no_failure(tmp_path: Path) -> None:
    check = check_data(tiny_set(tmp_path, [[5, 5, 20, 20], [10.5, 10.5, 1, 1], [3, 3, 1.2, 9]]), get_dialect("qwen25"))
    assert check.failures == ()
    assert check.below == {0.5: 1, 0.75: 1, 0.9: 2}
    assert check.mean_total < 3


def test_the_input_size_decides_what_rounding_spoils(tmp_path: Path) -> None:
    dataset = tiny_set(tmp_path, [[10.5, 10.5, 5, 5]])
    coarse = check_data(dataset, get_dialect("qwen25"))
    fine = check_data(dataset, get_dialect("qwen25"), input_size=lambda sample: (400, 300))
    assert coarse.below[0.9] == 1 and fine.below[0.9] == 0


def test_a_corrupt_image_fails_the_check_and_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_set(tmp_path, [[5, 5, 20, 20]])
    assert cli.main(["data", "check", str(tmp_path)]) == 0
    assert "1 images, 0 of them without boxes; 1 boxes" in capsys.readouterr().out
    (tmp_path / "a.png").write_bytes(b"no image")
    assert cli.main(["data", "check", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "FAILED" in said.out and "a.png: cannot read this image" in said.out
    assert said.err == "error: samples that cannot be trained on: 1; see above\n"
    assert cli.main(["data", "check", str(tmp_path), "--dialect", "qwen2"]) == 2
    assert "error: unknown dialect 'qwen2'; did you mean 'qwen25'?" in capsys.readouterr().err


@pytest.mark.parametrize("stored", [(40, 30), (30, 40)])
def test_a_photo_on_its_side_fits_boxes_of_either_view(tmp_path: Path, stored: tuple[int, int]) -> None:
    tiny_set(tmp_path, [[5, 5, 20, 20]])  # annotated as 40x30
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", stored).save(tmp_path / "a.png", exif=exif)
    assert check_data(read_coco(tmp_path), get_dialect("qwen25")).failures == ()
    Image.new("RGB", (30, 50)).save(tmp_path / "a.png", exif=exif)
    (failure,) = check_data(read_coco(tmp_path), get_dialect("qwen25")).failures
    assert "the file has 30x50 as stored, 50x30 turned as its EXIF says" in failure


@pytest.mark.parametrize(
    ("dialect", "category", "finding"),
    [
        ("griffon", "cat [old]", "box 0 is labelled 'cat [old]', but this dialect cannot write one with '['"),
        ("internvl", "<ref>cat", "box 0 is labelled '<ref>cat', but this dialect cannot write one with '<ref>'"),
        ("think+qwen25", "</answer>", "a label holds <answer> or </answer>, which this dialect cannot write"),
    ],
)
def test_a_label_that_the_dialect_cannot_write_fails(tmp_path: Path, dialect: str, category: str, finding: str) -> None:
    dataset = tiny_set(tmp_path, [[5, 5, 20, 20]], category)
    (failure,) = check_data(dataset, get_dialect(dialect)).failures
    assert finding in failure and failure.endswith("rename the category, or choose another dialect")
    assert check_data(dataset, get_dialect("qwen25")).failures == ()


def test_an_image_with_more_boxes_than_are_read_says_why_it_fails(tmp_path: Path) -> None:
    (failure,) = check_data(tiny_set(tmp_path, [[5, 5, 20, 20]] * 1001), get_dialect("qwen25")).failures
    assert "1001 true boxes, and of a reply 1000 are read" in failure
    assert check_data(tiny_set(tmp_path, [[5, 5, 20, 20]] * 1000), get_dialect("qwen25")).failures == ()


def test_links_to_one_file_are_one_picture(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "1.png")
    (tmp_path / "2.png").symlink_to("1.png")
    (tmp_path / "3.png").hardlink_to(tmp_path / "1.png")
    rows = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in (1, 2, 3)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 9, 9]}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(rows))
    (note,) = check_data(read_coco(tmp_path), get_dialect("qwen25")).notes
    assert note.startswith("1 pictures stand under several image ids") and note.endswith("under 1, 2, 3")


def test_fractions_of_the_image_are_found_in_voc_too(tmp_path: Path) -> None:
    """VOC's pixels count from 1, so a reader takes one off: [0.1, 0.2] becomes [-0.9, -0.8]."""
    (tmp_path / "Annotations").mkdir()
    box = "<bndbox><xmin>0.1</xmin><ymin>0.2</ymin><xmax>0.6</xmax><ymax>0.8</ymax></bndbox>"
    text = f"<annotation><object><name>wolf</name>{box}</object></annotation>"
    (tmp_path / "Annotations/a.xml").write_text(text)
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (fault,) = check_data(read_dataset(tmp_path), get_dialect("qwen25")).faults
    assert "all 1 boxes lie in 0 to 1" in fault
