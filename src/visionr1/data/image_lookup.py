"""Find the image files that annotations name, in the folders where users of a format keep them.

A folder is listed once, so a set of 100,000 names costs a hundred thousand dictionary look-ups, not that many calls of
the file system for each folder. A name is looked up as it stands first, then as other systems and tools spell it:

- `images\\1.jpg`: Windows' separator (Label Studio, labelme);
- `my%20cat.jpg`: quoted as in a URL;
- `1.jpg` for `1.JPG`, and composed for decomposed letters (macOS); not if two files differ in that alone;
- `http://host/train2017/1.jpg`: `train2017/1.jpg` or `1.jpg`, if it lies there. Nothing is fetched.

No name leads out of a folder (`row_log.is_safe_name`). Symbolic links are followed, as users link whole image folders.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from visionr1.data.row_log import is_file, is_safe_name
from visionr1.images import has_size
from visionr1.samples import Size

NAME_FOLDER = (
    "name their folder with --images, in a recipe data.images "
    "(docs/faq.md#no-such-file-although-the-pictures-are-there)"
)
"""What to do where images are not found, for messages of readers that take a folder of images."""
MAX_SUBFOLDERS = 64
"""Subfolders that are searched below each of `roots`; a folder with more is no data set's."""


class ImageLookup:
    """The folders in which images are looked up by name, the one that has most of `names` first.

    `roots` are folders whose subfolders are searched for what is in none of `folders`: one file may annotate several
    folders of images.
    """

    def __init__(self, folders: Sequence[Path], names: Iterable[str] = (), roots: Sequence[Path] = ()) -> None:
        self._listings: dict[Path, _Listing] = {}
        self._roots = roots
        self._subfolders_of_entry: dict[str, list[Path]] | None = None
        self.is_guess = len(folders) > 1
        """True if the folder is one of several where images usually are, so that a user may know better."""

        # The first stays even if it is not there, because messages name it.
        first, *others = dict.fromkeys(folders)
        self.folders = self._rank([first, *filter(Path.is_dir, others)], names)

    def find(self, name: str, size_wh: Size = (0, 0)) -> Path | None:
        """Return the file of an image; None if there is none, or if it cannot be told which of several it is.

        `size_wh` is what the annotations say of it, (0, 0) if nothing: between files of one name in several folders it
        decides, so that a thumbnail is never taken for its picture.
        """
        spellings = list(_spell(name))
        best = self._find_below(self.folders[0], spellings)
        others = []
        for folder in self.folders[1:]:
            path = self._find_below(folder, spellings)
            if path is not None:
                others.append(path)

        # Sizes are only asked where there is a choice, or where a file lies elsewhere than the others.
        if best is not None and (not others or _fits(best, size_wh)):
            return best
        for path in others:
            if _fits(path, size_wh):
                return path
        if best is not None:
            return best  # reading it says how the size differs

        # Deeper in the data folder only if there is one such file, for folders of splits often number alike.
        deeper = {path for path in self._find_deeper(name) if _fits(path, size_wh)}
        return deeper.pop() if len(deeper) == 1 else None

    def find_all(self, names: Sequence[str], sizes_wh: Sequence[Size]) -> list[Path | None]:
        """Return the file of each image, as `find`; None also where names that differ would mean the same file.

        Of those only a name that is spelled as the file keeps it: of `a/1.jpg` and `b/1.jpg` on a server, a local
        `1.jpg` may be either.
        """
        paths = list(map(self.find, names, sizes_wh))
        names_of_path: dict[Path, set[str]] = {}
        for name, path in zip(names, paths, strict=True):
            if path is not None:
                names_of_path.setdefault(path, set()).add(name)

        for place, (name, path) in enumerate(zip(names, paths, strict=True)):
            if path is not None and len(names_of_path[path]) > 1 and not is_spelled_so(name, path):
                paths[place] = None
        return paths

    def describe_others(self) -> str:
        """Return the words for where else than in the first folder images were looked for."""
        return ", ".join(map(str, self.folders[1:])) or "the usual folders near it"

    def _rank(self, folders: list[Path], names: Iterable[str]) -> list[Path]:
        """Return the folders, that which has most of the names first, else in the order given."""
        if len(folders) == 1:
            return folders
        num_hits: Counter[Path] = Counter()
        for name in names:
            spellings = list(_spell(name))
            for folder in folders:
                num_hits[folder] += self._find_below(folder, spellings) is not None
        return sorted(folders, key=lambda folder: -num_hits[folder])

    def _find_below(self, folder: Path, spellings: Sequence[str]) -> Path | None:
        """Return the file below one folder that a name means, in the first of its spellings that is there."""
        for spelling in spellings:
            path = self._walk(folder, spelling)
            if path is not None:
                return path
        return None

    def _walk(self, folder: Path, name: str) -> Path | None:
        """Follow a name with `/` part by part; None if there is no such file."""
        *parents, last = _split(name) or [""]
        for part in parents:
            entry = self._list(folder).match(part)
            if entry is None:
                return None
            folder = folder / entry

        entry = self._list(folder).match(last)
        if entry is None or not is_file(folder / entry):
            return None
        return folder / entry

    def _list(self, folder: Path) -> _Listing:
        """Return the entries of a folder, which is read once."""
        if folder not in self._listings:
            self._listings[folder] = _Listing(folder)
        return self._listings[folder]

    def _find_deeper(self, name: str) -> Iterator[Path]:
        """Yield the files that a name means in the subfolders of `roots`."""
        if self._subfolders_of_entry is None:
            self._subfolders_of_entry = {}
            for folder in self._list_subfolders():
                for key in self._list(folder).entries_by_key():
                    self._subfolders_of_entry.setdefault(key, []).append(folder)

        # Only the folders that hold the first part, because all images may be missing and folders many.
        for spelling in _spell(name, with_url_file=False):
            first = next(iter(_split(spelling)), "")
            for folder in self._subfolders_of_entry.get(_comparison_key(first), ()):
                path = self._walk(folder, spelling)
                if path is not None:
                    yield path

    def _list_subfolders(self) -> Iterator[Path]:
        """Yield the folders below `roots`, and below an `images` among them, that are none of `folders`."""
        for root in dict.fromkeys(self._roots):
            for folder in _iterate_subfolders(root):
                below = [folder]
                if folder.name.casefold() == "images":
                    below += _iterate_subfolders(folder)
                yield from (path for path in below if path not in self.folders)


