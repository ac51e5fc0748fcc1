"""Where a folder of Pascal VOC keeps what: XML files, lists of names by split, pictures and the list of classes.

The layout is that of VOC's own years, with what tools and users make of it: XML in subfolders and `.XML` (CVAT,
datumaro), names with blanks, quoted or with a flag behind them (VOC's lists by class), pictures in `images/`, label
maps, no lists at all (LabelImg), XML beside the pictures, in a folder for each split (Roboflow). Hidden files, such as
macOS's `._a.xml`, are left out everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from visionr1.data.image_lookup import ImageLookup
from visionr1.data.readers.base import CHOOSE_SPLIT
from visionr1.data.readers.voc_xml import decode_text, read_bytes
from visionr1.data.row_log import RowLog, is_safe_name
from visionr1.errors import DataError
from visionr1.samples import Size, compose_text, normalize_label

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
"""Endings of pictures, in the order in which they are tried."""
CLASS_FILES = ("labelmap.txt", "label_map.txt", "labels.txt")
"""Lists of classes beside `Annotations/`: of CVAT and datumaro, of older datumaro, of others."""

_IMAGE_FOLDERS = ("jpegimages", "images", "jpgimages", "pngimages", "imgs", "img")
_SPLITS = ("train", "val", "valid", "validation", "test")
_SPLIT_ALIASES = {
    "valid": ("valid", "val", "validation"),
    "validation": ("validation", "val", "valid"),
    "val": ("val", "valid", "validation"),
}
_FLAGS = ("1", "0", "-1")
_MAX_LIST_BYTES = 256 << 20
_MAX_DEPTH = 32
"""Levels of folders that are searched for XML."""
_BACKGROUNDS = ("background", "__background__", "_background_", "__ignore__")


class Listed(NamedTuple):
    """One image of a split: its id, which is the name of its XML file, that file and where the image is listed."""

    name: str
    xml: Path | None
    """None for a picture that has no XML file: it has no objects."""
    where: str
    picture: str = ""
    """The name of that picture; "" where the XML file says it."""


def find_annotations_folder(path: Path) -> Path | None:
    """Return `Annotations/`, in any case; else the folder itself if XML lies in it or in the folders of its splits.

    None if there is neither. Where JSON lies beside the XML, only `Annotations/` in VOC's own spelling is taken.
    """
    folder = path / "Annotations"
    if folder.is_dir():
        return folder

    # COCO's users call the folder of their JSON so.
    for folder in (path / "annotations", path / "ANNOTATIONS", path):
        if _holds_xml_alone(folder):
            return folder
    return None


def _holds_xml_alone(folder: Path) -> bool:
    """Return True if XML and no JSON lies in a folder or in those of its splits."""
    folders = [folder]
    for name in _SPLITS:
        folders += [folder / name, folder / name.capitalize()]
    if any(next(each.glob("*.json"), None) for each in folders):
        return False
    xml_files = (file for each in folders for file in each.glob("*.[xX][mM][lL]"))
    return any(not file.name.startswith(".") for file in xml_files)


def list_xml_files(folder: Path) -> dict[str, Path]:
    """Return the XML files below a folder, sorted, by their names below it without the ending ("sub/a")."""
    files: dict[str, Path] = {}
    for parent, folders, file_names in os.walk(folder):
        depth = len(Path(parent).relative_to(folder).parts)
        folders[:] = [name for name in folders if not name.startswith(".") and depth < _MAX_DEPTH]
        for file_name in sorted(file_names):
            if not file_name.lower().endswith(".xml") or file_name.startswith("."):
                continue
            path = Path(parent, file_name)
            below = path.relative_to(folder)

            # a.xml and a.XML may both be there.
            name = below.with_suffix("").as_posix()
            files[below.as_posix() if name in files else name] = path
    return dict(sorted(files.items()))


def find_images(path: Path, annotations: Path, image_dir: Path | None) -> ImageLookup:
    """Return the look-up of pictures: in `image_dir`, or the usual folders, or beside the XML files.

    Other folders are not searched: in `SegmentationClass/` lie masks with the names of pictures.
    """
    if image_dir is not None:
        return ImageLookup([image_dir])
    folders = [entry for entry in path.iterdir() if entry.name.casefold() in _IMAGE_FOLDERS and entry.is_dir()]
    folders.sort(key=lambda folder: (_IMAGE_FOLDERS.index(folder.name.casefold()), folder.name))
    if not folders and annotations != path:
        folders = [path / "JPEGImages"]
    return ImageLookup([*folders, path, annotations])


def find_picture(images: ImageLookup, name: str, size_wh: Size = (0, 0)) -> str | None:
    """Return the name of the picture that is called `name`, which has no ending; None if there is none."""
    for ending in IMAGE_ENDINGS:
        if images.find(f"{name}{ending}", size_wh):
            return f"{name}{ending}"
    return None


def list_split(
    path: Path, split: str | None, xml_files: Mapping[str, Path], images: ImageLookup, log: RowLog
) -> list[Listed]:
    """Return the images of a split; all that have an XML file if none is asked for, or if the folder has no splits.

    Splits are lists of names, or else folders of XML. Raises DataError if there are some and none is of the split; an
    entry that names nothing, or an image again, is a bad row.
    """
    everything = [Listed(name, file, file.name) for name, file in xml_files.items()]
    if split is None:
        return everything
    folders = _find_split_folders(xml_files)
    file = _find_list(path, split, folders)
    if file is None and folders:
        folder = _choose_split(path, split, folders, "the folders of XML")
        log.note(f"split {split!r}: the XML files in {folder}/")
        return [entry for entry in everything if entry.name.startswith(f"{folder}/")]
    if file is None:
        link = "docs/faq.md#train-and-eval-read-the-same-images-of-my-folder"
        log.note(f"no lists in ImageSets/Main: split {split!r} is all {len(everything)} annotations ({link})")
        return everything

    log.note(f"split {split!r}: {file.relative_to(path)}")
    return _read_list(path, file, xml_files, images, log)


def _read_list(path: Path, file: Path, xml_files: Mapping[str, Path], images: ImageLookup, log: RowLog) -> list[Listed]:
    """Return the images that a list of a folder names, as `list_split`."""
    lines = _read_lines(file)
    if not lines:
        raise DataError(f"{file}: expected names of images, one a line, found none")
    entries = _Entries(xml_files, images)
    is_by_class = all(map(_cut_flag, lines.values()))
    listed: dict[str, Listed] = {}
    for number, line in lines.items():
        where = f"{file.relative_to(path)}, line {number}"
        entry = entries.find(line, where)
        if entry is None:
            # Only what names nothing can have a flag; in a list by class every line has one.
            entry = entries.find(_cut_flag(line), where)
            if entry is not None and not is_by_class:
                log.adjust("names_read_without_a_flag", where, f"{line!r:.120} is read as {entry.name!r:.120}")
        if entry is None:
            expected = "expected the name of a file in Annotations, or of a picture, found neither"
            if not is_safe_name(line):
                expected = "expected the name of a file in Annotations"
            link = "docs/faq.md#a-line-of-a-list-names-nothing"
            log.bad("unknown_names_in_list", where, f"{line!r:.120}: {expected} ({link})")
        elif entry.name in listed:
            message = f"expected each image once, found {line!r:.120} again, after {listed[entry.name].where}"
            log.bad("duplicate_image_id", where, message)
        else:
            listed[entry.name] = entry
    return list(listed.values())


def find_splits(path: Path) -> tuple[str, ...]:
    """Return the usual splits of a folder; VOC's own also has lists by class, of the same images."""
    names: Iterable[str] = _find_lists(path)
    annotations = find_annotations_folder(path)
    if not names and annotations is not None:
        names = _find_split_folders(list_xml_files(annotations))
    present = {name.casefold() for name in names}
    return tuple(split for split in _SPLITS if split in present)


