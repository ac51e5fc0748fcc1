"""COCO instances, as a JSON file or a folder: plain COCO, ODinW (`annotations_without_background.json` in train, valid
and test) and Roboflow (`_annotations.coco.json`).

Two views of one file. `BoxTable` holds every row as it stands, which is what an evaluation must count; `Sample`s hold
what a model is trained on and shown: boxes clipped to the image, without crowd regions. Policies:

- An unknown image or category id, a box that is not four finite numbers or has a negative side, an image file that is
  missing or whose name leaves the image folder, a repeated image or category id: DataError, or skipped and counted.
- A box partly outside the image is clipped; one of zero size or wholly outside, and a crowd region, is left out of the
  samples. Annotation ids are not used (0 and repeated ones do no harm). A missing area is width x height, a missing
  iscrowd 0. A superclass that Roboflow adds (no boxes, named as the others' supercategory) is no category. All counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionr1.boxes import Array, clip_xyxy
from visionr1.data.row_log import Id, OnBad, ReadReport, RowLog, is_number, is_safe_name, read_id
from visionr1.errors import DataError
from visionr1.files import read_json
from visionr1.images import image_size
from visionr1.samples import Boxes, Query, Sample, Size, normalize_label

Index = NDArray[np.intp]

ANNOTATION_NAMES = ("annotations_without_background.json", "_annotations.coco.json", "annotations.json")
CHOOSE_SPLIT = "choose with split= (--split; in a recipe data.split, eval.split)"
KINDS = "a COCO JSON file, a folder that holds one, a folder of Pascal VOC (Annotations/), or VLM-R1's rows (.jsonl)"
"""What a data source may be, for messages."""
SPLIT_ALIASES = {"val": "valid", "validation": "valid"}
_SPLIT_SPELLINGS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class BoxTable:
    """One annotation file in columns, rows in file order: N images, C categories, A annotations.

    Boxes are `xywh` float64 pixels, exactly as in the file. `image` and `category` (A,) index into the images and the
    categories; `sizes_wh` (N, 2) is 0 where the file gives no size.
    """

    path: Path
    image_ids: tuple[Id, ...]
    file_names: tuple[str, ...]
    sizes_wh: NDArray[np.int64]
    category_ids: tuple[Id, ...]
    categories: tuple[str, ...]
    image: Index
    category: Index
    xywh: Array
    area: Array
    iscrowd: NDArray[np.bool_]
    ids_as_strings: bool = False
    descendants: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Positions of the categories below one in a tree: on its objects, their boxes are neither right nor wrong."""
    report: ReadReport = field(default_factory=ReadReport)

    def __len__(self) -> int:
        return len(self.image_ids)

    def take(self, images: Sequence[int]) -> BoxTable:
        """The table of the images at these positions, in this order; a position may come more than once."""
        rows = [np.flatnonzero(self.image == index) for index in range(len(self))]
        order = np.concatenate([rows[i] for i in images]) if len(images) else np.zeros(0, dtype=np.intp)
        return replace(
            self._rows(order),
            image_ids=tuple(self.image_ids[i] for i in images),
            file_names=tuple(self.file_names[i] for i in images),
            sizes_wh=self.sizes_wh[list(images)],
            image=np.repeat(np.arange(len(images)), [len(rows[i]) for i in images]),
        )

    def of_categories(self, kept: Sequence[int]) -> BoxTable:
        """The table with the categories at these positions alone, in this order; every image stays."""
        place = np.full(len(self.categories), -1, dtype=np.intp)
        place[list(kept)] = np.arange(len(kept))
        table = self._rows(np.flatnonzero(place[self.category] >= 0))
        return replace(
            table,
            category_ids=tuple(self.category_ids[i] for i in kept),
            categories=tuple(self.categories[i] for i in kept),
            category=place[table.category],
            descendants={},
        )

    def _rows(self, rows: Index) -> BoxTable:
        """These annotations alone."""
        columns = {name: getattr(self, name)[rows] for name in ("image", "category", "xywh", "area", "iscrowd")}
        return replace(self, **columns)

    def check_names(self) -> None:
        """DataError if two categories have one name as labels are compared (strip, casefold)."""
        names = Counter(map(normalize_label, self.categories))
        if twice := next((name for name, count in names.items() if count > 1), None):
            raise DataError(
                f"{self.path}: categories: {names[twice]} categories are called {twice!r}, so that a label does not "
                "say which is meant; give each its own name"
            )

    def label_indexes(self, asked: Iterable[Sequence[str]]) -> dict[tuple[str, ...], dict[str, int]]:
        """For each set of categories asked for, label -> position: names as they stand, and stripped and casefolded.

        A label that means two of a set without regard to case (V3Det has 45 such pairs) is only found as it stands.
        Raises DataError if two categories have the very same name.
        """
        places = {name.strip(): place for place, name in enumerate(self.categories)}
        if len(places) < len(self.categories):
            self.check_names()
        loose = {normalize_label(name): place for name, place in places.items()}
        indexes: dict[tuple[str, ...], dict[str, int]] = {}
        for names in set(map(tuple, asked)):
            own = {name.strip(): places.get(name.strip(), loose.get(normalize_label(name), -1)) for name in names}
            folded = Counter(map(normalize_label, own))
            indexes[names] = own | {key: own[name] for name in own if folded[key := normalize_label(name)] == 1}
        return indexes


