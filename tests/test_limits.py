"""How large things may be: lines of a file and of a function, files of a folder.

ruff counts the branches and statements of a function (pyproject.toml).
"""

import ast
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src/visionr1"
FILES = sorted(PACKAGE.rglob("*.py"))
FILE_LINES = 500
FUNCTION_LINES = 60
FOLDER_FILES = 16


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_files_are_short() -> None:
    long = {name(path) for path in FILES if len(path.read_text(encoding="utf-8").splitlines()) > FILE_LINES}
    assert long == set()


def test_functions_are_short() -> None:
    long = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if node.end_lineno - node.lineno >= FUNCTION_LINES:
                    long.add(name(path))
    assert long == set()


def test_folders_hold_few_files() -> None:
    sizes = Counter(path.parent for path in FILES if path.name != "__init__.py")
    assert {name(folder): size for folder, size in sizes.items() if size > FOLDER_FILES} == {}
