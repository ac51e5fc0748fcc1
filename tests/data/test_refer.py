"""RefCOCO's family in its authors' layout and in the variants in use: the same samples, whatever the file."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.benchmark_trees import (
    BOXES,
    GREFS,
    REFS,
    SIZE,
    TRAIN2014,
    image_bytes,
    image_row,
    instances,
    ref,
    write_grefcoco,
    write_images,
    write_json,
    write_lines,
    write_pickle,
    write_refcoco,
)
from visionr1.data.readers.refer import read_refer
from visionr1.errors import DataError
from visionr1.samples import Query


def xyxy(ann_id: int) -> list[float]:
    x, y, width, height = BOXES[ann_id]
    return [x, y, x + width, y + height]


def test_one_sample_a_sentence_with_the_image_of_its_image_id(tmp_path: Path) -> None:
    found, missing = read_refer(write_refcoco(tmp_path), "refcoco")
    assert list(found) == ["val", "testA"] and missing == ("testB",)
    assert [(s.id, s.query, s.image_id) for s in found["val"].samples] == [
        ("100", Query("referring", ("left man",)), 1),
        ("101", Query("referring", ("man in red",)), 1),
        ("103", Query("referring", ("the bus",)), 2),
    ]
    first = found["val"].samples[0]
    assert first.truth.xyxy.tolist() == [xyxy(11)] and first.truth.labels == ("left man",)  # xywh became xyxy
    assert first.image == tmp_path / "images/mscoco/images/train2014" / TRAIN2014.format(1)
    assert first.load_image().size == SIZE


@pytest.mark.parametrize("where", [".", "refcoco", "refcoco/refs(unc).p"])
def test_data_may_be_the_folder_above_the_folder_or_the_file(tmp_path: Path, where: str) -> None:
    write_refcoco(tmp_path)
    found, missing = read_refer(tmp_path / where, "refcoco", "testA")
    assert [sample.id for sample in found["testA"].samples] == ["102"] and missing == ()


def test_umd_comes_before_google_and_google_can_be_asked_for(tmp_path: Path) -> None:
    write_refcoco(tmp_path, "refcocog", by="google")
    assert list(read_refer(tmp_path, "refcocog")[0]) == ["google_val"]  # never under the name of UMD's
    write_refcoco(tmp_path, "refcocog", [ref(0, 11, "val", (1, "a")), ref(1, 12, "test", (2, "b"))], by="umd")
    assert list(read_refer(tmp_path, "refcocog")[0]) == ["val", "test"]
    google = read_refer(tmp_path, "refcocog", "google_val")[0]["google_val"]
    assert google.samples[0].id == "100"


def test_grefcoco_names_several_objects_or_none(tmp_path: Path) -> None:
    found, missing = read_refer(write_grefcoco(tmp_path), "grefcoco")
    assert missing == ("testA", "testB")
    assert [sample.truth.xyxy.tolist() for sample in found["val"].samples] == [[xyxy(11), xyxy(12)], [], [xyxy(21)]]


def test_without_images_nothing_is_opened(tmp_path: Path) -> None:
    write_json(tmp_path / "refcoco/instances.json", instances())
    write_pickle(tmp_path / "refcoco/refs(unc).p", REFS)
    found, _ = read_refer(tmp_path, "refcoco", "val", with_images=False)
    assert [sample.size_wh for sample in found["val"].samples] == [SIZE] * 3
    with pytest.raises(
        DataError, match=r"refs\[0\] \(ref_id 0\): image: expected COCO_train2014_0+1\.jpg in .*images/mscoco"
    ):
        read_refer(tmp_path, "refcoco", "val")


# The variants


def shikra(root: Path) -> Path:
    rows = [
        {"img_path": TRAIN2014.format(i), "expression": e, "bbox": xyxy(a), "width": SIZE[0], "height": SIZE[1]}
        for i, e, a in [(1, "left man", 11), (2, "the bus", 21)]
    ]
    return write_lines(root / "REC_refcoco+_unc_val.jsonl", rows)


def vlm_r1(root: Path) -> Path:
    rows = [
        {"image": f"train2014/{TRAIN2014.format(i)}", "normal_caption": e, "solution": xyxy(a), "problem": "..."}
        for i, e, a in [(1, "left man", 11), (2, "the bus", 21)]
    ]
    return write_json(root / "refcocop_val.json", rows)


def mdetr(root: Path) -> Path:
    content = {
        "images": [
            image_row(n, TRAIN2014.format(i), caption=e, original_id=i)
            for n, (i, e) in enumerate([(1, "left man"), (2, "the bus")])
        ],
        "annotations": [{"id": n, "image_id": n, "bbox": BOXES[a], "empty": False} for n, a in enumerate((11, 21))],
    }
    return write_json(root / "finetune_refcoco+_val.json", content)


def parquet(root: Path) -> Path:
    pyarrow, tables = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    rows = [
        {
            "question_id": str(n),
            "image": {"bytes": image_bytes(), "path": None},
            "question": "Please describe",
            "answer": [e],
            "bbox": [float(side) for side in BOXES[a]],
            "file_name": f"COCO_train2014_{i:012d}_{n}.jpg",
            "iscrowd": 0,
        }
        for n, (i, e, a) in enumerate([(1, "left man", 11), (2, "the bus", 21)])
    ]
    path = root / "data/val-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    tables.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("write", [shikra, vlm_r1, mdetr, parquet])
@pytest.mark.parametrize("as_file", [False, True])
def test_variants_hold_the_same_samples(tmp_path: Path, write: Callable[[Path], Path], as_file: bool) -> None:
    file = write(tmp_path / "annotations")
    write_images(tmp_path / "annotations/train2014", (TRAIN2014.format(i) for i in (1, 2)))
    found, missing = read_refer(file if as_file else tmp_path / "annotations", "refcoco+", "val")
    assert missing == () and list(found) == ["val"]
    samples = found["val"].samples
    assert [sample.query.categories for sample in samples] == [("left man",), ("the bus",)]
    assert [sample.truth.xyxy.tolist() for sample in samples] == [[xyxy(11)], [xyxy(21)]]
    assert [sample.size_wh for sample in samples] == [SIZE, SIZE]
    assert all(sample.load_image().size == SIZE for sample in samples)
    if write in (mdetr, parquet):
        assert [sample.image_id for sample in samples] == [1, 2]  # COCO's, so that one image is one image


def test_each_answer_of_a_parquet_row_is_a_sample(tmp_path: Path) -> None:
    pyarrow, tables = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    row = {"question_id": "7", "answer": ["a", "b"], "bbox": [1.0, 2, 3, 4], "file_name": "x.jpg"}
    table = pyarrow.Table.from_pylist([{**row, "image": {"bytes": image_bytes()}}])
    tables.write_table(table, tmp_path / "val.parquet")
    found, _ = read_refer(tmp_path, "refcoco", "val", with_images=False)
    assert [sample.id for sample in found["val"].samples] == ["7/0", "7/1"]
    assert all(not isinstance(sample.image, bytes) for sample in found["val"].samples)  # not kept where not asked for
    tables.write_table(table.drop_columns(["bbox"]), tmp_path / "val.parquet")
    with pytest.raises(DataError, match="expected the columns bbox, found only question_id"):
        read_refer(tmp_path, "refcoco", "val")
    (tmp_path / "val.parquet").write_bytes(b"PAR1nonsense")
    with pytest.raises(DataError, match=r"cannot read this parquet file"):
        read_refer(tmp_path, "refcoco", "val")


# What is refused


def test_a_folder_without_it_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no refcoco val or testA or testB; expected refcoco/refs\(unc\)\.p with .*jsonl"
    ):
        read_refer(tmp_path, "refcoco")
    write_pickle(tmp_path / "refcoco/refs(unc).p", REFS)
    with pytest.raises(DataError, match=r"instances\.json: no such file; the refs beside it"):
        read_refer(tmp_path, "refcoco")
    write_json(tmp_path / "refcoco/instances.json", [1])
    with pytest.raises(DataError, match=r"instances\.json: images: expected a list"):
        read_refer(tmp_path, "refcoco")
    write_pickle(tmp_path / "refcoco/refs(unc).p", {"not": "a list"})
    with pytest.raises(DataError, match=r"refs\(unc\)\.p: expected a list of refs"):
        read_refer(tmp_path, "refcoco")


def test_refs_that_would_run_are_refused(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/ran",)

    write_refcoco(tmp_path, refs=[Runs()])
    with pytest.raises(DataError, match=r"refs\(unc\)\.p: this pickle asks for (posix|nt)\.system"):
        read_refer(tmp_path, "refcoco")
    assert not (tmp_path / "ran").exists()


def image_name(name: str) -> Callable[[Any, Any], None]:
    return lambda refs, known: known["images"][0].update(file_name=name)


def first(**change: Any) -> Callable[[Any, Any], None]:
    return lambda refs, known: refs[0].update(change)


BAD: list[tuple[Callable[[Any, Any], None], str, str]] = [
    (first(image_id=9), "unknown_image_id", r"refs\[0\] \(ref_id 0\): image_id: expected an image of .*found 9"),
    (first(ann_id=9), "unknown_ann_id", "ann_id: expected one of .*instances.json, found 9"),
    (first(sentences="left man"), "bad_sentences", "sentences: expected a list"),
    (first(sentences=[{"sent_id": 1, "sent": " "}]), "rows_without_expression", "expected an expression, found ' '"),
    (first(sentences=[{"sent_id": 103, "sent": "x"}]), "duplicate_ids", "found '103' again"),
    (lambda refs, known: known["annotations"][0].update(bbox=[1, 2, 3]), "bad_box", "expected four"),
    (lambda refs, known: known["annotations"][0].update(bbox=[1, 2, -3, 4]), "bad_box", "x1 <= x2"),
    (image_name("../1.jpg"), "unsafe_file_name", r"expected a path below its folder, found '\.\./1\.jpg'"),
    (image_name("/etc/passwd"), "unsafe_file_name", "below its folder"),
    (image_name("gone.jpg"), "missing_image", "found no such file"),
]


@pytest.mark.parametrize(("spoil", "reason", "message"), BAD)
def test_a_bad_row_is_an_error_or_skipped_with_a_count(
    tmp_path: Path, spoil: Callable[[Any, Any], None], reason: str, message: str
) -> None:
    refs, known = copy.deepcopy(REFS), instances()
    spoil(refs, known)
    write_refcoco(tmp_path, refs=refs)
    write_json(tmp_path / "refcoco/instances.json", known)
    with pytest.raises(DataError, match=message) as raised:
        read_refer(tmp_path, "refcoco", "val")
    assert "refs(unc).p" in str(raised.value)
    found, _ = read_refer(tmp_path, "refcoco", "val", on_bad="skip")
    assert set(found["val"].report.skipped) == {reason} and "103" in [sample.id for sample in found["val"].samples]


def test_a_truth_of_zero_size_stays_and_is_counted(tmp_path: Path) -> None:
    known = instances()
    known["annotations"][0]["bbox"] = [5, 5, 0, 10]
    write_refcoco(tmp_path)
    write_json(tmp_path / "refcoco/instances.json", known)
    found, _ = read_refer(tmp_path, "refcoco", "val")
    assert len(found["val"].samples) == 3 and found["val"].report.adjusted == {"truths_of_zero_size": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([7], "row 0: expected an object, found 7"),
        ([{"img_path": "a.jpg", "expression": "x", "bbox": [3, 3, 1, 1]}], "x1 <= x2"),
        ([{"img_path": "../a.jpg", "expression": "x", "bbox": [1, 1, 3, 3]}], "below its folder"),
        ([{"image": "a.jpg", "normal_caption": "x", "solution": "none"}], "expected four finite numbers, found 'none'"),
        ({"images": [{"file_name": "a.jpg"}], "annotations": []}, r"images\[0\]: id"),
        ({"rows": []}, "expected a list of rows, or an object with images; found a dict"),
        ([], "no usable row; it has none"),
    ],
)
def test_bad_rows_of_variants_are_named(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "refcoco_val.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_refer(tmp_path, "refcoco", "val", with_images=False)


def test_grefs_are_the_same_as_a_pickle(tmp_path: Path) -> None:
    write_grefcoco(tmp_path)
    as_json = read_refer(tmp_path, "grefcoco", "val")[0]["val"].samples
    (tmp_path / "grefcoco/grefs(unc).json").unlink()
    write_pickle(tmp_path / "grefcoco/grefs(unc).p", GREFS)
    assert read_refer(tmp_path, "grefcoco", "val")[0]["val"].samples == as_json