@dataclass(frozen=True, slots=True, eq=False)
class BoxDataset:
    """Samples with detection queries over all categories in file order, the table they come from, and the report."""

    samples: tuple[Sample, ...]
    table: BoxTable
    report: ReadReport


def read_coco(
    path: str | Path,
    *,
    split: str | None = None,
    image_dir: str | Path | None = None,
    on_bad: OnBad = "raise",
) -> BoxDataset:
    """The samples in a COCO annotation file, or in a folder of one of the layouts above.

    `split` chooses within a folder; `image_dir` says where the images are, if not in a usual place near the file.
    Image files must exist; their content is checked when they are loaded. `table` holds the images that became samples.
    Raises DataError for what the policies above do not cover, for an empty data set, and under `on_bad="raise"` for
    every bad row.
    """
    file = find_annotations(Path(path), split)
    log = RowLog(file, on_bad)
    table = _read_table(file, log)
    table.check_names()
    return table_samples(table, log, Path(image_dir) if image_dir is not None else None)


def table_samples(
    table: BoxTable, log: RowLog, image_dir: Path | None, asked: Sequence[Sequence[str]] | None = None
) -> BoxDataset:
    """The samples of a table, as `read_coco` makes them; `asked` are the categories that each image is asked for.

    An image that is asked for none is bad; without `asked`, all are asked of every image.
    """
    folder = image_dir or _find_image_dir(table.path, table.file_names)
    truths = _truths(table, log)
    kept, samples = [], []
    for index in range(len(table)):
        where = f"images[{index}] (id {table.image_ids[index]})"
        categories = tuple(asked[index]) if asked is not None else table.categories
        if not categories:
            log.bad("images_without_categories", where, "expected categories to ask for, found none")
            continue
        image = _image_path(table, index, folder, log)
        if image is None or (size := _size(table, index, image, log)) is None:
            continue
        kept.append(index)
        truth = truths[index] if asked is None else _only(truths[index], set(categories))
        samples.append(
            Sample(
                id=str(table.image_ids[index]),
                image=image,
                query=Query("detection", categories),
                truth=clipped(truth, size, f"image id {table.image_ids[index]}", log),
                size_wh=size,
                image_id=table.image_ids[index],
            )
        )
    if not samples:
        raise DataError(f"{table.path}: no image is left of {len(table)}: {'; '.join(log.report().lines())}")
    return BoxDataset(tuple(samples), table.take(kept), log.report())


def _only(boxes: Boxes, labels: set[str]) -> Boxes:
    """The boxes of these labels."""
    rows = [row for row, label in enumerate(boxes.labels) if label in labels]
    return Boxes(boxes.xyxy[rows], tuple(boxes.labels[row] for row in rows))


def read_table(path: str | Path, *, split: str | None = None, on_bad: OnBad = "raise") -> BoxTable:
    """The table of an annotation file or folder, as `read_coco` finds it; image files are not touched."""
    file = find_annotations(Path(path), split)
    return _read_table(file, RowLog(file, on_bad))


def table_of(samples: Sequence[Sample]) -> BoxTable:
    """The table that samples of any origin make, each image once, in order; area is width x height, nothing is crowd.

    Samples that share an image (one query each) share a row; categories are all that are asked or true, in order.
    """
    images: dict[Id, int] = {}
    sizes: list[Size] = []
    names: dict[str, int] = {}
    rows: list[tuple[int, int]] = []
    boxes: list[Array] = []
    for sample in samples:
        key = sample.image_id if sample.image_id != "" else sample.id
        if images.setdefault(key, len(images)) == len(sizes):
            sizes.append(sample.size_wh)
        for label in (*sample.query.categories, *sample.truth.labels):
            names.setdefault(label, len(names))
        rows += [(images[key], names[label]) for label in sample.truth.labels]
        boxes.append(sample.truth.xyxy)
    xyxy = np.concatenate([*boxes, np.zeros((0, 4))])
    index = np.array(rows, dtype=np.intp).reshape(-1, 2)
    xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
    return BoxTable(
        path=Path("samples"),
        image_ids=tuple(images),
        file_names=("",) * len(images),
        sizes_wh=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        category_ids=tuple(range(1, len(names) + 1)),
        categories=tuple(names),
        image=index[:, 0],
        category=index[:, 1],
        xywh=xywh,
        area=xywh[:, 2] * xywh[:, 3],
        iscrowd=np.zeros(len(xywh), dtype=bool),
    )


