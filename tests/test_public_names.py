"""The names of `import visionr1`: one list for people, for the import system and for type checkers."""

import ast
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import visionr1

SOURCE = Path(visionr1.__file__)
NAMES = sorted(set(visionr1.__all__) - {"__version__"})


def names_for_checkers() -> dict[str, str]:
    """Name -> module of the imports that only type checkers see."""
    (block,) = [
        node
        for node in ast.parse(SOURCE.read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names}


def test_all_lists_hold_the_same_names() -> None:
    assert names_for_checkers() == visionr1._HOME
    assert sorted(visionr1._HOME) == NAMES
    assert dir(visionr1) == sorted(visionr1.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_what_its_module_holds(name: str) -> None:
    assert getattr(visionr1, name) is getattr(sys.modules[visionr1._HOME[name]], name)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Box'"):
        visionr1.Box  # noqa: B018


def test_importing_the_package_loads_none_of_its_modules() -> None:
    program = "import sys, visionr1; print(*[name for name in sys.modules if name.startswith('visionr1.')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_type_checkers_see_types(tmp_path: Path) -> None:
    lines = ["import visionr1", *(f"reveal_type(visionr1.{name})" for name in NAMES), "visionr1.Box"]
    (tmp_path / "user.py").write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--follow-imports", "silent", "--cache-dir", "cache", "user.py"]
    environment = {**os.environ, "MYPYPATH": str(SOURCE.parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    revealed = dict(zip(NAMES, re.findall(r'Revealed type is "(.*)"', done.stdout), strict=True))
    assert [name for name, kind in revealed.items() if kind == "Any"] == []
    assert "visionr1.samples.Boxes" in revealed["Boxes"]
    assert "visionr1.dialects" in revealed["get_dialect"]
    assert 'Module has no attribute "Box"' in done.stdout


def test_the_version_is_that_of_the_changelog() -> None:
    assert visionr1.__version__ == "0.2.0"
    changelog = SOURCE.parents[2] / "CHANGELOG.md"
    versions = re.findall(r"^## (\S+)", changelog.read_text(encoding="utf-8"), re.MULTILINE)
    assert visionr1.__version__ == next(name for name in versions if name != "Unreleased")
    assert metadata.version("visionr1")  # set by the build from the same line
