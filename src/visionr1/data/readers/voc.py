"""Pascal VOC: one XML file an image (`Annotations/`), lists of names by split (`ImageSets/Main/`), `JPEGImages/`.

An image's id is the name of its XML file, as it stands there and in the lists: "000005". `difficult` objects, which
VOC's own metric ignores, are objects like others here, counted in the report. An image that has an object which cannot
be used is left out with it. The classes are those of a label map beside `Annotations/`, else all names in
`Annotations/`, whatever the split; names of VOC keep VOC's numbers.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

import numpy as np

from visionr1.boxes import xyxy_to_xywh
from visionr1.data.dataset import BoxDataset, dataset_from_table
from visionr1.data.image_lookup import ImageLookup
from visionr1.data.readers import describe_readers
from visionr1.data.readers.base import Reader
from visionr1.data.readers.voc_layout import (
    Listed,
    find_annotations_folder,
    find_images,
    find_picture,
    find_splits,
    list_split,
    list_xml_files,
    read_class_list,
)
from visionr1.data.readers.voc_xml import NO_OBJECTS, Annotation, read_annotation
from visionr1.data.row_log import OnBad, RowLog, is_safe_name
from visionr1.data.table import BoxTable, map_positions
from visionr1.errors import DataError
from visionr1.samples import normalize_label

CATEGORIES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor".split()
)
"""The categories of Pascal VOC, in the order of their numbers from 1."""
_VOC_FOLDER = re.compile(r"VOC20\d\d")


def sniff(path: Path) -> bool:
    """Return True for a folder that is laid out as one year of VOC."""
    return find_annotations_folder(path) is not None


def read_voc(
    path: Path, *, split: str | None = None, on_bad: OnBad = "raise", image_dir: Path | None = None
) -> BoxDataset:
    """Read a split of a VOC folder, or all its annotations; DataError for what is missing, and bad rows as `on_bad`.

    `image_dir` says where the pictures are, if not in a usual place.
    """
    folder = find_annotations_folder(path)
    if folder is None:
        raise DataError(f"{path}: found no Annotations/ with XML; expected {describe_readers()}")
    log = RowLog(path, on_bad)
    xml_files = list_xml_files(folder)
    images = find_images(path, folder, image_dir)

    annotations: dict[str, Annotation] = {}
    pictures: dict[str, str] = {}
    for entry in list_split(path, split, xml_files, images, log):
        annotation = _read_entry(entry, log)
        if annotation is not None:
            annotations[entry.name] = annotation
            pictures[entry.name] = entry.picture or _find_picture(entry.name, annotation, xml_files, images, log)
    if not annotations:
        raise DataError(f"{path}: no usable annotation; {'; '.join(log.report().lines()) or 'it has none'}")

    others = [file for name, file in xml_files.items() if name not in annotations]
    classes = _choose_classes(path, annotations.values(), others, log)
    table = _build_table(path, annotations, pictures, classes, log)
    table.check_names()
    return dataset_from_table(table, log, images)


def _read_entry(entry: Listed, log: RowLog) -> Annotation | None:
    """Return the annotation of one image of a split; None, logged, if it cannot be used."""
    if entry.xml is None:
        log.adjust("images_without_xml", entry.where, f"no XML file for {entry.picture}: an image without objects")
        return NO_OBJECTS
    if not _is_unicode(entry.name):
        log.bad("bad_file", ascii(entry.name), "expected the name of a file in UTF-8; rename it", image=entry.name)
        return None

    where = entry.xml.name
    try:
        annotation = read_annotation(entry.xml)
    except DataError as error:
        log.bad("bad_file", where, str(error), image=entry.name)
        return None
    if annotation.fault is not None:
        place, problem = annotation.fault
        log.bad("bad_object", f"{where}: {place}", problem, image=entry.name)
        return None
    for reason, place, message in annotation.adjusted:
        log.adjust(reason, f"{where}: {place}", message)
    return annotation


def _is_unicode(name: str) -> bool:
    """Return True for the name of a file that is UTF-8 on the disk."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _find_picture(
    name: str, annotation: Annotation, xml_names: Container[str], images: ImageLookup, log: RowLog
) -> str:
    """Return the name of an image's picture: `<filename>`, else that of the XML file itself, counted.

    Where two pictures have these names, it is that of `<filename>`, counted too, unless that is the picture of another
    XML file (`xml_names`): then this one was copied from it.
    """
    parent, _, stem = name.rpartition("/")
    file_name = annotation.file_name
    places = [f"{parent}/{file_name}", file_name] if parent and file_name else [file_name]
    for place in places:
        if not is_safe_name(place) or not images.find(place, annotation.size_wh):
            continue
        place_name = place.rpartition(".")[0]
        is_same_name = normalize_label(place_name.rpartition("/")[2]) == normalize_label(stem)
        other = None if is_same_name else find_picture(images, name, annotation.size_wh)
        if other is not None and place_name in xml_names:
            break
        if other is not None:
            message = f"<filename> is {file_name!r:.120}, though {other} is there too"
            log.adjust("pictures_of_another_name", f"{stem}.xml", message)
        return place

    same_name = find_picture(images, name, annotation.size_wh)
    if same_name is None:
        return file_name or f"{name}.jpg"
    log.adjust("pictures_named_as_the_xml", f"{stem}.xml", f"<filename> is {file_name!r:.120}, the picture {same_name}")
    return same_name