class _Listing:
    """The entries of one folder, by name and by the key under which names are compared."""

    def __init__(self, folder: Path) -> None:
        try:
            self._names = set(os.listdir(folder))  # noqa: PTH208 (no path for each of 100,000 entries)
        except OSError:
            self._names = set()
        self._by_key: dict[str, list[str]] | None = None

    def match(self, name: str) -> str | None:
        """Return the entry of this name, or the only one that differs from it in case or composition alone."""
        if name in self._names:
            return name

        # Most names are there as they stand, so the keys are only made for the first that is not.
        entries = self.entries_by_key().get(_comparison_key(name), ())
        return entries[0] if len(entries) == 1 else None

    def entries_by_key(self) -> Mapping[str, Sequence[str]]:
        """Return the entries by the key under which they are compared."""
        if self._by_key is None:
            self._by_key = {}
            for entry in self._names:
                self._by_key.setdefault(_comparison_key(entry), []).append(entry)
        return self._by_key


def is_spelled_so(name: str, path: Path) -> bool:
    """Return True if a file that was found is called as its name says, without another spelling."""
    parts = tuple(_split(name))
    return path.parts[-len(parts) :] == parts


def _split(name: str) -> list[str]:
    """Return the parts of a name with `/` that say something."""
    return [part for part in name.split("/") if part not in ("", ".")]


def _comparison_key(name: str) -> str:
    """Return a name composed (NFC) and without regard to case."""
    return unicodedata.normalize("NFC", name).casefold()


def _spell(name: str, *, with_url_file: bool = True) -> Iterator[str]:
    """Yield the names, with `/`, that `name` may mean below a folder: itself first. None leads out of the folder."""
    if "://" in name[:10] or name.startswith("/data/"):
        yield from _spell_url(name, with_file=with_url_file)
        return
    if not is_safe_name(name):
        return
    yield name
    if "\\" in name:
        yield name.replace("\\", "/")
    if "%" in name and is_safe_name(unquote(name)):
        yield unquote(name).replace("\\", "/")


def _spell_url(url: str, *, with_file: bool) -> Iterator[str]:
    """Yield the ends of a URL's path that may name a file: folder and file, then (`with_file`) the file alone."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return

    # Label Studio serves local files as /data/local-files/?d=images/1.jpg.
    path = parse_qs(parts.query).get("d", [unquote(parts.path)])[0]
    names = [part for part in path.replace("\\", "/").split("/") if part]
    lengths = (2, 1) if with_file else (2,)
    for length in lengths:
        end = "/".join(names[-length:])
        if len(names) >= length and is_safe_name(end):
            yield end


def _fits(path: Path, size_wh: Size) -> bool:
    """Return True if an image has the size that is stated, upright or as stored; also if none is stated."""
    return not all(size_wh) or has_size(path, size_wh)


def _iterate_subfolders(folder: Path) -> Iterator[Path]:
    """Yield the folders in a folder, in the order of their names; none if there are more than MAX_SUBFOLDERS."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return
    if len(names) <= MAX_SUBFOLDERS:
        for name in sorted(names):
            yield folder / name
