"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO, in their authors' files and in the variants that are in use.

A split comes from the first of these that lies in the folder `NAME/` below the data folder, or in the data folder:

- `refs(unc).p`, `refs(umd).p` or `refs(google).p` with `instances.json` (lichengunc/refer); gRefCOCO's
  `grefs(unc).json` or `.p` with `instances.json` (henghuiding/gRefCOCO). One sample for each sentence (`sent`), its id
  the `sent_id`. The image is that of `image_id`: a ref's own `file_name` carries the annotation id and names no file.
- `REC_NAME_unc_SPLIT.jsonl` of Shikra and Griffon, `NAME_SPLIT.json(l)` of VLM-R1, `finetune_NAME_SPLIT.json` of MDETR,
  `SPLIT*.parquet` of lmms-lab: see `grounding_files`.

Boxes are xywh in instances.json, in MDETR's files and in parquet, and xyxy in the others; samples hold xyxy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from visionr1.boxes import is_box, xywh_to_xyxy
from visionr1.data.grounding import GroundingDataset, GroundingRows
from visionr1.data.ids import Id, IdIndex, read_id
from visionr1.data.pickles import read_pickle
from visionr1.data.readers.grounding_files import read_grounding_file
from visionr1.data.row_log import OnBad, RowLog, first_file, get_field, is_object_list
from visionr1.errors import DataError, short_repr
from visionr1.files import read_json

SPLITS: Mapping[str, tuple[str, ...]] = {
    "refcoco": ("val", "testA", "testB"),
    "refcoco+": ("val", "testA", "testB"),
    "refcocog": ("val", "test"),
    "grefcoco": ("val", "testA", "testB"),
}
"""The splits that papers report, of RefCOCOg those of UMD."""

_SPELLINGS = {"refcoco+": ("refcoco+", "refcocop", "refcocoplus")}
_REFS = {
    "refcoco": ("refs(unc).p", "refs(google).p"),
    "refcoco+": ("refs(unc).p",),
    "refcocog": ("refs(umd).p", "refs(google).p"),
    "grefcoco": ("grefs(unc).json", "grefs(unc).p"),
}


class _ReadOptions(TypedDict):
    """How files are read: see `GroundingRows`."""

    with_images: bool
    on_bad: OnBad


def read_refer(
    data: Path, name: str, split: str | None = None, *, with_images: bool = True, on_bad: OnBad = "raise"
) -> tuple[dict[str, GroundingDataset], tuple[str, ...]]:
    """Return the splits of one of these benchmarks by name, and the names of those that are missing.

    `split` is one of them, of Google's partition `google_val`; without it all that papers report are read. `data` is a
    folder, or one of the files above. Raises DataError, saying what was expected where, if there is none of them.
    """
    wanted = (split,) if split else SPLITS[name]
    options: _ReadOptions = {"with_images": with_images, "on_bad": on_bad}
    if not data.is_file():
        datasets = _read_folder(data, name, wanted, **options)
    elif data.suffix == ".p" or data.name.startswith("grefs("):
        datasets = _read_splits(data, wanted, **options)
    else:
        datasets = {split or data.stem: read_grounding_file(data, **options)}
        wanted = tuple(datasets)

    if not datasets:
        row_files = ", ".join(_list_row_files(name, wanted[0]))
        raise DataError(
            f"{data}: no {name} {' or '.join(wanted)}; expected {name}/{_REFS[name][0]} with {name}/instances.json, or "
            f"one of {row_files}, in this folder"
        )

    # Google's partition counts where its refs are all there is.
    missing = []
    for split_name in wanted:
        if split_name not in datasets and f"google_{split_name}" not in datasets:
            missing.append(split_name)
    return datasets, tuple(missing)


def _read_folder(
    data: Path, name: str, wanted: Sequence[str], *, with_images: bool, on_bad: OnBad
) -> dict[str, GroundingDataset]:
    """Read the wanted splits from the first folder that has one: refs before files of rows."""
    options: _ReadOptions = {"with_images": with_images, "on_bad": on_bad}
    is_google = wanted[0].startswith("google_")
    folders = [data / spelling for spelling in _SPELLINGS.get(name, (name,))]
    for folder in [*folders, data]:
        # Splits of Google's partition are in its own refs alone.
        refs = []
        for file_name in _REFS[name]:
            if not is_google or "google" in file_name:
                refs.append(folder / file_name)
        refs_file = first_file(refs)
        if refs_file is not None:
            return _read_splits(refs_file, wanted, **options)

        datasets = {}
        for split in wanted:
            if file := _find_first(folder, _list_row_files(name, split)):
                datasets[split] = read_grounding_file(file, **options)
        if datasets:
            return datasets
    return {}


def _list_row_files(name: str, split: str) -> list[str]:
    """Return the names that a split has as a file of rows, in the order in which they are looked for."""
    partition = "unc"
    if name == "refcocog":
        partition = "umd"
    stems = [f"{spelling}_{split}" for spelling in _SPELLINGS.get(name, (name,))]
    files = [f"REC_{name}_{partition}_{split}.jsonl"]
    for stem in stems:
        files += [f"{stem}.jsonl", f"{stem}.json"]
    for stem in stems:
        files.append(f"finetune_{stem}.json")
    return [*files, f"{split}*.parquet", f"data/{split}*.parquet"]


def _find_first(folder: Path, patterns: Sequence[str]) -> Path | None:
    """Return the first file that a name or pattern fits; names hold no other special characters."""
    for pattern in patterns:
        # The rest of a parquet file's name counts its shards, and differs from set to set.
        places = [folder / pattern]
        if "*" in pattern:
            places = sorted(folder.glob(pattern))
        file = first_file(places)
        if file is not None:
            return file
    return None


