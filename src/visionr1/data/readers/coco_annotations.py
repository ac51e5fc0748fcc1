"""The content of a COCO instances file as a table of boxes.

Policies, besides those for samples (data/dataset.py):

- An unknown image or category id, a box that is not four finite numbers or has a negative side, a repeated image or
  category id: DataError, or skipped and counted, with the image (`RowLog.bad`).
- A missing box is that of the segmentation. One that CVAT turned (`attributes.rotation`) is the box around it. A
  missing area is width x height, a missing iscrowd 0. A box marked `ignore` stays. A superclass that Roboflow adds (no
  boxes, named as the others' supercategory) is no category. Annotation ids are not used. All counted.
- LVIS is refused: its figures are not COCO's, because categories are checked in some images only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from visionr1.boxes import MAX_COORDINATE, is_box, is_number
from visionr1.data.ids import Id, IdIndex, read_id
from visionr1.data.row_log import RowLog, get_field
from visionr1.data.segmentation import rotated_box, segmentation_box
from visionr1.data.table import BoxTable, map_positions
from visionr1.errors import DataError, short_repr
from visionr1.files import read_json
from visionr1.samples import Size

_LVIS_KEYS = ("neg_category_ids", "not_exhaustive_category_ids")


def read_coco_file(file: Path, log: RowLog, *, needs_sizes: bool) -> BoxTable:
    """Read the columns of a COCO file; DataError, or a count, for what the policies above do not cover.

    A width or height that is none is a bad row if sizes are needed, as samples need them; a table of boxes alone does
    without.
    """
    lists = _read_lists(file)
    names = _read_categories(lists["categories"], lists["annotations"], log)
    images = _read_images(lists["images"], log, needs_sizes=needs_sizes)
    annotations = _Annotations(map_positions(images), map_positions(names), log)
    for index, row in enumerate(lists["annotations"]):
        annotations.add(index, row)

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
        **annotations.columns(),
        report=report,
    )
    return table.without(report.images_left_out) if report.images_left_out else table


def _read_lists(file: Path) -> dict[str, list[Any]]:
    """Return the three lists of a COCO file; DataError if one is missing, if there is no image, or if it is LVIS."""
    content = read_json(file)
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise DataError(f"{file}: expected an object with images, annotations and categories, found a {kind}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            value = short_repr(content.get(key))
            raise DataError(f"{file}: {key}: expected a list, found {value}; is this a COCO instances file?")
    if not content["images"]:
        raise DataError(f"{file}: images: expected at least one, found none; the data set is empty")

    for index, row in enumerate(content["images"]):
        for key in _LVIS_KEYS:
            if get_field(row, key) is not None:
                raise DataError(
                    f"{file}: images[{index}]: {key}: this is LVIS, where each category was looked for in some images "
                    "only; its federated evaluation is not supported yet, and COCO's figures would be wrong "
                    "(docs/faq.md#an-lvis-file-is-refused)"
                )
    return content


# ---- categories and images ----------------------------------------------------------------------------------------


def _read_categories(rows: list[Any], annotations: list[Any], log: RowLog) -> dict[Id, str]:
    """Return id -> name, in file order, without Roboflow's superclass."""
    names: dict[Id, str] = {}
    superclasses: dict[Id, str] = {}
    known_ids = IdIndex()
    for index, row in enumerate(rows):
        where = f"{log.path}: categories[{index}]"
        identity = read_id(get_field(row, "id"))
        if identity is None:
            raise DataError(f"{where}: expected an object with id and name, found {short_repr(row)}; correct it")
        name = _read_name(row, where)
        if not known_ids.add(identity):
            raise DataError(f"{where}: id: expected one that no other category has, found {identity!r} twice")
        names[identity] = name
        if row.get("supercategory") == "none":
            superclasses[identity] = name

    # Roboflow adds a category that is the parent of all others and has no boxes.
    if superclasses:
        ids_with_boxes = {known_ids.find(get_field(row, "category_id")) for row in annotations}
        parents = [row.get("supercategory") for row in rows]
        for identity, name in superclasses.items():
            if name in parents and identity not in ids_with_boxes:
                reason = f"{name!r} has no boxes and is the others' supercategory"
                log.adjust("superclasses_left_out", f"category id {identity}", reason)
                del names[identity]

    if not names:
        raise DataError(f"{log.path}: categories: expected at least one, found none")
    return names