def _choose_classes(
    path: Path, annotations: Iterable[Annotation], other_files: Iterable[Path], log: RowLog
) -> dict[str, int]:
    """Return the classes of the whole folder, with their numbers: the same for every split.

    `annotations` are those of the split, `other_files` the XML files of all others.
    """
    labels = {label for annotation in annotations for label in annotation.labels}
    folders = {annotation.folder for annotation in annotations} | {path.name}
    for file in other_files:
        # One that cannot be read is reported with the split that it is of.
        try:
            annotation = read_annotation(file)
        except DataError:
            continue
        labels.update(annotation.labels)
        folders.add(annotation.folder)

    # A list that names none of the classes is one of something else.
    file_name, names = read_class_list(path) or ("", [])
    if names and (not labels or not labels.isdisjoint(names)):
        unlisted = sorted(labels.difference(names))
        for label in unlisted:
            log.adjust("classes_missing_from_the_list", file_name, f"{label!r} is in Annotations and not in it")
        log.note(f"classes: the {len(names)} of {file_name}")
        return _number([*names, *unlisted])

    # VOC's own order and numbers; all its names are asked for in its own folders alone.
    if labels.issubset(CATEGORIES):
        is_voc = not labels or any(map(_VOC_FOLDER.fullmatch, folders))
        names = [name for name in CATEGORIES if is_voc or name in labels]
        source = "those of Pascal VOC" if is_voc else "the names in all of Annotations"
        log.note(f"classes: {source} ({len(names)})")
        numbers = map_positions(CATEGORIES)
        return {name: numbers[name] + 1 for name in names}
    log.note(f"classes: the names in all of Annotations ({len(labels)})")
    return _number(sorted(labels))


def _number(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names, 1)}


def _build_table(
    folder: Path,
    annotations: Mapping[str, Annotation],
    pictures: Mapping[str, str],
    classes: Mapping[str, int],
    log: RowLog,
) -> BoxTable:
    """Return the table of annotations by the name of their files, in their order."""
    sizes_wh, boxes_per_image = [], []
    labels: list[str] = []
    boxes: list[list[float]] = []
    for annotation in annotations.values():
        sizes_wh.append(annotation.size_wh)
        boxes_per_image.append(len(annotation.labels))
        labels += annotation.labels
        boxes += annotation.xyxy

    positions = map_positions(classes)
    xywh = xyxy_to_xywh(np.array(boxes, dtype=np.float64).reshape(-1, 4))
    return BoxTable(
        path=folder,
        image_ids=tuple(annotations),
        file_names=tuple(pictures.values()),
        sizes_wh=np.array(sizes_wh, dtype=np.int64).reshape(-1, 2),
        category_ids=tuple(classes.values()),
        categories=tuple(classes),
        image=np.repeat(np.arange(len(annotations)), boxes_per_image),
        category=np.array([positions[label] for label in labels], dtype=np.intp),
        xywh=xywh,
        area=xywh[:, 2] * xywh[:, 3],
        iscrowd=np.zeros(len(xywh), dtype=bool),
        report=log.report(),
    )


READER = Reader(
    name="voc",
    description="a folder of Pascal VOC (Annotations/)",
    sniff=sniff,
    read=read_voc,
    read_with_images=read_voc,
    find_splits=find_splits,
)