def read_class_list(path: Path) -> tuple[str, list[str]] | None:
    """Return the name of a list of classes and the classes in it; None if the folder has none.

    A line is a class, or of a label map `name:color:parts:actions`; a background is no class.
    """
    for file_name in CLASS_FILES:
        file = path / file_name
        if not file.is_file():
            continue
        names = []
        for line in map(str.strip, _read_lines(file).values()):
            if not line.startswith("#"):
                name = line.rsplit(":", 3)[0].strip() if line.count(":") >= 3 else line
                names.append(compose_text(name))
        classes = [name for name in dict.fromkeys(names) if name and name.casefold() not in _BACKGROUNDS]
        if classes:
            return file_name, classes
    return None


class _Entries:
    """What the lines of one list may name: XML files, and pictures that have none."""

    def __init__(self, xml_files: Mapping[str, Path], images: ImageLookup) -> None:
        self._xml_files = xml_files
        self._images = images

        # A name without its folder means the only XML file of that name; macOS decomposes letters, Windows has no case.
        self._names_by_spelling: dict[str, set[str]] = {}
        for name in xml_files:
            for spelling in (name, name.rpartition("/")[2]):
                self._names_by_spelling.setdefault(normalize_label(spelling), set()).add(name)

    def find(self, line: str, where: str) -> Listed | None:
        """Return what a line names: the whole of it first, then without quotes; None for nothing."""
        if line in self._xml_files:
            return Listed(line, self._xml_files[line], where)
        if not is_safe_name(line):
            return None
        for text in _unquote(line.strip()):
            names = _shorten(text)
            for name in names:
                xml_name = self._find_xml(name)
                if xml_name is not None:
                    return Listed(xml_name, self._xml_files[xml_name], where)

            # No XML, but a picture of this name or without its ending.
            for name in names:
                picture = name if self._images.find(name) else find_picture(self._images, name)
                if picture is not None:
                    return self._find_listed(picture, where)
        return None

    def _find_xml(self, name: str) -> str | None:
        """Return the name of the XML file that `name` means, as it stands or the only one of other spelling."""
        if name in self._xml_files:
            return name
        candidates = self._names_by_spelling.get(normalize_label(name), set())
        return next(iter(candidates)) if len(candidates) == 1 else None

    def _find_listed(self, picture: str, where: str) -> Listed:
        """Return the image of a picture: only pictures may lie in subfolders; if it has no XML, it has no objects."""
        name = picture.rpartition(".")[0] or picture
        xml_name = self._find_xml(name.rpartition("/")[2])
        if xml_name is not None and "/" not in xml_name:
            return Listed(xml_name, self._xml_files[xml_name], where, picture)
        return Listed(name, None, where, picture)