def _read_name(row: Mapping[str, Any], where: str) -> str:
    """Return a category's name; DataError, beginning with `where`, if it is no text that a reply could hold."""
    name = row.get("name")
    if not isinstance(name, str) or not name.strip():
        expected = "expected a text that is not blank, such as 'cat', which the model is asked for"
        raise DataError(f"{where}: name: {expected}, found {short_repr(name)}; correct it")
    try:
        name.encode()
    except UnicodeEncodeError:
        expected = "expected characters of Unicode, found half of a pair (a surrogate)"
        raise DataError(f"{where}: name: {expected} in {name!r:.80}; correct it") from None
    return name


def _read_images(rows: list[Any], log: RowLog, *, needs_sizes: bool) -> dict[Id, tuple[str, Size]]:
    """Return id -> (file name, size), in file order."""
    images: dict[Id, tuple[str, Size]] = {}
    known_ids = IdIndex()
    for index, row in enumerate(rows):
        where = f"images[{index}]"
        identity = read_id(get_field(row, "id"))
        if identity is None:
            message = f"id: expected an integer or a string, found {short_repr(row)}"
            log.bad("images_without_id", where, message, image=where)
            continue
        if not known_ids.add(identity):
            # Of two files under one id, no box can be said to lie in the one or the other: both go.
            first_id = known_ids.find(identity)
            is_same_file = first_id in images and _read_file_name(row) == images[first_id][0]
            message = f"id: expected one that no other image has, found {identity!r} again"
            log.bad("duplicate_image_id", where, message, image=None if is_same_file else first_id)
            continue

        size_wh = _read_size(row)
        if size_wh is None:
            value = short_repr((row.get("width"), row.get("height")))
            message = f"width, height: expected whole numbers of pixels, found {value}"
            if needs_sizes:
                log.bad("bad_image_size", where, message, image=identity)
                continue
            log.adjust("image_sizes_not_read", where, message)
            size_wh = (0, 0)
        images[identity] = (_read_file_name(row), size_wh)
    return images


def _read_file_name(row: Mapping[str, Any]) -> str:
    """Return the file name of an image, of LVIS's kind the end of its URL; "" if it has none.

    A missing name matters only to those who need the file; they report it.
    """
    for key in ("file_name", "coco_url"):
        if isinstance(row.get(key), str) and row[key]:
            return str(row[key])
    return ""


def _read_size(row: Mapping[str, Any]) -> Size | None:
    """Return width and height in pixels, 0 where the file does not say; None if one is no number of pixels."""
    width, height = _read_side(row.get("width")), _read_side(row.get("height"))
    if width is None or height is None:
        return None
    return width, height


def _read_side(side: object) -> int | None:
    """Return a number of pixels, 640 or 640.0; 0 for null, as which many tools write what they do not know."""
    if side is None:
        return 0
    if not is_number(side, MAX_COORDINATE) or side < 0 or side != math.floor(side):
        return None
    return int(side)


# ---- annotations --------------------------------------------------------------------------------------------------


