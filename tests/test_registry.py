"""Registries: what ships, what a file or an installed package adds, and what is refused."""

import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

from visionr1.errors import RecipeError
from visionr1.registry import ImportedFiles, Registry


@dataclass(frozen=True)
class Animal:
    name: str


@pytest.fixture
def animals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[Animal]]:
    """A registry over a package of two modules with three records, and one module without."""
    room = tmp_path / "zoo_room"
    room.mkdir()
    (room / "__init__.py").touch()
    head = "from dataclasses import dataclass\n@dataclass\nclass A:\n    name: str\n"
    (room / "birds.py").write_text(head + "ANIMAL = (A('owl'), A('kiwi'))\n")
    (room / "cats.py").write_text(head + "ANIMAL = A('lynx')\n")
    (room / "helpers.py").write_text("class Eel:\n    name = 'eel'\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield Registry("animal", packages=("zoo_room",), attribute="ANIMAL", check=_animal)
    for name in [name for name in sys.modules if name.startswith("zoo_room")]:
        del sys.modules[name]


def _animal(found: object) -> Animal:
    if not hasattr(found, "name"):
        raise RecipeError(f"an animal needs a name, found {found!r}")
    return found  # type: ignore[return-value]


def test_files_of_the_room_are_records(animals: Registry[Animal]) -> None:
    assert animals.names() == ("owl", "kiwi", "lynx")
    assert animals.known("lynx").name == "lynx"


def test_an_unknown_name_says_which_are_known(animals: Registry[Animal]) -> None:
    with pytest.raises(RecipeError, match=r"unknown animal 'linx'; did you mean 'lynx'\?; known: owl, kiwi, lynx"):
        animals.known("linx")


def test_a_file_outside_the_package_adds_one(animals: Registry[Animal], tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("class Yak:\n    name = 'yak'\nyak = Yak()\n")
    assert animals.resolve(f"{file}:yak").name == "yak"
    assert animals.resolve(f"{file}:yak") is animals.resolve(f"{file}:yak")  # imported once


def test_a_module_adds_one(animals: Registry[Animal]) -> None:
    assert animals.resolve("zoo_room.helpers:Eel").name == "eel"


def test_an_installed_package_adds_one(animals: Registry[Animal], monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("dodo", "zoo_room.helpers:Eel", "visionr1.animal")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point] if group == "visionr1.animal" else [])
    assert animals.names()[-1] == "dodo"
    assert animals.known("dodo").name == "eel"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("zoo_room.birds:A", "an animal needs a name, found <class"),  # imported, but no record
        ("no_such_module_here:x", "animal 'dodo' of an installed package: cannot import no_such_module_here:x"),
        ("zoo_room.birds:Emu", "cannot import zoo_room.birds:Emu: AttributeError"),
    ],
)
def test_a_record_of_an_installed_package_is_checked(
    animals: Registry[Animal], monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    point = metadata.EntryPoint("dodo", value, "visionr1.animal")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point])
    with pytest.raises(RecipeError, match=message):
        animals.known("dodo")


def test_objects_of_a_user_s_file_reach_a_process_that_is_not_forked(animals: Registry[Animal], tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("class Yak:\n    name = 'yak'\nyak = Yak()\n")
    yak = animals.resolve(f"{file}:yak")
    (tmp_path / "pickled").write_bytes(pickle.dumps({"files": ImportedFiles(), "animal": yak}))
    program = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb'))['animal'].name)"
    command = [sys.executable, "-c", program, str(tmp_path / "pickled")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "yak\n"


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("x = 1", "x", "an animal needs a name, found 1"),
        ("x = 1", "y", "has no 'y'; it has x"),
        ("1 / 0", "x", "ZeroDivisionError"),
        ("import no_such_module_here", "x", "no_such_module_here"),
        ("def (", "x", "SyntaxError"),
        ("raise SystemExit(0)", "x", "SystemExit: 0"),
        (None, "x", "there is no file"),
    ],
)
def test_what_is_no_record_is_named(
    animals: Registry[Animal], tmp_path: Path, content: str | None, name: str, message: str
) -> None:
    file = tmp_path / "mine.py"
    if content is not None:
        file.write_text(content)
    with pytest.raises(RecipeError, match=message):
        animals.resolve(f"{file}:{name}")


def test_a_name_from_a_file_runs_nothing(animals: Registry[Animal], tmp_path: Path) -> None:
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nx = 1\n")
    with pytest.raises(RecipeError, match="unknown animal"):
        animals.known(f"{trap}:x")
    assert not (tmp_path / "sprung").exists()


def test_names_by_file_import_nothing(animals: Registry[Animal]) -> None:
    named = Registry[Animal]("animal", packages=("zoo_room",), attribute="ANIMAL", named_by_file=True)
    assert named.names() == ("birds", "cats", "helpers")
    assert "zoo_room.cats" not in sys.modules
    assert named.known("cats").name == "lynx"