def _cut_flag(line: str) -> str:
    """Return a line without the flag that lists by class have behind each name; "" if it has none."""
    *name, flag = line.rsplit(maxsplit=1)
    return name[0].strip() if name and flag in _FLAGS else ""


def _unquote(line: str) -> list[str]:
    """Return a line, and what it is without the quotes in which datumaro and CVAT put names with blanks."""
    texts = [line]
    quote = line[0]
    if quote in "\"'" and line.find(quote, 1) > 1:
        inside = line[1 : line.rfind(quote)]
        texts += [inside, inside.replace(f"\\{quote}", quote)]
    return texts


def _shorten(name: str) -> list[str]:
    """Return a name without the folder of pictures or XML that it begins with, as it is and without its ending.

    Separators are `/`, as on the disk; parts that say nothing (`./`) are left out.
    """
    name = "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
    folder, _, rest = name.partition("/")
    if rest and folder.casefold() in (*_IMAGE_FOLDERS, "annotations"):
        name = rest
    stem, dot, ending = name.rpartition(".")
    if stem and f"{dot}{ending}".lower() in (*IMAGE_ENDINGS, ".xml"):
        return [name, stem]
    return [name]


def _find_list(path: Path, split: str, folders: Sequence[str]) -> Path | None:
    """Return the list of a split, or the only list if that is CVAT's default.txt; None if there is no list at all.

    Where the splits are `folders`, a list of all of them says nothing.
    """
    lists = _find_lists(path)
    if not lists or list(lists) == ["default"]:
        return None if folders else lists.get("default")
    return lists[_choose_split(path, split, list(lists), "ImageSets/Main")]


def _choose_split(path: Path, split: str, names: Sequence[str], place: str) -> str:
    """Return the name of the list or folder of a split, in any case; DataError if none is of it."""
    for alias in _SPLIT_ALIASES.get(split, (split,)):
        if alias in names:
            return alias
        same = [name for name in names if name.casefold() == alias.casefold()]
        if len(same) == 1:
            return same[0]
    known = ", ".join(names[:9])
    raise DataError(f"{path}: expected split {split!r} in {place}, found {known}; {CHOOSE_SPLIT}")


def _find_split_folders(xml_files: Iterable[str]) -> list[str]:
    """Return the folders that the XML files lie in if these are splits by their names, each in one; else none."""
    folders = list(dict.fromkeys(name.partition("/")[0] if "/" in name else "" for name in xml_files))
    if folders and all(folder.casefold() in _SPLITS for folder in folders):
        return folders
    return []


def _find_lists(path: Path) -> dict[str, Path]:
    """Return the lists of a folder by name, sorted: those of `ImageSets/Main`, or if there are none of `ImageSets`."""
    for folder in (path / "ImageSets/Main", path / "ImageSets"):
        lists: dict[str, Path] = {}
        for file in sorted(folder.glob("*.[tT][xX][tT]")):
            if not file.name.startswith(".") and file.is_file():
                lists[file.stem] = file
        if lists:
            return lists
    return {}


def _read_lines(file: Path) -> dict[int, str]:
    """Return the lines of a text file that are not blank, by their number from 1; DataError if it is no text.

    Blanks around a name are part of the line, because they may be part of the name.
    """
    try:
        text = decode_text(read_bytes(file, _MAX_LIST_BYTES))
    except (LookupError, UnicodeError) as error:
        raise DataError(f"{file} is not UTF-8 text: {error}") from error

    # A newline alone ends a line: names may hold other characters that break lines, such as U+2028.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return {number: line for number, line in enumerate(lines, 1) if line.strip()}