class _Annotations:
    """The columns of a `BoxTable` that come from the annotations, row by row."""

    def __init__(self, images: Mapping[Id, int], categories: Mapping[Id, int], log: RowLog) -> None:
        self._images = images
        self._categories = categories
        self._log = log
        self._seen_ids: set[int | str | float] = set()

        # Also those of images that are left out, which other rows than the bad one may name.
        self._image_ids = IdIndex([*images, *log.images_left_out])
        self._category_ids = IdIndex(categories)

        self._image: list[int] = []
        self._category: list[int] = []
        self._xywh: list[list[float]] = []
        self._area: list[float] = []
        self._iscrowd: list[bool] = []

    def add(self, index: int, row: Any) -> None:
        """Add one annotation, or log why it cannot be used."""
        where = f"annotations[{index}]"
        if not isinstance(row, dict):
            self._log.bad("bad_row", where, f"expected an object, found {short_repr(row)}")
            return
        image_id = self._image_ids.find(row.get("image_id"))
        if image_id in self._log.images_left_out:
            return
        category_id = self._category_ids.find(row.get("category_id"))
        box, reason_of_box = _read_box(row)
        fault = self._find_fault(row, image_id, category_id, box)
        if fault is not None:
            reason, message = fault
            self._log.bad(reason, f"{where} (id {short_repr(row.get('id'))})", message, image=image_id)
            return

        self._count_oddities(where, row)
        if reason_of_box:
            self._log.adjust(reason_of_box, where, f"bbox {short_repr(row.get('bbox'))} is read as {box}")
        area = row.get("area")
        if area is None:
            self._log.adjust("areas_computed", where, "no area; width x height is used")
            area = box[2] * box[3]
        self._image.append(self._images[image_id])  # type: ignore[index]
        self._category.append(self._categories[category_id])  # type: ignore[index]
        self._xywh.append(box)
        self._area.append(area)
        self._iscrowd.append(bool(row.get("iscrowd")))

    def columns(self) -> dict[str, Any]:
        """Return the columns by their names in `BoxTable`."""
        return {
            "image": np.array(self._image, dtype=np.intp),
            "category": np.array(self._category, dtype=np.intp),
            "xywh": np.array(self._xywh, dtype=np.float64).reshape(-1, 4),
            "area": np.array(self._area, dtype=np.float64),
            "iscrowd": np.array(self._iscrowd, dtype=bool),
        }

    def _count_oddities(self, where: str, row: Mapping[str, Any]) -> None:
        """Count what a usable annotation has that is not used: an id once more, a mark to ignore it."""
        annotation_id = row.get("id")
        if isinstance(annotation_id, int | str | float):
            if annotation_id in self._seen_ids:
                message = f"id {short_repr(annotation_id)} again; these ids are not used"
                self._log.adjust("duplicate_annotation_ids", where, message)
            self._seen_ids.add(annotation_id)

        if row.get("ignore") in (1, True) and not row.get("iscrowd"):
            self._log.adjust("boxes_marked_ignore_kept", where, "ignore is 1; COCO's evaluation counts it like others")

    def _find_fault(
        self, row: Mapping[str, Any], image_id: Id | None, category_id: Id | None, box: object
    ) -> tuple[str, str] | None:
        """Return why an annotation cannot be used: a reason to count it by, and the message; None if it can.

        `image_id` and `category_id` are those that the row means, None where it names none of the file.
        """
        if image_id is None:
            expected = "expected the id of one of the images"
            return "unknown_image_id", f"image_id: {expected}, found {short_repr(row.get('image_id'))}"
        if category_id is None:
            expected = f"expected the id of one of the {len(self._categories)} categories"
            return "unknown_category_id", f"category_id: {expected}, found {short_repr(row.get('category_id'))}"
        return _find_box_fault(row, box)


def _find_box_fault(row: Mapping[str, Any], box: object) -> tuple[str, str] | None:
    """Return the reason and the message for a box, area or iscrowd that cannot be used; None if they can."""
    if not is_box(box, MAX_COORDINATE):
        expected = "expected four finite numbers [x, y, width, height]"
        return "bad_box", f"bbox: {expected}, found {short_repr(box)}"
    if box[2] < 0 or box[3] < 0:
        expected = "expected [x, y, width, height] with no negative side"
        return "inverted_box", f"bbox: {expected}, found {box!r}"

    # COCO's own evaluation needs the two others; both may be missing.
    if row.get("area") is not None and not is_number(row["area"]):
        return "bad_area", f"area: expected a finite number, found {short_repr(row['area'])}"
    if row.get("iscrowd") not in (0, 1, None):
        return "bad_iscrowd", f"iscrowd: expected 0 or 1, found {short_repr(row['iscrowd'])}"
    return None


def _read_number(value: object) -> float:
    """Return a finite number, also one that is written as text; 0 for anything else."""
    if isinstance(value, str) and len(value) <= 30:
        try:
            value = float(value)
        except ValueError:
            return 0.0
    return float(value) if is_number(value) else 0.0


def _read_box(row: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the box of an annotation, unchecked, and the reason to count if it is not the bbox as it stands."""
    box = row.get("bbox")
    if box is None or box == []:
        around = segmentation_box(row.get("segmentation"))
        if around is not None:
            return around, "boxes_from_segmentations"

    # CVAT gives the box as drawn, before it was turned. Beside a polygon it is the box around that already.
    rotation = _read_number(get_field(row.get("attributes"), "rotation"))
    is_turned = rotation % 180 != 0 and not row.get("segmentation")
    if is_turned and is_box(box, MAX_COORDINATE) and min(box[2:]) >= 0:
        return rotated_box(box, rotation), "rotated_boxes_enclosed"
    return box, ""
