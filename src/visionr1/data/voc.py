"""Pascal VOC: one XML file an image (`Annotations/`), lists of names by split (`ImageSets/Main/`), `JPEGImages/`.

Traps: pixels count from 1 and both ends belong to the box, so [xmin, ymin, xmax, ymax] is xyxy [xmin - 1, ymin - 1,
xmax, ymax]. `difficult` objects, which VOC's own metric ignores, are objects like others here, counted in the report. A
file with a DOCTYPE, which no annotation needs and which can swell without bound, is refused.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from visionr1.data.coco import CHOOSE_SPLIT, BoxDataset, BoxTable, table_samples
from visionr1.data.row_log import OnBad, RowLog, is_safe_name
from visionr1.errors import DataError
from visionr1.files import read_text

CATEGORIES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor".split()
)
"""Of Pascal VOC, in its order; a set in this layout with other names has those of its own, sorted."""
MAX_CHARACTERS = 1 << 20
_SPLITS = {"valid": "val", "validation": "val"}


def is_voc(path: Path) -> bool:
    """Whether a folder is laid out as one year of VOC."""
    return (path / "Annotations").is_dir()


def read_voc(folder: Path, *, split: str | None = None, on_bad: OnBad = "raise") -> BoxDataset:
    """A split of a VOC folder, or all its annotations; DataError for what is missing, and for bad rows as `on_bad`."""
    log = RowLog(folder, on_bad)
    images: list[tuple[str, str, tuple[int, int]]] = []
    objects: list[tuple[int, str, list[float]]] = []
    for stem in _stems(folder, split):
        if not is_safe_name(stem):
            log.bad("unsafe_name", repr(stem), "expected the name of a file in Annotations")
        elif read := _read_file(folder / "Annotations" / f"{stem}.xml", log):
            name, size, own = read
            objects += [(len(images), *one) for one in own]
            images.append((stem, name or f"{stem}.jpg", size))
    if not images:
        raise DataError(f"{folder}: no usable annotation; {'; '.join(log.report().lines()) or 'it has none'}")
    labels = {label for _, label, _ in objects}
    names = CATEGORIES if labels <= set(CATEGORIES) else tuple(sorted(labels))
    place = {name: index for index, name in enumerate(names)}
    xyxy = np.array([box for _, _, box in objects], dtype=np.float64).reshape(-1, 4)
    xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
    table = BoxTable(
        path=folder,
        image_ids=tuple(stem for stem, _, _ in images),
        file_names=tuple(name for _, name, _ in images),
        sizes_wh=np.array([size for _, _, size in images], dtype=np.int64).reshape(-1, 2),
        category_ids=tuple(range(1, len(names) + 1)),
        categories=names,
        image=np.array([index for index, _, _ in objects], dtype=np.intp),
        category=np.array([place[label] for _, label, _ in objects], dtype=np.intp),
        xywh=xywh,
        area=xywh[:, 2] * xywh[:, 3],
        iscrowd=np.zeros(len(xywh), dtype=bool),
        ids_as_strings=True,
        report=log.report(),
    )
    return table_samples(table, log, folder / "JPEGImages")


def _stems(folder: Path, split: str | None) -> list[str]:
    """The names of a split's list, without the flag that lists by category have; without a split, of every file."""
    if split is None:
        return sorted(path.stem for path in (folder / "Annotations").glob("*.xml"))
    lists = folder / "ImageSets" / "Main"
    file = lists / f"{_SPLITS.get(split, split)}.txt"
    if not is_safe_name(file.name) or not file.is_file():
        found = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))[:9]) or "no list"
        raise DataError(f"{folder}: expected split {split!r} in ImageSets/Main, found {found}; {CHOOSE_SPLIT}")
    return [line.split()[0] for line in read_text(file).splitlines() if line.strip()]


def _read_file(path: Path, log: RowLog) -> tuple[str, tuple[int, int], list[tuple[str, list[float]]]] | None:
    """File name, size (0, 0 if not given) and labelled boxes xyxy of an annotation; None if it was skipped."""
    try:
        root = _parse(path)
        size = (_number(root, "size/width", 0), _number(root, "size/height", 0))
        objects = []
        for index, element in enumerate(root.findall("object")):
            where = f"{path.name}: object {index}"
            label = (element.findtext("name") or "").strip()
            sides = [_number(element, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
            if not label or sides[2] < sides[0] or sides[3] < sides[1]:
                log.bad("bad_object", where, f"expected a name and xmin <= xmax, ymin <= ymax, found {label!r} {sides}")
                continue
            if (element.findtext("difficult") or "").strip() == "1":
                log.adjust("difficult_objects_kept", where, "difficult is 1")
            objects.append((label, [sides[0] - 1, sides[1] - 1, sides[2], sides[3]]))
    except DataError as error:
        log.bad("bad_file", path.name, str(error))
        return None
    return (root.findtext("filename") or "").strip(), (int(size[0]), int(size[1])), objects


def _parse(path: Path) -> ElementTree.Element:
    text = read_text(path).removeprefix("\ufeff")
    if len(text) > MAX_CHARACTERS or "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(f"{path}: expected a plain annotation below {MAX_CHARACTERS} characters, without a DOCTYPE")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is not XML: {error}") from error


def _number(element: ElementTree.Element, tag: str, default: float | None = None) -> float:
    text = element.findtext(tag)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e9:
        raise DataError(f"{tag}: expected a number, found {text!r:.40}")
    return value
