"""The COCO reader: layouts, what is put right, what is refused, and that nothing leaves the image folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from visionr1.data import BoxDataset, data_path, one_category_each, read_coco, read_source, read_table, table_of
from visionr1.data.row_log import is_safe_name
from visionr1.errors import DataError
from visionr1.samples import Boxes, Query

Rows = dict[str, Any]


def content() -> Rows:
    """Two images of 40x30, two categories, three boxes."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in (5, 6)],
        "categories": [{"id": 2, "name": "dog"}, {"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 2, "bbox": [1, 2, 10, 10], "area": 100, "iscrowd": 0},
            {"id": 2, "image_id": 5, "category_id": 1, "bbox": [0.5, 0, 20, 5.5], "area": 110, "iscrowd": 0},
            {"id": 3, "image_id": 6, "category_id": 2, "bbox": [0, 0, 40, 30], "area": 1200, "iscrowd": 0},
        ],
    }


def write(folder: Path, rows: Any, name: str = "_annotations.coco.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in (5, 6):
        Image.new("RGB", (40, 30)).save(folder / f"{number}.png")
    (folder / name).write_text(json.dumps(rows))
    return folder / name


def test_samples_are_in_file_order_with_all_categories(tmp_path: Path) -> None:
    data = read_coco(write(tmp_path, content()))
    assert [sample.image_id for sample in data.samples] == [5, 6]
    first = data.samples[0]
    assert first.query == Query("detection", ("dog", "cat"))  # in the file's order, not by id
    assert first.truth == Boxes.of([[1, 2, 11, 12], [0.5, 0, 20.5, 5.5]], ["dog", "cat"])
    assert first.size_wh == (40, 30) and first.load_image().size == (40, 30)
    assert data.report.skipped == {} and data.report.adjusted == {}


# Layouts

LAYOUTS = [
    ("_annotations.coco.json", "", None),  # Roboflow, one split's folder
    ("annotations_without_background.json", "valid", "valid"),  # ODinW
    ("_annotations.coco.json", "val", "valid"),  # val is valid
    ("_annotations.coco.json", "valid", "val"),
    ("_annotations.coco.json", "test", None),  # the only split there is
    ("_annotations.coco.json", "", "train"),  # a folder without splits is all one
]


@pytest.mark.parametrize(("name", "folder", "split"), LAYOUTS)
def test_folders_of_every_layout_are_found(tmp_path: Path, name: str, folder: str, split: str | None) -> None:
    write(tmp_path / folder, content(), name)
    assert len(read_coco(tmp_path, split=split).samples) == 2


def test_plain_coco_folder_is_found(tmp_path: Path) -> None:
    write(tmp_path / "val2017", content())
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017/_annotations.coco.json").rename(tmp_path / "annotations/instances_val2017.json")
    data = read_coco(tmp_path, split="valid")
    assert data.samples[0].image == tmp_path / "val2017/5.png"


def test_image_dir_can_be_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a", content())
    (tmp_path / "b").mkdir()
    for image in (tmp_path / "a").glob("*.png"):
        image.rename(tmp_path / "b" / image.name)
    assert len(read_coco(file, image_dir=tmp_path / "b").samples) == 2


@pytest.mark.parametrize("split", ["test", "../valid", None])
def test_a_split_that_is_not_there_lists_those_that_are(tmp_path: Path, split: str | None) -> None:
    for name in ("train", "valid"):
        write(tmp_path / name, content())
    with pytest.raises(DataError, match="found the splits train, valid"):
        read_coco(tmp_path, split=split)


def test_an_empty_folder_and_no_folder_are_named(tmp_path: Path) -> None:
    for split in ("test", None):
        with pytest.raises(
            DataError, match=r"found no annotations_without_.*\.json or .*\(\.jsonl, .*\), or .*VOC \(Annotations/\)$"
        ):
            read_coco(tmp_path, split=split)  # no advice to choose a split
    with pytest.raises(DataError, match=r"no such file or folder; expected a COCO JSON file, .*\.jsonl.*VOC"):
        read_coco(tmp_path / "nothing")


# Files that cannot be read

FILES: list[tuple[Any, str]] = [
    ([], "expected an object with images, annotations and categories, found a list"),  # a results file
    ({}, "images: expected a list, found None"),
    ({**content(), "annotations": None}, "annotations: expected a list, found None"),  # a test set without truth
    ({**content(), "images": []}, "images: expected at least one, found none; the data set is empty"),
    ({**content(), "categories": []}, "categories: expected at least one"),
    ({**content(), "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, r"categories\[1\]: id: .* 1 twice"),
    (
        {**content(), "categories": [{"id": 1, "name": " "}]},
        r"categories\[0\]: name: expected a text that is not",
    ),
    ({**content(), "categories": [{"id": 1, "name": 0}]}, r"categories\[0\]: name: .*found 0"),
    ({**content(), "categories": [{"id": 1, "name": "\ud800"}]}, r"categories\[0\]: name: .*a surrogate.*'\\ud800'"),
    ({**content(), "categories": [{"id": [1], "name": "a"}]}, r"categories\[0\]: expected an object with id and name"),
    ({**content(), "categories": [{"id": 2, "name": "a"}, {"id": 1, "name": "A"}]}, "2 categories are called 'a'"),
    ({**content(), "categories": ["cat"]}, r"categories\[0\]"),
]


@pytest.mark.parametrize(("rows", "message"), FILES)
@pytest.mark.parametrize("on_bad", ["raise", "skip"])
def test_a_file_without_sense_is_refused(tmp_path: Path, rows: Any, message: str, on_bad: Any) -> None:
    file = write(tmp_path, rows)
    with pytest.raises(DataError, match=message) as raised:
        read_coco(file, on_bad=on_bad)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", '{"images": [', "[1,]", "\x00\xff"])
def test_a_cut_off_file_is_no_json(tmp_path: Path, text: str) -> None:
    file = write(tmp_path, {})
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"_annotations\.coco\.json"):
        read_coco(file)


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    file = write(tmp_path, content())
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(read_coco(file).samples) == 2


# Rows that cannot be used: an error, or skipped and counted


def annotation(**change: Any) -> Callable[[Rows], None]:
    return lambda rows: rows["annotations"][1].update(change)


def image(**change: Any) -> Callable[[Rows], None]:
    return lambda rows: rows["images"][1].update(change)


NAN = float("nan")
BAD_ROWS: list[tuple[Callable[[Rows], None], str, str]] = [
    (annotation(image_id=7), "unknown_image_id", r"annotations\[1\] \(id 2\): image_id: .*found 7"),
    (annotation(image_id=None), "unknown_image_id", "image_id: .*found None"),
    (annotation(category_id=0), "unknown_category_id", "category_id: expected the id of one of the 2 .*found 0"),
    (annotation(category_id=True), "unknown_category_id", "category_id"),  # true is no id
    (annotation(bbox=[1, 2, NAN, 4]), "bad_box", "bbox: expected four finite numbers .*nan"),
    (annotation(bbox=[1, 2, 3, float("inf")]), "bad_box", "bbox"),
    (annotation(bbox=[1, 2, 3]), "bad_box", "bbox"),
    (annotation(bbox=["1", 2, 3, 4]), "bad_box", "bbox"),
    (annotation(bbox=None), "bad_box", "bbox: .*found None"),
    (annotation(bbox=[10, 10, -4, 4]), "inverted_box", "bbox: .*no negative side"),
    (annotation(area=NAN), "bad_area", "area: expected a finite number"),
    (annotation(iscrowd="0"), "bad_iscrowd", "iscrowd: expected 0 or 1, found '0'"),  # which Python takes for true
    (
        image(id=5, file_name="5.png"),
        "duplicate_image_id",
        "expected one that no other image has, found 5 again",
    ),
    (image(id=None), "images_without_id", r"images\[1\]: id"),
    (image(width=-1), "bad_image_size", "width, height: expected whole numbers"),
    (image(height="30"), "bad_image_size", "width, height"),
    (image(file_name="gone.png"), "missing_image", r"images\[1\] \(id 6\): file_name: expected an image at"),
    (image(file_name="../6.png"), "unsafe_file_name", r"expected a path below the image folder, found '\.\./6\.png'"),
    (image(file_name="/etc/passwd"), "unsafe_file_name", "unsafe|below the image folder"),
    (image(file_name="a\\..\\..\\6.png"), "unsafe_file_name", "below the image folder"),
    (image(file_name="C:6.png"), "unsafe_file_name", "below the image folder"),
    (image(file_name=None), "unsafe_file_name", "below the image folder"),
]


@pytest.mark.parametrize(("spoil", "reason", "message"), BAD_ROWS)
def test_a_bad_row_is_an_error_or_skipped_with_a_count(
    tmp_path: Path, spoil: Callable[[Rows], None], reason: str, message: str
) -> None:
    rows = content()
    spoil(rows)
    if reason in ("duplicate_image_id", "images_without_id"):
        rows["annotations"].pop()  # the box of the image that goes
    file = write(tmp_path, rows)
    with pytest.raises(DataError, match=message) as raised:
        read_coco(file)
    assert str(file) in str(raised.value) and "--on-bad skip" in str(raised.value)
    skipped = read_coco(file, on_bad="skip")
    assert skipped.report.skipped == {reason: 1}
    assert len(skipped.samples) + sum(len(sample.truth) for sample in skipped.samples) < 5
    assert skipped.report.lines()[0].startswith(f"skipped 1 {reason.replace('_', ' ')}, first: ")
    assert len(skipped.table) == len(skipped.samples)


def test_an_image_that_loses_a_box_is_left_out_as_a_whole(tmp_path: Path) -> None:
    rows = content()
    rows["annotations"][1]["bbox"] = ["1", "2", "3", "4"]
    data = read_coco(write(tmp_path, rows), on_bad="skip")
    assert [sample.image_id for sample in data.samples] == [6] and data.table.image_ids == (6,)
    assert data.report.images_left_out == {5: "bad_box"}
    assert data.report.lines()[-1] == "images left out: 1 (1 for bad box)"
    assert read_table(tmp_path, on_bad="skip").image_ids == (6,)


def test_two_files_under_one_id_are_both_left_out(tmp_path: Path) -> None:
    rows = content()
    rows["images"].append({"id": 5, "file_name": "6.png", "width": 40, "height": 30})
    data = read_coco(write(tmp_path, rows), on_bad="skip")
    assert [sample.image_id for sample in data.samples] == [6]
    assert data.report.skipped == {"duplicate_image_id": 1}  # the boxes that went with it are not counted one by one


def test_a_box_of_no_image_costs_no_image(tmp_path: Path) -> None:
    rows = content()
    rows["annotations"][1]["image_id"] = 9
    data = read_coco(write(tmp_path, rows), on_bad="skip")
    assert len(data.samples) == 2 and data.report.images_left_out == {}


def test_when_nothing_is_left_it_says_why(tmp_path: Path) -> None:
    rows = content()
    for row in rows["images"]:
        row["file_name"] = "gone.png"
    with pytest.raises(DataError, match="no image is left of 2: skipped 2 missing image"):
        read_coco(write(tmp_path, rows), on_bad="skip")


# Rows that are put right, and counted

ADJUSTED: list[tuple[Callable[[Rows], None], str, list[float] | None]] = [
    (annotation(bbox=[-5, 20, 20, 20]), "boxes_clipped", [0, 20, 15, 30]),
    (annotation(bbox=[30, -1, 20, 5]), "boxes_clipped", [30, 0, 40, 4]),
    (annotation(bbox=[50, 5, 20, 5]), "empty_boxes_left_out", None),  # wholly outside
    (annotation(bbox=[5, 5, 0, 5]), "empty_boxes_left_out", None),
    (annotation(iscrowd=1), "crowd_regions_left_out", None),
    (annotation(id=1), "duplicate_annotation_ids", [0.5, 0, 20.5, 5.5]),
    (annotation(area=None), "areas_computed", [0.5, 0, 20.5, 5.5]),
    (lambda rows: rows["annotations"][1].pop("area"), "areas_computed", [0.5, 0, 20.5, 5.5]),
]


@pytest.mark.parametrize(("change", "reason", "expected"), ADJUSTED)
def test_what_is_put_right_is_counted(
    tmp_path: Path, change: Callable[[Rows], None], reason: str, expected: list[float] | None
) -> None:
    rows = content()
    change(rows)
    data = read_coco(write(tmp_path, rows))
    assert data.report.adjusted == {reason: 1} and data.report.skipped == {}
    boxes = data.samples[0].truth.xyxy.tolist()
    assert boxes == [[1, 2, 11, 12], *([expected] if expected else [])]
    assert len(data.table.xywh) == 3  # the table keeps every row as it stands


def test_missing_iscrowd_and_annotation_ids_are_no_matter(tmp_path: Path) -> None:
    rows = content()
    for row in rows["annotations"]:
        del row["iscrowd"], row["id"]
    assert read_coco(write(tmp_path, rows)).report.adjusted == {}


def test_sizes_that_are_not_given_are_read_from_the_image(tmp_path: Path) -> None:
    rows = content()
    for row in rows["images"]:
        del row["width"], row["height"]
    data = read_coco(write(tmp_path, rows))
    assert data.samples[1].size_wh == (40, 30) and data.report.adjusted == {"images_without_size": 2}
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (30, 40)).save(tmp_path / "5.png", exif=exif)
    assert read_coco(tmp_path).samples[0].load_image().size == (40, 30)  # upright
    (tmp_path / "5.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no width and height in the file, and .*5\.png: cannot read"):
        read_coco(tmp_path)


def test_a_corrupt_image_and_one_of_another_size_are_named_when_loaded(tmp_path: Path) -> None:
    data = read_coco(write(tmp_path, content()))
    (tmp_path / "5.png").write_bytes((tmp_path / "5.png").read_bytes()[:60])
    Image.new("RGB", (41, 30)).save(tmp_path / "6.png")
    with pytest.raises(DataError, match=r"5\.png: cannot read this image"):
        data.samples[0].load_image()
    with pytest.raises(DataError, match=r"6\.png: the annotations say 40x30 pixels, but the file has 41x30"):
        data.samples[1].load_image()


def test_roboflows_superclass_is_no_category(tmp_path: Path) -> None:
    rows = content()
    names = {0: "pet", 1: "cat", 2: "dog"}
    rows["categories"] = [{"id": i, "name": n, "supercategory": "pet" if i else "none"} for i, n in names.items()]
    data = read_coco(write(tmp_path, rows))
    assert data.samples[0].query.categories == ("cat", "dog")
    assert data.report.adjusted == {"superclasses_left_out": 1}


def test_a_superclass_of_the_same_name_and_id_0_does_no_harm(tmp_path: Path) -> None:
    rows = content()
    rows["categories"] = [
        {"id": i, "name": n, "supercategory": s} for i, n, s in [(0, "a", "none"), (1, "a", "a"), (2, "b", "a")]
    ]
    assert read_coco(write(tmp_path, rows)).samples[0].query.categories == ("a", "b")


@pytest.mark.parametrize("rename", [str, float, lambda i: f"img{i}"], ids=["digits", "whole floats", "names"])
def test_image_ids_may_be_strings(tmp_path: Path, rename: Callable[[int], Any]) -> None:
    rows = content()
    for row in rows["images"]:
        row["id"] = rename(row["id"])
    for row in rows["annotations"]:
        row["image_id"] = rename(row["image_id"])
    data = read_coco(write(tmp_path, rows))
    assert [len(sample.truth) for sample in data.samples] == [2, 1]


@given(st.text(max_size=12, alphabet="ab./\\:C\0~"))
def test_a_safe_name_stays_below_its_folder(name: str) -> None:
    if is_safe_name(name):
        inside = Path("/data/images").joinpath(*name.replace("\\", "/").split("/"))
        assert str(inside).startswith("/data/images") and ".." not in inside.parts


# Tables and queries


def test_a_table_of_samples_says_what_the_file_says() -> None:
    data = read_coco(data_path("bccd"), split="test")
    table = table_of(data.samples)
    assert table.categories == data.table.categories and table.image_ids == data.table.image_ids
    np.testing.assert_allclose(table.xywh, data.table.xywh, atol=1e-9)
    np.testing.assert_array_equal(table.category, data.table.category)


def test_a_table_can_take_images_twice(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, content())).take([1, 0, 0])
    assert table.image_ids == (6, 5, 5)
    assert table.image.tolist() == [0, 1, 1, 2, 2] and table.category.tolist() == [0, 0, 1, 0, 1]


def test_one_category_each(tmp_path: Path) -> None:
    data: BoxDataset = read_coco(write(tmp_path, content()))
    everything = one_category_each(data.samples)
    assert [(s.id, s.query.categories, len(s.truth)) for s in everything] == [
        ("5:dog", ("dog",), 1),
        ("5:cat", ("cat",), 1),
        ("6:dog", ("dog",), 1),
        ("6:cat", ("cat",), 0),
    ]


def test_bccd_is_whole() -> None:
    sizes = {split: read_source("bccd", split=split) for split in ("train", "valid", "test")}
    assert {split: len(samples) for split, samples in sizes.items()} == {"train": 205, "valid": 87, "test": 72}
    assert sum(len(sample.truth) for samples in sizes.values() for sample in samples) == 4886
