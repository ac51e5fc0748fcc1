"""Pascal VOC: pixels from 1 with both ends in the box, splits, what is refused, and that no file leaves its folder."""

from pathlib import Path

import pytest
from PIL import Image

from visionr1.data import read_dataset, read_source
from visionr1.data.readers.voc import CATEGORIES
from visionr1.errors import DataError

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""


def annotation(*objects: tuple[str, list[object]], difficult: int = 0, filename: str = "a.jpg") -> str:
    inner = "".join(OBJECT.format(name=name, box=box, difficult=difficult) for name, box in objects)
    size = "<size><width>40</width><height>30</height><depth>3</depth></size>"
    return f"<annotation><folder>VOC2007</folder><filename>{filename}</filename>{size}{inner}</annotation>"


def write(root: Path, **files: str) -> Path:
    """A folder with an annotation and an image for each name; the list `test` holds them all, `val` the first."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / f"Annotations/{name}.xml").write_text(text)
        Image.new("RGB", (40, 30)).save(root / f"JPEGImages/{name}.jpg")
    (root / "ImageSets/Main/test.txt").write_text("".join(f"{name}\n" for name in files))
    (root / "ImageSets/Main/val.txt").write_text(f"{next(iter(files))} 1\n\n")
    return root


def test_boxes_count_from_one_and_hold_both_ends(tmp_path: Path) -> None:
    data = read_dataset(write(tmp_path, a=annotation(("dog", [1, 1, 40, 30]), ("cat", [11, 6, 11, 6]))), split="test")
    (sample,) = data.samples
    assert sample.truth.xyxy.tolist() == [[0, 0, 40, 30], [10, 5, 11, 6]]  # the whole image, and one pixel
    assert sample.truth.labels == ("dog", "cat") and sample.query.categories == CATEGORIES
    assert sample.size_wh == (40, 30) and sample.load_image().size == (40, 30) and sample.image_id == "a"
    assert data.table.xywh.tolist() == [[0, 0, 40, 30], [10, 5, 1, 1]]


def test_splits_are_lists_and_without_one_all_is_read(tmp_path: Path) -> None:
    root = write(tmp_path, a=annotation(("dog", [1, 1, 9, 9])), b=annotation(filename="b.jpg"))
    assert [sample.id for sample in read_source(root, split="valid")] == ["a"]  # its flag is no part of the name
    assert [len(sample.truth) for sample in read_source(root)] == [1, 0]
    with pytest.raises(DataError, match="expected split 'train' in ImageSets/Main, found test, val"):
        read_source(root, split="train")


def test_other_names_are_those_of_the_set(tmp_path: Path) -> None:
    data = read_dataset(write(tmp_path, a=annotation(("robin", [1, 1, 9, 9]), ("ant", [2, 2, 5, 5]), difficult=1)))
    assert data.table.categories == ("ant", "robin") and data.report.adjusted == {"difficult_objects_kept": 2}


BAD: list[tuple[str, str]] = [
    ("<annotation>", "a.xml is not XML"),
    ('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "without a DOCTYPE"),
    ("<annotation>" + " " * (1 << 20) + "</annotation>", "below 1048576 characters"),
    (annotation(("dog", ["one", 1, 9, 9])), "bndbox/xmin: expected a number, found 'one'|xmin: expected a number"),
    (annotation(("dog", [1, 1, "nan", 9])), "xmax: expected a number, found 'nan'"),
    (annotation(("dog", [9, 1, 1, 9])), "object 0: expected a name and xmin <= xmax"),
    (annotation((" ", [1, 1, 9, 9])), "expected a name"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_bad_file_is_an_error_or_skipped_with_a_count(tmp_path: Path, text: str, message: str) -> None:
    root = write(tmp_path, a=text, b=annotation(("dog", [1, 1, 9, 9]), filename="b.jpg"))
    with pytest.raises(DataError, match=message):
        read_dataset(root)
    skipped = read_dataset(root, on_bad="skip")
    assert sum(skipped.report.skipped.values()) == 1 and "b" in [sample.id for sample in skipped.samples]


def test_a_list_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    root = write(tmp_path / "voc", a=annotation())
    (tmp_path / "secret.xml").write_text(annotation())
    (root / "ImageSets/Main/test.txt").write_text("../../secret\n")
    with pytest.raises(DataError, match=r"'\.\./\.\./secret': expected the name of a file in Annotations"):
        read_dataset(root, split="test")


def test_a_listed_file_that_is_missing_is_named(tmp_path: Path) -> None:
    root = write(tmp_path, a=annotation())
    (root / "Annotations/a.xml").unlink()
    with pytest.raises(DataError, match="no usable annotation; it has none"):
        read_dataset(root)

    # With a picture of its name it has no objects.
    (sample,) = read_dataset(root, split="test").samples
    assert len(sample.truth) == 0
    (root / "JPEGImages/a.jpg").unlink()
    with pytest.raises(DataError, match=r"test\.txt, line 1: 'a': expected the name of a file in Annotations, or of a"):
        read_dataset(root, split="test")


@pytest.mark.parametrize(
    ("filename", "message"),
    [("../a.jpg", "expected a path below the image folder"), ("gone.jpg", "expected an image at")],
)
def test_a_picture_is_as_the_xml_says_or_of_its_own_name(tmp_path: Path, filename: str, message: str) -> None:
    root = write(
        tmp_path / "voc", a=annotation(("dog", [1, 1, 9, 9]), filename=filename), b=annotation(filename="b.jpg")
    )
    Image.new("RGB", (40, 30)).save(tmp_path / "voc/a.jpg")
    data = read_dataset(root)
    assert data.samples[0].image == root / "JPEGImages/a.jpg"
    assert data.report.adjusted == {"pictures_named_as_the_xml": 1}

    (root / "JPEGImages/a.jpg").unlink()
    (root / "a.jpg").unlink()
    with pytest.raises(DataError, match=message):
        read_dataset(root)
    skipped = read_dataset(root, on_bad="skip")
    assert sum(skipped.report.skipped.values()) == 1 and [sample.id for sample in skipped.samples] == ["b"]


def test_names_of_macos_are_found_as_their_list_writes_them(tmp_path: Path) -> None:
    root = write(tmp_path, **{"Caf\u0065\u0301": annotation(("A\u0308pfel", [1, 1, 9, 9]), filename="")})
    (root / "ImageSets/Main/test.txt").write_text("Caf\u00e9\n")
    (root / "labels.txt").write_text("\u00c4pfel\nBirne\n")
    data = read_dataset(root, split="test")
    assert data.table.categories == ("\u00c4pfel", "Birne") and len(data.samples[0].truth) == 1


def test_a_picture_of_another_name_is_counted_where_both_are_there(tmp_path: Path) -> None:
    root = write(tmp_path, a=annotation(filename="c.jpg"), b=annotation(filename="b.jpg"))
    Image.new("RGB", (40, 30)).save(root / "JPEGImages/c.jpg")
    data = read_dataset(root)
    assert [sample.image for sample in data.samples] == [root / "JPEGImages/c.jpg", root / "JPEGImages/b.jpg"]
    assert data.report.adjusted == {"pictures_of_another_name": 1}


def test_a_list_of_classes_that_names_none_of_them_is_no_such_list(tmp_path: Path) -> None:
    root = write(tmp_path, a=annotation(("robin", [1, 1, 9, 9])))
    (root / "labels.txt").write_text("train\nval\n")
    assert read_dataset(root).table.categories == ("robin",)
    (root / "labels.txt").write_text("ant\n")
    write(root, b=annotation(("ant", [1, 1, 9, 9]), filename="b.jpg"), a=annotation(("robin", [1, 1, 9, 9])))
    data = read_dataset(root)
    assert data.table.categories == ("ant", "robin")
    assert data.report.adjusted == {"classes_missing_from_the_list": 1}


def test_two_names_that_differ_in_case_alone_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path, a=annotation(("Cat", [1, 1, 9, 9]), ("cat", [2, 2, 9, 9])))
    with pytest.raises(DataError, match="2 categories are called 'cat'"):
        read_dataset(root)


def test_the_folder_of_pictures_can_be_named(tmp_path: Path) -> None:
    root = write(tmp_path / "voc", a=annotation())
    (root / "JPEGImages").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"expected an image at .*JPEGImages/a\.jpg.*--images"):
        read_dataset(root)
    assert read_dataset(root, image_dir=tmp_path / "elsewhere").samples[0].image == tmp_path / "elsewhere/a.jpg"
