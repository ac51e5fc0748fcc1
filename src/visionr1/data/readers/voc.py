"""Pascal VOC: one XML file an image (`Annotations/`), lists of names by split (`ImageSets/Main/`), `JPEGImages/`.

Traps: pixels count from 1 and both ends belong to the box, so [xmin, ymin, xmax, ymax] is xyxy [xmin - 1, ymin - 1,
xmax, ymax]. `difficult` objects, which VOC's own metric ignores, are objects like others here, counted in the report. A
file with a DOCTYPE, which no annotation needs and which can swell without bound, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from visionr1.boxes import xyxy_to_xywh
from visionr1.data.dataset import BoxDataset, dataset_from_table
from visionr1.data.readers.base import CHOOSE_SPLIT, Reader
from visionr1.data.row_log import OnBad, RowLog, is_safe_name
from visionr1.data.table import BoxTable, map_positions
from visionr1.errors import DataError
from visionr1.files import read_text
from visionr1.samples import Size

CATEGORIES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor".split()
)
"""The categories of Pascal VOC, in its order; a set in this layout with other names has its own, sorted."""
MAX_CHARACTERS = 1 << 20
_SPLITS = {"valid": "val", "validation": "val"}


class _Annotation(NamedTuple):
    """One XML file: the image's file name ("" if not given), its size ((0, 0) if not given), its labelled boxes."""

    file_name: str
    size_wh: Size
    labels: list[str]
    xyxy: list[list[float]]


def sniff(path: Path) -> bool:
    """Return True for a folder that is laid out as one year of VOC."""
    return (path / "Annotations").is_dir()


def read_voc(path: Path, *, split: str | None = None, on_bad: OnBad = "raise") -> BoxDataset:
    """Read a split of a VOC folder, or all its annotations; DataError for what is missing, and bad rows as `on_bad`."""
    log = RowLog(path, on_bad)
    annotations: dict[str, _Annotation] = {}
    for stem in _read_stems(path, split):
        if not is_safe_name(stem):
            log.bad("unsafe_name", repr(stem), "expected the name of a file in Annotations")
        elif annotation := _read_file(path / "Annotations" / f"{stem}.xml", log):
            annotations[stem] = annotation
    if not annotations:
        reasons = "; ".join(log.report().lines())
        raise DataError(f"{path}: no usable annotation; {reasons or 'it has none'}")

    table = _build_table(path, annotations, log)
    return dataset_from_table(table, log, path / "JPEGImages")


def _build_table(folder: Path, annotations: Mapping[str, _Annotation], log: RowLog) -> BoxTable:
    """Return the table of annotations by the stem of their files, in their order."""
    file_names, sizes_wh, boxes_per_image = [], [], []
    labels: list[str] = []
    boxes: list[list[float]] = []
    for stem, annotation in annotations.items():
        file_names.append(annotation.file_name or f"{stem}.jpg")
        sizes_wh.append(annotation.size_wh)
        boxes_per_image.append(len(annotation.labels))
        labels += annotation.labels
        boxes += annotation.xyxy

    # VOC's own order, also of categories that have no box here.
    names = CATEGORIES
    if not set(labels) <= set(CATEGORIES):
        names = tuple(sorted(set(labels)))
    positions = map_positions(names)

    xywh = xyxy_to_xywh(np.array(boxes, dtype=np.float64).reshape(-1, 4))
    return BoxTable(
        path=folder,
        image_ids=tuple(annotations),
        file_names=tuple(file_names),
        sizes_wh=np.array(sizes_wh, dtype=np.int64).reshape(-1, 2),
        category_ids=tuple(range(1, len(names) + 1)),
        categories=names,
        image=np.repeat(np.arange(len(annotations)), boxes_per_image),
        category=np.array([positions[label] for label in labels], dtype=np.intp),
        xywh=xywh,
        area=xywh[:, 2] * xywh[:, 3],
        iscrowd=np.zeros(len(xywh), dtype=bool),
        report=log.report(),
    )


def _read_stems(folder: Path, split: str | None) -> list[str]:
    """Return the stems of the files in a split's list; without a split, of all files. DataError without a list."""
    if split is None:
        return _list_stems(folder / "Annotations", "*.xml")

    lists = folder / "ImageSets" / "Main"
    file = lists / f"{_SPLITS.get(split, split)}.txt"
    if not is_safe_name(file.name) or not file.is_file():
        splits = ", ".join(_list_stems(lists, "*.txt")[:9]) or "no list"
        raise DataError(f"{folder}: expected split {split!r} in ImageSets/Main, found {splits}; {CHOOSE_SPLIT}")

    # Lists by category have a flag after the stem, which says nothing here.
    stems = []
    for line in read_text(file).splitlines():
        if line.strip():
            stems.append(line.split()[0])
    return stems


def _list_stems(folder: Path, pattern: str) -> list[str]:
    return sorted(path.stem for path in folder.glob(pattern))


def _read_file(path: Path, log: RowLog) -> _Annotation | None:
    """Read one annotation; None, logged, if it cannot be read."""
    labels: list[str] = []
    boxes: list[list[float]] = []
    try:
        root = _parse(path)
        width = _read_number(root, "size/width", 0)
        height = _read_number(root, "size/height", 0)
        for index, element in enumerate(root.findall("object")):
            where = f"{path.name}: object {index}"
            label = (element.findtext("name") or "").strip()
            sides = [_read_number(element, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
            xmin, ymin, xmax, ymax = sides
            if not label or xmax < xmin or ymax < ymin:
                expected = "expected a name and xmin <= xmax, ymin <= ymax"
                log.bad("bad_object", where, f"{expected}, found {label!r} {sides}")
                continue
            if (element.findtext("difficult") or "").strip() == "1":
                log.adjust("difficult_objects_kept", where, "difficult is 1")

            # Pixels count from 1 and both ends belong to the box.
            labels.append(label)
            boxes.append([xmin - 1, ymin - 1, xmax, ymax])
    except DataError as error:
        log.bad("bad_file", path.name, str(error))
        return None

    file_name = (root.findtext("filename") or "").strip()
    return _Annotation(file_name, (int(width), int(height)), labels, boxes)


def _parse(path: Path) -> ElementTree.Element:
    """Return the root of an annotation; DataError if it is too long, has a DOCTYPE or is not XML."""
    text = read_text(path).removeprefix("\ufeff")
    if len(text) > MAX_CHARACTERS or "<!DOCTYPE" in text or "<!ENTITY" in text:
        expected = f"a plain annotation below {MAX_CHARACTERS} characters, without a DOCTYPE"
        raise DataError(f"{path}: expected {expected}")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is not XML: {error}") from error


def _read_number(element: ElementTree.Element, tag: str, default: float | None = None) -> float:
    """Return the number in a tag, `default` if there is no such tag; DataError if it is no number."""
    text = element.findtext(tag)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")

    # Written so that not-a-number is refused too.
    if not abs(value) < 1e9:
        raise DataError(f"{tag}: expected a number, found {text!r:.40}")
    return value


READER = Reader(name="voc", description="a folder of Pascal VOC (Annotations/)", sniff=sniff, read=read_voc)
