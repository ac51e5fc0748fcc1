"""Attacks on COCO files and their tables: size, depth, names."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from visionr1 import cli
from visionr1.data.table import BoxTable

# B4: for each image all boxes were searched (40,000 images 8.7 s, V3Det minutes).


def make_table(image: list[int], num_images: int) -> BoxTable:
    """Return a table with an annotation for each entry of `image`, the position of its image."""
    count = len(image)
    return BoxTable(
        path=Path("test"),
        image_ids=tuple(range(num_images)),
        file_names=("",) * num_images,
        sizes_wh=np.zeros((num_images, 2), dtype=np.int64),
        category_ids=(1,),
        categories=("cat",),
        image=np.array(image, dtype=np.intp),
        category=np.zeros(count, dtype=np.intp),
        xywh=np.arange(4 * count, dtype=np.float64).reshape(-1, 4),
        area=np.arange(count, dtype=np.float64),
        iscrowd=np.zeros(count, dtype=bool),
    )


def test_taking_images_is_not_quadratic() -> None:
    """400,000 images with 7 boxes each; the search took a quarter of an hour for these."""
    num_images = 400_000
    table = make_table(np.random.default_rng(0).integers(0, num_images, 7 * num_images).tolist(), num_images)
    taken = table.take(range(num_images))
    assert len(taken) == num_images and (np.diff(taken.image) >= 0).all()


@given(st.lists(st.integers(0, 5), max_size=20), st.lists(st.integers(0, 5), max_size=12))
def test_taking_images_keeps_boxes_in_file_order(image: list[int], taken_images: list[int]) -> None:
    table = make_table(image, 6)
    taken = table.take(taken_images)
    rows = [row for position in taken_images for row, owner in enumerate(image) if owner == position]
    assert taken.area.tolist() == rows
    assert taken.image_ids == tuple(taken_images)
    owners = [place for place, position in enumerate(taken_images) for owner in image if owner == position]
    assert taken.image.tolist() == owners


# B1: a file at fault was a traceback; B2 and B3: names reached the terminal as they are.


@pytest.mark.parametrize("depth", [100, 1000, 200_000])
def test_deep_nesting_is_an_error_that_names_the_file(
    tmp_path: Path, depth: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"images": [{"id": 1, "x": ' + depth * "[" + depth * "]" + "}]}")
    assert cli.main(["data", "check", str(file)]) == 2
    assert "a.json" in capsys.readouterr().err


def test_names_with_escape_sequences_reach_the_terminal_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "\x1b[31mcat\x9b\u202e\x07"
    Image.new("RGB", (100, 80)).save(tmp_path / "1.png")
    for file_name in ("1.png", f"{name}.png"):
        rows = {
            "images": [{"id": name, "file_name": file_name, "width": 100, "height": 80}],
            "categories": [{"id": 1, "name": name}],
            "annotations": 2 * [{"image_id": name, "category_id": 1, "bbox": [0.1, 0.1, 0.2, 0.2], "area": -1}],
        }
        (tmp_path / "annotations.json").write_text(json.dumps(rows))
        assert cli.main(["data", "check", str(tmp_path)]) == 2
        printed = capsys.readouterr()
        assert not {"\x1b", "\x9b", "\u202e", "\x07"} & set(printed.out + printed.err)
        assert r"\x1b[31mcat" in printed.out + printed.err


# C1: a file name over 255 bytes ended the reading; C12: links are followed (tests/data/test_image_lookup.py)


@pytest.mark.parametrize("name", ["x" * 300, "é" * 200, "a/" * 3000 + "x.png", "x" * 5000])
def test_a_name_that_is_too_long_is_a_bad_row(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (100, 80)).save(tmp_path / "1.png")
    rows = {
        "images": [
            {"id": number, "file_name": file_name, "width": 100, "height": 80}
            for number, file_name in enumerate(("1.png", name))
        ],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 0, "category_id": 1, "bbox": [1, 1, 20, 20]}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(rows))
    assert cli.main(["data", "check", str(tmp_path)]) == 2
    assert "images[1] (id 1): file_name" in capsys.readouterr().err
    assert cli.main(["data", "check", str(tmp_path), "--on-bad", "skip"]) == 0
    assert "images left out: 1 (1 for missing image)" in capsys.readouterr().out
