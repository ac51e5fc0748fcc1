"""COCO instances, as a JSON file or a folder: plain COCO, ODinW (`annotations_without_background.json` in train, valid
and test) and Roboflow (`_annotations.coco.json`).

Policies, besides those for samples (data/dataset.py):

- An unknown image or category id, a box that is not four finite numbers or has a negative side, an image file that is
  missing or whose name leaves the image folder, a repeated image or category id: DataError, or skipped and counted.
- Annotation ids are not used (0 and repeated ones do no harm). A missing area is width x height, a missing iscrowd 0. A
  superclass that Roboflow adds (no boxes, named as the others' supercategory) is no category. All counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from visionr1.boxes import is_box, is_number
from visionr1.data.dataset import BoxDataset, dataset_from_table
from visionr1.data.ids import Id, IdIndex, read_id
from visionr1.data.readers.base import Reader
from visionr1.data.readers.coco_layout import find_annotations, find_direct, find_split_files, open_images
from visionr1.data.row_log import OnBad, RowLog, get_field
from visionr1.data.table import BoxTable, map_positions
from visionr1.errors import DataError
from visionr1.files import read_json
from visionr1.samples import Size


def read_coco(
    path: str | Path,
    *,
    split: str | None = None,
    image_dir: str | Path | None = None,
    on_bad: OnBad = "raise",
) -> BoxDataset:
    """Read the samples in a COCO annotation file, or in a folder of one of the layouts above.

    `split` chooses within a folder; `image_dir` says where the images are, if not in a usual place near the file.
    Image files must exist; their content is checked when they are loaded. `table` holds the images that became samples.
    Raises DataError for what the policies above do not cover, for an empty data set, and under `on_bad="raise"` for
    every bad row.
    """
    file = find_annotations(Path(path), split)
    log = RowLog(file, on_bad)
    table = _read_table(file, log)
    table.check_names()
    images = open_images(file, table.file_names, Path(image_dir) if image_dir is not None else None)
    return dataset_from_table(table, log, images)


def read_table(path: str | Path, *, split: str | None = None, on_bad: OnBad = "raise") -> BoxTable:
    """Read the table of an annotation file or folder, as `read_coco` finds it; image files are not touched."""
    file = find_annotations(Path(path), split)
    return _read_table(file, RowLog(file, on_bad))


def sniff(path: Path) -> bool:
    """Return True for a .json file, and a folder that has an annotation file or a split with one."""
    if path.is_dir():
        return bool(find_direct(path) or find_split_files(path))
    return path.suffix == ".json"


# ---- the JSON file ------------------------------------------------------------------------------------------------


def _read_table(file: Path, log: RowLog) -> BoxTable:
    """Read the columns of a COCO file; DataError, or a count, for what the policies above do not cover."""
    lists = _read_lists(file)
    names = _read_categories(lists["categories"], lists["annotations"], log)
    images = _read_images(lists["images"], log)
    annotations = _read_annotations(lists["annotations"], map_positions(images), map_positions(names), log)
    report = log.report()
    if set(images) <= set(report.images_left_out):
        raise DataError(f"{file}: no image is left of {len(report.images_left_out)}: {'; '.join(report.lines())}")

    file_names, sizes_wh = [], []
    for file_name, size_wh in images.values():
        file_names.append(file_name)
        sizes_wh.append(size_wh)
    table = BoxTable(
        path=file,
        image_ids=tuple(images),
        file_names=tuple(file_names),
        sizes_wh=np.array(sizes_wh, dtype=np.int64).reshape(-1, 2),
        category_ids=tuple(names),
        categories=tuple(names.values()),
        **annotations,
        report=report,
    )
    return table.without(report.images_left_out) if report.images_left_out else table


def _read_lists(file: Path) -> dict[str, list[Any]]:
    """Return the three lists of a COCO file; DataError if one is missing, or if there is no image."""
    content = read_json(file)
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise DataError(f"{file}: expected an object with images, annotations and categories, found a {kind}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            value = repr(content.get(key))[:60]
            raise DataError(f"{file}: {key}: expected a list, found {value}; is this a COCO instances file?")
    if not content["images"]:
        raise DataError(f"{file}: images: expected at least one, found none; the data set is empty")
    return content


def _read_categories(rows: list[Any], annotations: list[Any], log: RowLog) -> dict[Id, str]:
    """Return id -> name, in file order, without Roboflow's superclass."""
    names: dict[Id, str] = {}
    superclasses: dict[Id, str] = {}
    known_ids = IdIndex()
    for index, row in enumerate(rows):
        where = f"categories[{index}]"
        identity = read_id(get_field(row, "id"))
        name = get_field(row, "name")
        if identity is None or not isinstance(name, str) or not name.strip():
            raise DataError(f"{log.path}: {where}: expected an object with id and name, found {row!r:.80}; correct it")
        if not known_ids.add(identity):
            raise DataError(
                f"{log.path}: {where}: id: expected one that no other category has, found {identity!r} twice"
            )
        names[identity] = name
        if row.get("supercategory") == "none":
            superclasses[identity] = name

    # Roboflow adds a category that is the parent of all others and has no boxes.
    if superclasses:
        ids_with_boxes = {known_ids.find(get_field(row, "category_id")) for row in annotations}
        parents = {row.get("supercategory") for row in rows}
        for identity, name in superclasses.items():
            if name in parents and identity not in ids_with_boxes:
                reason = f"{name!r} has no boxes and is the others' supercategory"
                log.adjust("superclasses_left_out", f"category id {identity}", reason)
                del names[identity]

    if not names:
        raise DataError(f"{log.path}: categories: expected at least one, found none")
    return names


