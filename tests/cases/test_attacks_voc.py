"""Attack B5 and its kind: XML files that are no files, too long, or hostile inside."""

import os
from pathlib import Path

import pytest
from PIL import Image

from visionr1.data import read_dataset
from visionr1.errors import DataError

ANNOTATION = "<annotation><filename>a.jpg</filename>{}</annotation>"


def folder(root: Path) -> Path:
    """Write a folder with one good image, a."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(root / "JPEGImages/a.jpg")
    (root / "Annotations/a.xml").write_text(ANNOTATION.format(""))
    return root


def make_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(300 << 20)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "expected a file, found a folder, pipe or device"),
        (lambda path: path.symlink_to("/dev/zero"), "expected a file, found a folder, pipe or device"),
        (make_sparse, "expected at most 4194304 bytes, found 314572800"),
        (lambda path: path.symlink_to(path), "cannot read"),
        (lambda path: path.write_text("<annotation>" * 80_000), "is not XML"),
        (lambda path: path.write_text("<?xml version='1.0' encoding='" + "a" * 100_000), "is not XML"),
        (lambda path: path.write_bytes(b"<?xml version='1.0'" + b" " * 900_000 + b"encoding='gbk'?>"), "is not XML"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00\xd8" * 9), "is not UTF-8 text"),
        (lambda path: path.write_bytes(b"\0" * 99), "is not XML"),
    ],
)
@pytest.mark.parametrize("split", [None, "test"])
def test_a_hostile_xml_file_is_named_or_skipped(make: object, message: str, split: str | None, tmp_path: Path) -> None:
    root = folder(tmp_path)
    make(root / "Annotations/b.xml")  # type: ignore[operator]
    (root / "ImageSets/Main/test.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=message):
        read_dataset(root, split=split)
    data = read_dataset(root, split=split, on_bad="skip")
    assert [sample.id for sample in data.samples] == ["a"] and data.report.skipped == {"bad_file": 1}


def test_deep_elements_do_no_harm(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "Annotations/a.xml").write_text(ANNOTATION.format("<a>" * 120_000 + "</a>" * 120_000))
    assert len(read_dataset(root).samples) == 1


def test_lists_and_pictures_that_are_no_files(tmp_path: Path) -> None:
    root = folder(tmp_path)
    os.mkfifo(root / "ImageSets/Main/train.txt")
    os.mkfifo(root / "JPEGImages/p.jpg")
    os.mkfifo(root / "labels.txt")
    (root / "ImageSets/Main/test.txt").write_text("a\n" + "x" * 300 + "\np\n../../etc/passwd\n/etc/passwd\na\0b\n")
    with pytest.raises(DataError, match="expected split 'train' in ImageSets/Main, found test"):
        read_dataset(root, split="train")
    data = read_dataset(root, split="test", on_bad="skip")
    assert [sample.id for sample in data.samples] == ["a"] and data.report.skipped == {"unknown_names_in_list": 5}


def test_a_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path)
    try:
        (root / os.fsdecode(b"Annotations/caf\xe9.xml")).write_text(ANNOTATION.format(""))
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    with pytest.raises(DataError, match="expected the name of a file in UTF-8"):
        read_dataset(root)
    assert [sample.id for sample in read_dataset(root, on_bad="skip").samples] == ["a"]


def test_folders_without_end_do_no_harm(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "Annotations/loop").symlink_to(root / "Annotations")
    deep = root / "Annotations" / "/".join("d" * 1500)
    here = Path.cwd()
    os.chdir(root / "Annotations")
    try:
        for _ in range(1500):
            Path("d").mkdir()
            os.chdir("d")
    finally:
        os.chdir(here)
    try:
        assert [sample.id for sample in read_dataset(root).samples] == ["a"]
    finally:
        remove_deep(deep)


def remove_deep(path: Path) -> None:
    """Remove a chain of folders called d, which is too long for the paths of a recursive removal."""
    while path.name == "d":
        path.rmdir()
        path = path.parent
