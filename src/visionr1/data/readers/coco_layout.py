"""Where users of COCO keep things: the annotation file in a folder, and the folders of its images.

Known are the layouts of COCO itself (`annotations/instances_val2017.json` beside `val2017/`), ODinW, Roboflow, CVAT
(`annotations/instances_default.json`), FiftyOne (`labels.json` beside `data/`) and Label Studio (`result.json`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from visionr1.data.image_lookup import ImageLookup
from visionr1.data.readers import describe_readers
from visionr1.data.readers.base import CHOOSE_SPLIT
from visionr1.data.row_log import first_file, is_safe_name
from visionr1.errors import DataError

ANNOTATION_NAMES = (
    "annotations_without_background.json",
    "_annotations.coco.json",
    "annotations.json",
    "labels.json",
    "result.json",
)
SPLIT_ALIASES = {"val": "valid", "validation": "valid"}
_SPLIT_SPELLINGS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
_WHOLE_SET_NAMES = ("annotations/instances_default.json", "annotations/instances_all.json")
_ANNOTATION_FOLDERS = ("annotations", "annotation", "labels")
"""Names of folders that hold annotation files alone, so that the data set is the folder above."""


def find_annotations(path: Path, split: str | None) -> Path:
    """Return the annotation file that `path` and `split` name; DataError listing what there is if they name none.

    A folder without split folders is all one split, whichever is asked for.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder; expected {describe_readers()}")

    # The split asked for, under its usual name or any other.
    files = find_split_files(path)
    if split is not None:
        file = files.get(SPLIT_ALIASES.get(split, split)) or _find_split_file(path, split)
        if file is not None:
            return file

    # An annotation file of the folder itself, or that of its only split.
    direct = find_direct(path)
    if direct and (split is None or not files):
        return direct
    if split is None and len(files) == 1:
        return next(iter(files.values()))

    # Nothing fits: say what there is instead.
    if not files:
        raise DataError(f"{path}: {_describe_lack(path)}; expected {describe_readers()}")
    expected = "one annotation file"
    if split:
        expected = f"split {split!r}"
    splits = ", ".join(files)
    raise DataError(f"{path}: expected {expected} in this folder, found the splits {splits}; {CHOOSE_SPLIT}")


def find_direct(folder: Path) -> Path | None:
    """Return the annotation file that a folder holds for all its images, under one of its usual names."""
    return first_file(folder / name for name in (*ANNOTATION_NAMES, *_WHOLE_SET_NAMES))


def find_split_files(path: Path) -> dict[str, Path]:
    """Return the annotation file of each of train, valid and test that a folder holds."""
    files = {}
    for split in _SPLIT_SPELLINGS:
        file = _find_split_file(path, split)
        if file is not None:
            files[split] = file
    return files


def _find_split_file(folder: Path, split: str) -> Path | None:
    """Return the annotation file of a split: in a folder of its name, or beside others with its name."""
    for name in _SPLIT_SPELLINGS.get(split, (split,)):
        # A name that a user typed must not lead out of the folder.
        if not is_safe_name(name):
            return None

        # CVAT writes the subset as its user called it, often "Train".
        for spelling in dict.fromkeys((name, name.capitalize())):
            places = [folder / spelling / file_name for file_name in ANNOTATION_NAMES]
            places += [folder / f"{spelling}_{file_name}" for file_name in ANNOTATION_NAMES]
            for parent in ("", "annotations/", "annotations/instances_"):
                places.append(folder / f"{parent}{spelling}.json")
            file = first_file(places)
            if file is not None:
                return file

        # COCO's own names end in a year: instances_val2017.json.
        dated = sorted(folder.glob(f"annotations/instances_{name}[0-9]*.json"))
        if dated:
            return dated[-1]
    return None


def _describe_lack(folder: Path) -> str:
    """Return the words for a folder without an annotation file under a usual name: what was looked for, what is there.

    A JSON file of another name is a data source itself, which the message says.
    """
    names = f"found no {' or '.join((*ANNOTATION_NAMES, *_WHOLE_SET_NAMES))} in this folder"
    others = sorted(path.name for path in folder.glob("*.json"))
    others += sorted(f"annotations/{path.name}" for path in folder.glob("annotations/*.json"))
    if not others:
        return names
    return f"{names}, but {', '.join(others[:5])}: name the file itself if it is one"


def open_images(file: Path, names: Sequence[str], image_dir: Path | None = None) -> ImageLookup:
    """Return where the images of an annotation file are looked up; `image_dir` is the folder that a user named."""
    if image_dir is not None:
        if not image_dir.is_dir():
            raise DataError(f"{image_dir}: expected the folder of the images of {file}, found no such folder")
        return ImageLookup([image_dir], names)
    folders, root = _list_image_folders(file)
    return ImageLookup(folders, names, roots=[root])


def _list_image_folders(file: Path) -> tuple[list[Path], Path]:
    """Return the folders in which the images of an annotation file may be, and the folder of the data set."""
    parent = file.parent
    above = parent.parent

    # Of instances_val2017.json the images are in val2017, of train_annotations.coco.json in train.
    tail = file.stem.removeprefix("instances_").partition("_annotations")[0]
    beside = [parent, parent / "images", parent / "data"]
    if tail:
        beside += [parent / tail, parent / "images" / tail]
    around = [above / "images", above / "data"]
    if tail:
        around = [above / tail, above / "images" / tail, *around]

    if parent.name.casefold() in _ANNOTATION_FOLDERS:
        return [*around, above, *beside], above
    return [*beside, *around], parent