@dataclass(frozen=True, slots=True)
class _Instances:
    """The objects that refs point to: the box xywh of an annotation id, the file name and size of an image id."""

    path: Path
    boxes: Mapping[Id, Any]
    images: Mapping[Id, tuple[object, object, object]]
    annotation_ids: IdIndex
    image_ids: IdIndex


def _read_instances(path: Path) -> _Instances:
    """Read the boxes and images; DataError if the file is missing or no COCO file. Rows without an id are left out."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; the refs beside it give annotation ids, whose boxes are in this one")
    content = read_json(path)
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path}: {key}: expected a list; is this the instances.json of the data set?")

    images, boxes = {}, {}
    for row in content["images"]:
        image_id = read_id(get_field(row, "id"))
        if image_id is not None:
            images[image_id] = (row.get("file_name"), row.get("width"), row.get("height"))
    for row in content["annotations"]:
        annotation_id = read_id(get_field(row, "id"))
        if annotation_id is not None:
            boxes[annotation_id] = row.get("bbox")
    return _Instances(path, boxes, images, IdIndex(boxes), IdIndex(images))


def _read_splits(file: Path, wanted: Sequence[str], *, with_images: bool, on_bad: OnBad) -> dict[str, GroundingDataset]:
    """Read each wanted split that the refs have; splits of Google's partition are called google_SPLIT."""
    refs = _read_refs(file)
    instances = _read_instances(file.parent / "instances.json")

    # The refs name their splits alike in both partitions.
    rows_of_split: dict[str, GroundingRows] = {}
    for name in wanted:
        split = name.removeprefix("google_")
        for index, ref in enumerate(refs):
            if ref.get("split") != split:
                continue
            if split not in rows_of_split:
                rows_of_split[split] = GroundingRows(file, with_images=with_images, on_bad=on_bad)
            where = f"refs[{index}] (ref_id {short_repr(ref.get('ref_id'))})"
            _add_ref(rows_of_split[split], where, ref, instances)

    prefix = ""
    if "google" in file.name:
        prefix = "google_"
    return {f"{prefix}{split}": rows.dataset() for split, rows in rows_of_split.items()}


def _read_refs(file: Path) -> list[dict[str, Any]]:
    """Return the refs of a file, JSON or a pickle; DataError if it is no list of objects."""
    refs = read_json(file) if file.suffix == ".json" else read_pickle(file)
    if not is_object_list(refs):
        expected = "expected a list of refs, each with image_id, ann_id, split and sentences"
        raise DataError(f"{file}: {expected}")
    return refs


def _add_ref(rows: GroundingRows, where: str, ref: Mapping[str, Any], instances: _Instances) -> None:
    """Add a sample for each sentence of a ref."""
    image_id = instances.image_ids.find(ref.get("image_id"))
    if image_id is None:
        message = f"image_id: expected an image of {instances.path}, found {short_repr(ref.get('image_id'))}"
        rows.log.bad("unknown_image_id", where, message)
        _leave_out_sentences(rows, ref)
        return

    boxes = _find_boxes(ref.get("ann_id"), instances, rows.log, where)
    if boxes is None:
        _leave_out_sentences(rows, ref)
        return
    sentences = ref.get("sentences")
    if not is_object_list(sentences):
        message = f"sentences: expected a list of objects, found {short_repr(sentences)}"
        rows.log.bad("bad_sentences", where, message)
        _leave_out_sentences(rows, ref)
        return

    # Every sentence asks for the same boxes of the same image.
    file_name, width, height = instances.images[image_id]
    for sentence in sentences:
        sentence_id = read_id(sentence.get("sent_id"))
        if sentence_id is None:
            message = f"sent_id: expected a number or a text, found {short_repr(sentence.get('sent_id'))}"
            rows.log.bad("sentences_without_id", where, message)
            continue
        rows.add(
            where,
            identity=str(sentence_id),
            image=file_name,
            image_id=image_id,
            expression=sentence.get("sent"),
            xyxy=boxes,
            size_wh=(width, height),
        )


def _leave_out_sentences(rows: GroundingRows, ref: Mapping[str, Any]) -> None:
    """Keep the ids of a ref's sentences as those of samples that are left out."""
    sentences = ref.get("sentences")
    for sentence in sentences if isinstance(sentences, list) else []:
        sentence_id = read_id(get_field(sentence, "sent_id"))
        if sentence_id is not None:
            rows.log.samples_left_out.add(str(sentence_id))


def _find_boxes(ann_id: object, instances: _Instances, log: RowLog, where: str) -> list[list[float]] | None:
    """Return the boxes xyxy of a ref's annotations; None, logged, if one of them cannot be used."""
    raw_ids = ann_id if isinstance(ann_id, list) else [ann_id]

    # gRefCOCO's ways to say that the sentence means nothing in the image.
    if raw_ids in ([-1], []):
        return []

    xywh = []
    for raw_id in raw_ids:
        annotation_id = instances.annotation_ids.find(raw_id)
        if annotation_id is None:
            message = f"ann_id: expected one of {instances.path}, found {short_repr(raw_id)}"
            log.bad("unknown_ann_id", where, message)
            return None
        box = instances.boxes[annotation_id]
        if not is_box(box):
            annotation = f"annotation {annotation_id} of {instances.path}"
            log.bad("bad_box", where, f"{annotation}: bbox: expected four, found {short_repr(box)}")
            return None
        xywh.append(box)
    boxes: list[list[float]] = xywh_to_xyxy(np.array(xywh, dtype=np.float64)).tolist()
    return boxes
