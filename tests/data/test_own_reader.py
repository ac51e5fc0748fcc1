"""Readers: which one takes a data set, and one from a file outside the package, that docs/extending.md shows."""

from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from support.extending import guide_file, yolo_folder
from visionr1 import cli
from visionr1.data import READERS, data_path, find_splits, read_dataset, resolve_reader, truth_table
from visionr1.data.readers import find_reader
from visionr1.errors import DataError, RecipeError


def test_a_reader_from_a_file_reads(tmp_path: Path) -> None:
    reader = resolve_reader(f"{guide_file('A reader', tmp_path)}:READER")
    data = yolo_folder(tmp_path / "set")
    dataset = read_dataset(data, reader=reader)
    first, second = dataset.samples
    assert first.query.categories == ("cat", "dog") and first.truth.labels == ("dog", "cat")
    np.testing.assert_allclose(first.truth.xyxy, [[30, 20, 70, 30], [0, 0, 20, 10]])
    assert len(second.truth) == 0
    assert dataset.table.path == data and dataset.table.image_ids == ("a", "b")
    assert truth_table(data, reader=reader).categories == dataset.table.categories
    assert find_splits(data, reader) == ()


def test_its_bad_rows_are_errors_or_counted(tmp_path: Path) -> None:
    reader = resolve_reader(f"{guide_file('A reader', tmp_path)}:READER")
    data = yolo_folder(tmp_path / "set", "1 .5 .5 .4\n7 .5 .5 .4 .2\n0 .1 .1 .2 .2\n")
    with pytest.raises(DataError, match=r"a: expected class cx cy width height, found '1 \.5 \.5 \.4'"):
        read_dataset(data, reader=reader)
    dataset = read_dataset(data, reader=reader, on_bad="skip")
    assert dataset.report.skipped == {"bad_line": 2}
    assert [sample.id for sample in dataset.samples] == ["b"]  # not a with one of its three boxes
    assert truth_table(data, reader=reader, on_bad="skip").report.images_left_out == {"a": "bad_line"}


def test_data_check_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{guide_file('A reader', tmp_path)}:READER"
    assert cli.main(["data", "check", str(yolo_folder(tmp_path / "set")), "--reader", name]) == 0
    assert "2 images, 1 of them without boxes; 2 boxes" in capsys.readouterr().out


def test_an_installed_reader_recognizes_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = resolve_reader(f"{guide_file('A reader', tmp_path)}:READER")
    (tmp_path / "installed_reader.py").write_text((tmp_path / "a_reader.py").read_text())
    monkeypatch.syspath_prepend(tmp_path)
    point = metadata.EntryPoint("yolo", "installed_reader:READER", "visionr1.reader")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point] if group == "visionr1.reader" else [])
    monkeypatch.setattr(READERS, "_loaders", None)
    data = yolo_folder(tmp_path / "set")
    assert find_reader(data).name == reader.name == "yolo"
    assert len(read_dataset(data).samples) == 2


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda folder: data_path("bccd"), "coco"),  # a folder of splits
        (lambda folder: folder / "nothing", "coco"),  # its error says what is expected
        (lambda folder: folder / "rows.jsonl", "vlm_r1"),
        (lambda folder: folder / "instances.json", "coco"),
    ],
)
def test_which_reader_takes_a_data_set(tmp_path: Path, make: object, name: str) -> None:
    assert find_reader(make(tmp_path)).name == name  # type: ignore[operator]


def test_voc_comes_before_coco(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "annotations.json").write_text("{}")
    assert find_reader(tmp_path).name == "voc"


def test_what_is_no_reader_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"is no reader: expected a visionr1\.data\.Reader"):
        resolve_reader("collections:OrderedDict")
    with pytest.raises(RecipeError, match="unknown reader 'vok'; did you mean 'voc'"):
        resolve_reader("vok")
