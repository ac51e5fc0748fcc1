"""COCO instances, as a JSON file or a folder: plain COCO, ODinW (`annotations_without_background.json` in train, valid
and test) and Roboflow (`_annotations.coco.json`).

Policies, besides those for samples (data/dataset.py):

- An unknown image or category id, a box that is not four finite numbers or has a negative side, an image file that is
  missing or whose name leaves the image folder, a repeated image or category id: DataError, or skipped and counted.
- Annotation ids are not used (0 and repeated ones do no harm). A missing area is width x height, a missing iscrowd 0. A
  superclass that Roboflow adds (no boxes, named as the others' supercategory) is no category. All counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visionr1.boxes import is_box, is_number
from visionr1.data.dataset import BoxDataset, dataset_from_table
from visionr1.data.readers import describe_readers
from visionr1.data.readers.base import CHOOSE_SPLIT, Reader
from visionr1.data.row_log import Id, OnBad, RowLog, is_safe_name, read_id
from visionr1.data.table import BoxTable
from visionr1.errors import DataError
from visionr1.files import read_json
from visionr1.samples import Size

ANNOTATION_NAMES = ("annotations_without_background.json", "_annotations.coco.json", "annotations.json")
SPLIT_ALIASES = {"val": "valid", "validation": "valid"}
_SPLIT_SPELLINGS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}


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
    folder = find_image_folder(file, table.file_names) if image_dir is None else Path(image_dir)
    return dataset_from_table(table, log, folder)


def read_table(path: str | Path, *, split: str | None = None, on_bad: OnBad = "raise") -> BoxTable:
    """Read the table of an annotation file or folder, as `read_coco` finds it; image files are not touched."""
    file = find_annotations(Path(path), split)
    return _read_table(file, RowLog(file, on_bad))


def sniff(path: Path) -> bool:
    """Return True for a .json file, and a folder that has an annotation file or a split with one."""
    if path.is_dir():
        return bool(_first_file(path, ANNOTATION_NAMES) or find_split_files(path))
    return path.suffix == ".json"


# ---- folder layouts -----------------------------------------------------------------------------------------------


def find_annotations(path: Path, split: str | None) -> Path:
    """Return the annotation file that `path` and `split` name; DataError listing what there is if they name none.

    A folder without split folders is all one split, whichever is asked for.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder; expected {describe_readers()}")

    files = find_split_files(path)
    if split is not None and (file := files.get(SPLIT_ALIASES.get(split, split)) or _split_file(path, split)):
        return file
    direct = _first_file(path, ANNOTATION_NAMES)
    if direct and (split is None or not files):
        return direct
    if split is None and len(files) == 1:
        return next(iter(files.values()))

    if not files:
        names = " or ".join(ANNOTATION_NAMES)
        raise DataError(f"{path}: found no {names} in this folder; expected {describe_readers()}")
    wanted = f"split {split!r}" if split else "one annotation file"
    has = f"the splits {', '.join(files)}"
    raise DataError(f"{path}: expected {wanted} in this folder, found {has}; {CHOOSE_SPLIT}")


def find_split_files(path: Path) -> dict[str, Path]:
    """Return the annotation file of each of train, valid and test that a folder holds."""
    return {name: file for name in _SPLIT_SPELLINGS if (file := _split_file(path, name))}


def _split_file(folder: Path, split: str) -> Path | None:
    """Return the annotation file of a split: in a folder of its name, or beside others with its name."""
    for name in _SPLIT_SPELLINGS.get(split, (split,)):
        if not is_safe_name(name):
            return None
        beside = [f"{name}_{known}" for known in ANNOTATION_NAMES]
        below = [f"{parent}{name}.json" for parent in ("", "annotations/", "annotations/instances_")]
        if file := _first_file(folder / name, ANNOTATION_NAMES) or _first_file(folder, [*beside, *below]):
            return file

        # COCO's own names end in a year: instances_val2017.json.
        if dated := sorted(folder.glob(f"annotations/instances_{name}[0-9]*.json")):
            return dated[-1]
    return None


