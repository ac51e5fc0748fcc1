"""Looking image files up: folders, spellings, thumbnails, and that nothing leads out of a folder."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from visionr1.data.image_lookup import ImageLookup, is_spelled_so

SIZE = (40, 30)


def save(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def test_the_folder_with_most_names_comes_first(tmp_path: Path) -> None:
    thumbnail = save(tmp_path / "2.png", (8, 6))
    names = ["1.png", "2.png", "3.png"]
    pictures = [save(tmp_path / "images" / name) for name in names]
    lookup = ImageLookup([tmp_path, tmp_path / "images"], names)
    assert lookup.find_all(names, [SIZE] * 3) == pictures
    assert thumbnail not in lookup.find_all(names, [(0, 0)] * 3)  # nor without a size


def test_a_thumbnail_is_not_taken_even_from_the_fuller_folder(tmp_path: Path) -> None:
    for number in range(5):
        save(tmp_path / f"{number}.png", (8, 6))
    picture = save(tmp_path / "images/0.png")
    lookup = ImageLookup([tmp_path, tmp_path / "images"], [f"{number}.png" for number in range(5)])
    assert lookup.find("0.png", SIZE) == picture


def test_a_thumbnail_does_not_stand_for_a_missing_picture(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "images" / f"{number}.png")
    save(tmp_path / "3.png", (8, 6))
    names = [f"{number}.png" for number in range(4)]
    assert ImageLookup([tmp_path, tmp_path / "images"], names).find("3.png", SIZE) is None


def test_the_first_twenty_names_may_be_missing(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(30)]
    last = save(tmp_path / "val" / "29.png")
    lookup = ImageLookup([tmp_path, tmp_path / "val"], names)
    assert lookup.folders[0] == tmp_path / "val" and lookup.find("29.png", SIZE) == last


def test_one_file_may_annotate_several_folders(tmp_path: Path) -> None:
    first, second = save(tmp_path / "train2017/1.png"), save(tmp_path / "images/val2017/2.png")
    lookup = ImageLookup([tmp_path], ["1.png", "2.png"], roots=[tmp_path])
    assert lookup.find_all(["1.png", "2.png"], [SIZE, SIZE]) == [first, second]


def test_of_two_files_in_folders_of_splits_none_is_guessed(tmp_path: Path) -> None:
    save(tmp_path / "train/1.png")
    save(tmp_path / "val/1.png")
    assert ImageLookup([tmp_path], ["1.png"], roots=[tmp_path]).find("1.png", SIZE) is None


SPELLINGS = [
    ("images\\1.png", "images/1.png"),
    ("1.png", "1.PNG"),
    ("Images/A.png", "images/a.png"),
    ("./images/1.png", "images/1.png"),
    ("my%20cat.png", "my cat.png"),
    ("images%5C1%23.png", "images/1#.png"),
    ("images//1.png", "images/1.png"),
    ("http://host/bucket/a/1.png", "1.png"),
    ("http://images.cocodataset.org/train2017/1.png", "train2017/1.png"),
    ("https://host/p/1.png?X-Amz-Signature=" + 300 * "ab", "1.png"),
    ("https://host/my%20cat.png", "my cat.png"),
    ("s3://bucket/1.png", "1.png"),
    ("/data/local-files/?d=images/1.png", "images/1.png"),
    ("/data/upload/7/1.png", "1.png"),
    ("\u00c4pfel.png", "A\u0308pfel.png"),  # composed in the file, decomposed on the disk, as after macOS's zip
    ("A\u0308pfel.png", "\u00c4pfel.png"),
    (unicodedata.normalize("NFC", "한국.png"), unicodedata.normalize("NFD", "한국.png")),
]


@pytest.mark.parametrize(("name", "file"), SPELLINGS)
def test_other_spellings_of_a_file_are_found(tmp_path: Path, name: str, file: str) -> None:
    path = save(tmp_path / file)
    lookup = ImageLookup([tmp_path], [name])
    assert lookup.find(name, SIZE) == path
    assert lookup.find(file, SIZE) == path and is_spelled_so(file, path)


def test_a_name_as_it_stands_comes_before_other_spellings(tmp_path: Path) -> None:
    save(tmp_path / "a/1.png")
    literal = save(tmp_path / "a\\1.png")  # legal on Linux
    assert ImageLookup([tmp_path]).find("a\\1.png", SIZE) == literal
    lower = save(tmp_path / "b.png")
    save(tmp_path / "B.png")
    assert ImageLookup([tmp_path]).find("b.png", SIZE) == lower
    save(tmp_path / "B.PNG")
    assert ImageLookup([tmp_path]).find("b.PNG", SIZE) is None  # three differ in case alone


def test_two_names_do_not_share_a_file_that_may_be_either(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    names = ["http://host/a/1.png", "http://host/b/1.png"]
    assert ImageLookup([tmp_path], names).find_all(names, [SIZE, SIZE]) == [None, None]
    names = ["1.png", "1.PNG"]
    assert ImageLookup([tmp_path], names).find_all(names, [SIZE, SIZE]) == [tmp_path / "1.png", None]


NOWHERE = [
    "../1.png",
    "/1.png",
    "C:\\1.png",
    "a\\..\\..\\1.png",
    "http://host/../1.png\0",
    "file:///../..",
    "http://[",
    "",
    "/",
    ".",
    "\0",
    "x" * 300 + ".png",
    "\ud800.png",
    "images",
    "fifo",
    "%2e%2e/1.png",
]


@pytest.mark.parametrize("name", NOWHERE)
def test_what_is_no_file_below_the_folder_is_not_found(tmp_path: Path, name: str) -> None:
    save(tmp_path / "1.png")
    os.mkfifo(tmp_path / "set_fifo")
    (tmp_path / "set/images").mkdir(parents=True)
    os.mkfifo(tmp_path / "set/fifo")
    lookup = ImageLookup([tmp_path / "set"], [name], roots=[tmp_path / "set"])
    assert lookup.find(name, SIZE) is None


@given(st.text(max_size=20, alphabet="ab./\\:C\0~%2e?=&dhtps"))
def test_what_is_found_lies_below_the_folder(name: str) -> None:
    lookup = ImageLookup([Path(__file__).parent])
    path = lookup.find(name)
    assert path is None or Path(__file__).parent in path.resolve().parents


def test_a_folder_that_cannot_be_listed_holds_nothing(tmp_path: Path) -> None:
    assert ImageLookup([tmp_path / "gone", tmp_path / "1.png"], ["1.png"]).find("1.png", SIZE) is None


def test_links_are_followed(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere/1.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/images").symlink_to(tmp_path / "elsewhere")
    assert ImageLookup([tmp_path / "set/images"], ["1.png"]).find("1.png", SIZE) == tmp_path / "set/images/1.png"


def test_a_thumbnail_of_the_other_orientation_is_none_of_the_size(tmp_path: Path) -> None:
    """Height and width may change places by the file's EXIF alone."""
    width, height = SIZE
    save(tmp_path / "1.png", (height, width))
    path = save(tmp_path / "images/1.png")
    lookup = ImageLookup([tmp_path, tmp_path / "images"], ["1.png"])
    assert lookup.find("1.png", SIZE) == path

    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = tmp_path / "2.jpg"
    Image.new("RGB", (height, width)).save(turned, exif=exif)
    save(tmp_path / "images/2.jpg", (height, width))
    assert ImageLookup([tmp_path, tmp_path / "images"], ["2.jpg"]).find("2.jpg", SIZE) == turned