def find_annotations(path: Path, split: str | None) -> Path:
    """The annotation file that `path` and `split` name; DataError listing what there is if they name none.

    A folder without split folders is all one split, whichever is asked for.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder; expected {KINDS}")
    found = find_splits(path)
    if split is not None and (file := found.get(SPLIT_ALIASES.get(split, split)) or _split_file(path, split)):
        return file
    direct = _first_file(path, ANNOTATION_NAMES)
    if direct and (split is None or not found):
        return direct
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise DataError(f"{path}: found no {' or '.join(ANNOTATION_NAMES)} in this folder; expected {KINDS}")
    wanted = f"split {split!r}" if split else "one annotation file"
    has = f"the splits {', '.join(found)}"
    raise DataError(f"{path}: expected {wanted} in this folder, found {has}; {CHOOSE_SPLIT}")


def find_splits(path: Path) -> dict[str, Path]:
    """The annotation file of each of train, valid and test that a folder holds."""
    return {name: file for name in _SPLIT_SPELLINGS if (file := _split_file(path, name))}


def _split_file(folder: Path, split: str) -> Path | None:
    for name in _SPLIT_SPELLINGS.get(split, (split,)):
        if not is_safe_name(name):
            return None
        beside = [f"{name}_{known}" for known in ANNOTATION_NAMES]
        below = [f"{parent}{name}.json" for parent in ("", "annotations/", "annotations/instances_")]
        if file := _first_file(folder / name, ANNOTATION_NAMES) or _first_file(folder, [*beside, *below]):
            return file
        if dated := sorted(folder.glob(f"annotations/instances_{name}[0-9]*.json")):
            return dated[-1]
    return None


def _first_file(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _find_image_dir(file: Path, file_names: Sequence[str]) -> Path:
    """Where the images of `file` are: beside it, or in one of the folders that COCO's users put them in."""
    parent, tail = file.parent, file.stem.removeprefix("instances_")
    above = parent.parent
    places = (parent, parent / "images", above / tail, above / "images" / tail, above / "images")
    probes = [name for name in file_names[:20] if is_safe_name(name)]
    return next((place for place in places if any((place / name).is_file() for name in probes)), parent)


def _image_path(table: BoxTable, index: int, folder: Path, log: RowLog) -> Path | None:
    name, where = table.file_names[index], f"images[{index}] (id {table.image_ids[index]})"
    if not is_safe_name(name):
        log.bad("unsafe_file_name", where, f"file_name: expected a path below the image folder, found {name!r}")
        return None
    if not (folder / name).is_file():
        log.bad("missing_image", where, f"file_name: expected an image at {folder / name}, found no such file")
        return None
    return folder / name


def _size(table: BoxTable, index: int, image: Path, log: RowLog) -> Size | None:
    """Width and height from the file, else from the image, upright."""
    width, height = table.sizes_wh[index].tolist()
    if width and height:
        return width, height
    where = f"images[{index}] (id {table.image_ids[index]})"
    try:
        size = image_size(image)
    except DataError as error:
        log.bad("unreadable_image", where, f"no width and height in the file, and {error}")
        return None
    log.adjust("images_without_size", where, "width and height were read from the image")
    return size


def _truths(table: BoxTable, log: RowLog) -> list[Boxes]:
    """The boxes of each image that a model can be asked for, not yet clipped."""
    for row in np.flatnonzero(table.iscrowd).tolist():
        log.adjust("crowd_regions_left_out", f"annotation {row}", "iscrowd is 1")
    rows: list[list[int]] = [[] for _ in range(len(table))]
    for row in np.flatnonzero(~table.iscrowd).tolist():
        rows[table.image[row]].append(row)
    xyxy = np.concatenate([table.xywh[:, :2], table.xywh[:, :2] + table.xywh[:, 2:]], axis=1)
    return [Boxes(xyxy[own], tuple(table.categories[table.category[row]] for row in own)) for own in rows]


