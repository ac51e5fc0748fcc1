"""Pascal VOC: pixels from 1 with both ends in the box, splits, what is refused, and that no file leaves its folder."""

from collections.abc import Callable
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
    (annotation(("dog", [1, 1, 9, 9]), filename="../a.jpg"), "expected a path below the image folder"),
    (annotation(("dog", [1, 1, 9, 9]), filename="gone.jpg"), "expected an image at"),
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


@pytest.mark.parametrize("spoil", [lambda root: (root / "Annotations/a.xml").unlink()])
def test_a_listed_file_that_is_missing_is_named(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    root = write(tmp_path, a=annotation())
    spoil(root)
    with pytest.raises(DataError, match=r"cannot read .*a\.xml"):
        read_dataset(root, split="test")
    with pytest.raises(DataError, match="no usable annotation; it has none"):
        read_dataset(root)