def _read_images(rows: list[Any], log: RowLog) -> dict[Id, tuple[str, Size]]:
    """Return id -> (file name, size), in file order."""
    images: dict[Id, tuple[str, Size]] = {}
    known_ids = IdIndex()
    for index, row in enumerate(rows):
        where = f"images[{index}]"
        identity = read_id(get_field(row, "id"))
        if identity is None:
            message = f"id: expected an integer or a string, found {row!r:.80}"
            log.bad("images_without_id", where, message, image=where)
            continue
        if not known_ids.add(identity):
            # Of two files under one id, no box can be said to lie in the one or the other: both go.
            first_id = known_ids.find(identity)
            is_same_file = first_id in images and row.get("file_name") == images[first_id][0]
            message = f"id: expected one that no other image has, found {identity!r} again"
            log.bad("duplicate_image_id", where, message, image=None if is_same_file else first_id)
            continue
        width, height = row.get("width", 0), row.get("height", 0)
        if not (_is_whole(width) and _is_whole(height)):
            message = f"width, height: expected whole numbers of pixels, found {(width, height)!r}"
            log.bad("bad_image_size", where, message, image=identity)
            continue

        # A missing name matters only to those who need the file; they report it.
        file_name = row.get("file_name", "")
        if not isinstance(file_name, str):
            file_name = ""
        images[identity] = (file_name, (int(width), int(height)))
    return images


def _is_whole(side: object) -> bool:
    """Return True for a number of pixels: 640 or 640.0, also 0, but not true."""
    if isinstance(side, bool) or not isinstance(side, int | float):
        return False
    return side >= 0 and side == int(side)


def _read_annotations(rows: list[Any], images: dict[Id, int], categories: dict[Id, int], log: RowLog) -> dict[str, Any]:
    """Return the columns of a `BoxTable` that come from the annotations."""
    image, category, xywh, area, crowd = [], [], [], [], []
    seen: set[int | str | float] = set()

    # Also those of images that are left out, which other rows than the bad one may name.
    image_ids = IdIndex([*images, *log.images_left_out])
    category_ids = IdIndex(categories)
    for index, row in enumerate(rows):
        where = f"annotations[{index}]"
        annotation_id = get_field(row, "id")
        image_id = image_ids.find(get_field(row, "image_id"))
        category_id = category_ids.find(get_field(row, "category_id"))
        if image_id in log.images_left_out:
            continue
        fault = _find_fault(row, image_id, category_id, len(categories))
        if fault is not None:
            reason, message = fault
            log.bad(reason, f"{where} (id {annotation_id!r})", message, image=image_id)
            continue

        # Annotation ids mean nothing here, so repeated ones are only counted.
        if isinstance(annotation_id, int | str | float):
            if annotation_id in seen:
                message = f"id {annotation_id!r} again; these ids are not used"
                log.adjust("duplicate_annotation_ids", where, message)
            seen.add(annotation_id)

        box = row["bbox"]
        box_area = row.get("area")
        if box_area is None:
            log.adjust("areas_computed", where, "no area; width x height is used")
            box_area = box[2] * box[3]
        image.append(images[image_id])  # type: ignore[index]
        category.append(categories[category_id])  # type: ignore[index]
        xywh.append(box)
        area.append(box_area)
        crowd.append(bool(row.get("iscrowd")))
    return {
        "image": np.array(image, dtype=np.intp),
        "category": np.array(category, dtype=np.intp),
        "xywh": np.array(xywh, dtype=np.float64).reshape(-1, 4),
        "area": np.array(area, dtype=np.float64),
        "iscrowd": np.array(crowd, dtype=bool),
    }


def _find_fault(row: Any, image_id: Id | None, category_id: Id | None, num_categories: int) -> tuple[str, str] | None:
    """Return why an annotation cannot be used: a reason to count it by, and the message; None if it can.

    `image_id` and `category_id` are those that the row means, None where it names none of the file.
    """
    if not isinstance(row, dict):
        return "bad_row", f"expected an object, found {row!r:.60}"
    if image_id is None:
        expected = "expected the id of one of the images"
        return "unknown_image_id", f"image_id: {expected}, found {row.get('image_id')!r:.60}"
    if category_id is None:
        expected = f"expected the id of one of the {num_categories} categories"
        return "unknown_category_id", f"category_id: {expected}, found {row.get('category_id')!r:.60}"

    box = row.get("bbox")
    if not is_box(box):
        expected = "expected four finite numbers [x, y, width, height]"
        return "bad_box", f"bbox: {expected}, found {box!r:.80}"
    if box[2] < 0 or box[3] < 0:
        expected = "expected [x, y, width, height] with no negative side"
        return "inverted_box", f"bbox: {expected}, found {box!r}"

    # COCO's own evaluation needs the two others; both may be missing.
    if row.get("area") is not None and not is_number(row["area"]):
        return "bad_area", f"area: expected a finite number, found {row['area']!r:.60}"
    if row.get("iscrowd") not in (0, 1, None):
        return "bad_iscrowd", f"iscrowd: expected 0 or 1, found {row['iscrowd']!r:.60}"
    return None


READER = Reader(
    name="coco",
    description="a COCO JSON file, a folder that holds one",
    sniff=sniff,
    read=read_coco,
    read_with_images=read_coco,
    read_table=read_table,
    find_splits=lambda path: tuple(find_split_files(path)),
)