def _first_file(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def find_image_folder(file: Path, file_names: Sequence[str]) -> Path:
    """Return the folder of the images of an annotation file: its own, or one where COCO's users put them."""
    parent, tail = file.parent, file.stem.removeprefix("instances_")
    above = parent.parent
    folders = (parent, parent / "images", above / tail, above / "images" / tail, above / "images")
    probes = [name for name in file_names[:20] if is_safe_name(name)]
    for folder in folders:
        if any((folder / name).is_file() for name in probes):
            return folder
    return parent


# ---- the JSON file ------------------------------------------------------------------------------------------------


def _read_table(file: Path, log: RowLog) -> BoxTable:
    lists = _read_lists(file)
    names = _read_categories(lists["categories"], lists["annotations"], log)
    images = _read_images(lists["images"], log)
    annotations = _read_annotations(lists["annotations"], _positions(images), _positions(names), log)
    raw_ids = [row.get("id") for row in lists["images"] if isinstance(row, dict)]
    return BoxTable(
        path=file,
        image_ids=tuple(images),
        file_names=tuple(name for name, _ in images.values()),
        sizes_wh=np.array([size for _, size in images.values()], dtype=np.int64).reshape(-1, 2),
        category_ids=tuple(names),
        categories=tuple(names.values()),
        **annotations,
        ids_as_strings=all(isinstance(value, str) for value in raw_ids),
        report=log.report(),
    )


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


def _positions(keys: Iterable[Id]) -> dict[Id, int]:
    return {key: position for position, key in enumerate(keys)}


def _read_categories(rows: list[Any], annotations: list[Any], log: RowLog) -> dict[Id, str]:
    """Return id -> name, in file order, without Roboflow's superclass."""
    names: dict[Id, str] = {}
    superclasses: dict[Id, str] = {}
    for index, row in enumerate(rows):
        where = f"categories[{index}]"
        identity = read_id(row.get("id")) if isinstance(row, dict) else None
        name = row.get("name") if isinstance(row, dict) else None
        if identity is None or not isinstance(name, str) or not name.strip():
            raise DataError(f"{log.path}: {where}: expected an object with id and name, found {row!r:.80}; correct it")
        if identity in names:
            raise DataError(
                f"{log.path}: {where}: id: expected one that no other category has, found {identity!r} twice"
            )
        names[identity] = name
        if row.get("supercategory") == "none":
            superclasses[identity] = name

    # Roboflow adds a category that is the parent of all others and has no boxes.
    if superclasses:
        used = {read_id(row.get("category_id")) for row in annotations if isinstance(row, dict)}
        parents = {row.get("supercategory") for row in rows}
        for identity, name in superclasses.items():
            if name in parents and identity not in used:
                reason = f"{name!r} has no boxes and is the others' supercategory"
                log.adjust("superclasses_left_out", f"category id {identity}", reason)
                del names[identity]

    if not names:
        raise DataError(f"{log.path}: categories: expected at least one, found none")
    return names


def _read_images(rows: list[Any], log: RowLog) -> dict[Id, tuple[str, Size]]:
    """Return id -> (file name, size), in file order."""
    images: dict[Id, tuple[str, Size]] = {}
    for index, row in enumerate(rows):
        where = f"images[{index}]"
        identity = read_id(row.get("id")) if isinstance(row, dict) else None
        if identity is None:
            log.bad("images_without_id", where, f"id: expected an integer or a string, found {row!r:.80}")
            continue
        if identity in images:
            log.bad("duplicate_image_id", where, f"id: expected one that no other image has, found {identity!r} again")
            continue
        size = (row.get("width", 0), row.get("height", 0))
        if not all(type(side) in (int, float) and side >= 0 and side == int(side) for side in size):
            log.bad("bad_image_size", where, f"width, height: expected whole numbers of pixels, found {size!r}")
            continue
        name = row.get("file_name", "")
        images[identity] = (name if isinstance(name, str) else "", (int(size[0]), int(size[1])))
    return images


def _read_annotations(rows: list[Any], images: dict[Id, int], categories: dict[Id, int], log: RowLog) -> dict[str, Any]:
    """Return the columns of a `BoxTable` that come from the annotations."""
    image, category, xywh, area, crowd = [], [], [], [], []
    seen: set[int | str | float] = set()
    for index, row in enumerate(rows):
        where = f"annotations[{index}]"
        annotation_id = row.get("id") if isinstance(row, dict) else None
        fault = _find_fault(row, images, categories)
        if fault is not None:
            reason, message = fault
            log.bad(reason, f"{where} (id {annotation_id!r})", message)
            continue

        # Annotation ids mean nothing here, so repeated ones are only counted.
        if isinstance(annotation_id, int | str | float):
            if annotation_id in seen:
                log.adjust("duplicate_annotation_ids", where, f"id {annotation_id!r} again; these ids are not used")
            seen.add(annotation_id)

        box = row["bbox"]
        if row.get("area") is None:
            log.adjust("areas_computed", where, "no area; width x height is used")
        image.append(images[read_id(row["image_id"])])  # type: ignore[index]
        category.append(categories[read_id(row["category_id"])])  # type: ignore[index]
        xywh.append(box)
        area.append(box[2] * box[3] if row.get("area") is None else row["area"])
        crowd.append(bool(row.get("iscrowd")))
    return {
        "image": np.array(image, dtype=np.intp),
        "category": np.array(category, dtype=np.intp),
        "xywh": np.array(xywh, dtype=np.float64).reshape(-1, 4),
        "area": np.array(area, dtype=np.float64),
        "iscrowd": np.array(crowd, dtype=bool),
    }


def _find_fault(row: Any, images: dict[Id, int], categories: dict[Id, int]) -> tuple[str, str] | None:
    """Return why an annotation cannot be used: a reason to count it by, and the message; None if it can."""
    if not isinstance(row, dict):
        return "bad_row", f"expected an object, found {row!r:.60}"
    if read_id(row.get("image_id")) not in images:
        return "unknown_image_id", f"image_id: expected the id of one of the images, found {row.get('image_id')!r:.60}"
    if read_id(row.get("category_id")) not in categories:
        known = f"expected the id of one of the {len(categories)} categories"
        return "unknown_category_id", f"category_id: {known}, found {row.get('category_id')!r:.60}"
    box = row.get("bbox")
    if not is_box(box):
        return "bad_box", f"bbox: expected four finite numbers [x, y, width, height], found {box!r:.80}"
    if box[2] < 0 or box[3] < 0:
        return "inverted_box", f"bbox: expected [x, y, width, height] with no negative side, found {box!r}"
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
    read_table=read_table,
    find_splits=lambda path: tuple(find_split_files(path)),
)
