"""Open registries: everything of which there are many kinds (dialect, reward, reader, ...) is a record with a name.

A record comes from one of three places, so that one file adds a thing, also from outside the package:

- a module in the room's own folder that sets the registry's attribute (`DIALECT = Griffon()`, or a tuple of records);
- an installed package, by the entry point `visionr1.KIND` (`[project.entry-points."visionr1.dialect"]`);
- a name of the form `package.module:object` or `folder/file.py:object`, wherever a user may give a name.

The third runs code that the name points to. So `resolve` is for names that a user types (command line, recipe), and
`known` for names that stand in files (a model folder, a row, a stored result).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from importlib import import_module, metadata
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, Generic, TypeVar

from visionr1.errors import RecipeError

Record = TypeVar("Record")


class Registry(Generic[Record]):
    """The records of one kind, by name."""

    def __init__(
        self,
        kind: str,
        *,
        packages: tuple[str, ...],
        attribute: str,
        named_by_file: bool = False,
        check: Callable[[Any], Record] | None = None,
    ) -> None:
        """Find records in the modules of `packages` that set `attribute`.

        `named_by_file`: a record's name is that of its module, which is imported only when the record is asked for
        (for rooms that need torch); otherwise all modules are imported, and a record says its name itself (`name`).
        `check` turns what a user's `module:object` names into a record, and raises RecipeError if it cannot.
        """
        self.kind = kind
        self._packages = packages
        self._attribute = attribute
        self._named_by_file = named_by_file
        self._check = check
        self._loaders: dict[str, Callable[[], Record]] | None = None

    def names(self) -> tuple[str, ...]:
        """Return the names of all records: those that ship, by file, then those of installed packages."""
        return tuple(self._records())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._records()

    def known(self, name: str) -> Record:
        """Return the record called `name`; RecipeError with the known names if there is none.

        For names that stand in files: `name` is only looked up, and nothing that it points to is imported.
        """
        records = self._records()
        if name in records:
            return records[name]()

        near = get_close_matches(name, records, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RecipeError(f"unknown {self.kind} {name!r}{hint}; known: {', '.join(records)}")

    def resolve(self, name: str) -> Record:
        """Return the record called `name`, or the object that `module:object` or `file.py:object` names.

        Only for names that a user gave: the module is imported. Raises RecipeError if there is none, or if it is no
        record of this kind.
        """
        if ":" not in name:
            return self.known(name)
        return self._checked(import_object(name, self.kind))

    def _checked(self, candidate: Any) -> Record:
        """Return what code from outside the package gave as a record; RecipeError if it is none."""
        record: Record = candidate
        if self._check is not None:
            record = self._check(candidate)
        return record

    def _records(self) -> dict[str, Callable[[], Record]]:
        """Return by name a function that gives the record."""
        # Found at the first use: modules of a room may import the registry that looks for them.
        if self._loaders is None:
            self._loaders = {**self._shipped(), **self._installed()}
        return self._loaders

    def _shipped(self) -> dict[str, Callable[[], Record]]:
        """Find the records of the package's own modules."""
        loaders: dict[str, Callable[[], Record]] = {}
        for package in self._packages:
            for module in iter_modules(import_module(package).__path__):
                path = f"{package}.{module.name}"
                if self._named_by_file:
                    loaders[module.name] = partial(self._import, path)
                    continue

                # A module of helpers does not set the attribute and has no record.
                for record in _as_tuple(getattr(import_module(path), self._attribute, ())):
                    loaders[record.name] = partial(_itself, record)
        return loaders

    def _import(self, path: str) -> Record:
        record: Record = getattr(import_module(path), self._attribute)
        return record

    def _installed(self) -> dict[str, Callable[[], Record]]:
        """Find the records of installed packages, none of which is imported yet."""
        points = metadata.entry_points(group=f"visionr1.{self.kind.replace(' ', '_')}")
        return {point.name: partial(self._load, point) for point in points}

    def _load(self, point: metadata.EntryPoint) -> Record:
        with importing(f"{self.kind} {point.name!r} of an installed package", point.value):
            candidate = point.load()
        return self._checked(candidate)


def import_object(name: str, kind: str) -> Any:
    """Import the object that `package.module:object` or `folder/file.py:object` names.

    Raises RecipeError if the name has another form, or if module or object cannot be had.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise RecipeError(f"{kind} {name!r}: expected module:object or file.py:object")

    with importing(f"{kind} {name!r}", place):
        module = _import_file(Path(place)) if place.endswith(".py") else import_module(place)
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        public = ", ".join(sorted(key for key in vars(module) if not key.startswith("_")))
        raise RecipeError(f"{kind} {name!r}: {place} has no {attribute!r}; it has {public}") from error


@contextmanager
def importing(what: str, place: str) -> Iterator[None]:
    """Turn what code from outside the package raises while it is imported into RecipeError."""
    # It may raise anything; a script may even exit.
    try:
        yield
    except (Exception, SystemExit) as error:
        raise RecipeError(f"{what}: cannot import {place}: {type(error).__name__}: {error}") from error


class ImportedFiles:
    """The files of a user's that were imported, to be imported again where this is unpickled.

    Objects of such a file can be unpickled only after it: put this first into what goes to a process that is not
    forked.
    """

    def __init__(self) -> None:
        self.paths = tuple(_imported_files)

    def __reduce__(self) -> tuple[Callable[[tuple[Path, ...]], ImportedFiles], tuple[tuple[Path, ...]]]:
        return _import_files, (self.paths,)


def _import_files(paths: tuple[Path, ...]) -> ImportedFiles:
    for path in paths:
        _import_file(path)
    return ImportedFiles()


_imported_files: list[Path] = []


def _import_file(path: Path) -> ModuleType:
    """Import the file at `path` once, under a name by which its objects can be pickled."""
    resolved = path.resolve()
    name = f"visionr1_user_{resolved.stem}_{hashlib.sha256(str(resolved).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    if not resolved.is_file():
        raise FileNotFoundError(f"there is no file {path}")

    # As the import system does it: the module is known by name while its code runs.
    spec = spec_from_file_location(name, resolved)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _imported_files.append(resolved)
    return module


def _itself(record: Record) -> Record:
    return record


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