def clipped(boxes: Boxes, size: Size, where: str, log: RowLog) -> Boxes:
    """`boxes` cut off at the image, those of zero size left out, both counted in `log`."""
    xyxy = clip_xyxy(boxes.xyxy, size)
    whole = np.all(xyxy == boxes.xyxy, axis=1)
    filled = np.all(xyxy[:, 2:] > xyxy[:, :2], axis=1)
    for row in np.flatnonzero(~whole | ~filled).tolist():
        reason = "boxes_clipped" if filled[row] else "empty_boxes_left_out"
        log.adjust(reason, where, f"box {boxes.xyxy[row].tolist()} in an image of {size[0]}x{size[1]}")
    return Boxes(xyxy[filled], tuple(label for label, keep in zip(boxes.labels, filled, strict=True) if keep))


def _read_table(file: Path, log: RowLog) -> BoxTable:
    content = read_json(file)
    if not isinstance(content, dict):
        found = type(content).__name__
        raise DataError(f"{file}: expected an object with images, annotations and categories, found a {found}")
    lists: dict[str, list[Any]] = {}
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            found = repr(content.get(key))[:60]
            raise DataError(f"{file}: {key}: expected a list, found {found}; is this a COCO instances file?")
        lists[key] = content[key]
    if not lists["images"]:
        raise DataError(f"{file}: images: expected at least one, found none; the data set is empty")
    names = _read_categories(lists["categories"], lists["annotations"], log)
    images = _read_images(lists["images"], log)
    annotations = _read_annotations(lists["annotations"], _places(images), _places(names), log)
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


def _places(keys: Iterable[Id]) -> dict[Id, int]:
    return {key: place for place, key in enumerate(keys)}


def _read_categories(rows: list[Any], annotations: list[Any], log: RowLog) -> dict[Id, str]:
    """Id -> name, in file order, without Roboflow's superclass."""
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
    if superclasses:
        used = {read_id(row.get("category_id")) for row in annotations if isinstance(row, dict)}
        parents = {row.get("supercategory") for row in rows}
        for identity, name in superclasses.items():
            if name in parents and identity not in used:
                found = f"{name!r} has no boxes and is the others' supercategory"
                log.adjust("superclasses_left_out", f"category id {identity}", found)
                del names[identity]
    if not names:
        raise DataError(f"{log.path}: categories: expected at least one, found none")
    return names


def _read_images(rows: list[Any], log: RowLog) -> dict[Id, tuple[str, Size]]:
    """Id -> (file name, size), in file order."""
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
    """The columns of a `BoxTable` that come from the annotations."""
    image, category, xywh, area, crowd, seen = [], [], [], [], [], set()
    for index, row in enumerate(rows):
        fault = _fault_of(row, images, categories)
        if fault is not None:
            reason, message = fault
            log.bad(reason, f"annotations[{index}] (id {row.get('id') if isinstance(row, dict) else None!r})", message)
            continue
        own = row.get("id")
        if isinstance(own, int | str | float) and own in seen:
            log.adjust("duplicate_annotation_ids", f"annotations[{index}]", f"id {own!r} again; these ids are not used")
        elif own is not None:
            seen.add(own)
        box = row["bbox"]
        if row.get("area") is None:
            log.adjust("areas_computed", f"annotations[{index}]", "no area; width x height is used")
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


def _fault_of(row: Any, images: dict[Id, int], categories: dict[Id, int]) -> tuple[str, str] | None:
    """Why an annotation cannot be used, or None."""
    if not isinstance(row, dict):
        return "bad_row", f"expected an object, found {row!r:.60}"
    if read_id(row.get("image_id")) not in images:
        return "unknown_image_id", f"image_id: expected the id of one of the images, found {row.get('image_id')!r:.60}"
    if read_id(row.get("category_id")) not in categories:
        known = f"expected the id of one of the {len(categories)} categories"
        return "unknown_category_id", f"category_id: {known}, found {row.get('category_id')!r:.60}"
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        return "bad_box", f"bbox: expected four finite numbers [x, y, width, height], found {box!r:.80}"
    if box[2] < 0 or box[3] < 0:
        return "inverted_box", f"bbox: expected [x, y, width, height] with no negative side, found {box!r}"
    if row.get("area") is not None and not is_number(row["area"]):
        return "bad_area", f"area: expected a finite number, found {row['area']!r:.60}"
    if row.get("iscrowd") not in (0, 1, None):
        return "bad_iscrowd", f"iscrowd: expected 0 or 1, found {row['iscrowd']!r:.60}"
    return None
