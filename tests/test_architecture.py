"""The shape of the package: arrows only go down, between rooms and inside them, and the box side never meets torch."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src/visionr1"
ORDER = """
errors settings toml files folders images boxes samples completions registry terminal progress assets
dialects rewards integrations data models rollout evaluation training report demo cli __main__
""".split()
"""A room may import those before it."""
TENSOR_ROOMS = {"models", "rollout", "training"}
TENSOR_FILES = {
    "evaluation/model/answerer.py",
    "evaluation/model/read_ahead.py",
    "evaluation/runner.py",
    "evaluation/model/vqa.py",
    "demo.py",
}
"""Where torch may be imported."""

FILES = sorted(PACKAGE.rglob("*.py"))
TESTS_ROOT = Path(__file__).parent
TESTS = sorted(TESTS_ROOT.rglob("test_*.py"))
ROOMS = sorted({path.relative_to(PACKAGE).parts[0] for path in FILES if path.parent != PACKAGE})


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module(path: Path) -> str:
    """The dotted name of a file: that of its folder for __init__.py."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_between_rooms_only_go_down(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        return  # its names are imported when they are used: tests/test_public_names.py
    assert here in ORDER, f"{here} is new: give it its place in ORDER"
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "visionr1" and parts[1:2] != [] and parts[1] in ORDER and parts[1] != here:
            assert ORDER.index(parts[1]) < ORDER.index(here), f"{here} imports {parts[1]}, which stands above it"


@pytest.mark.parametrize("name", ROOMS)
def test_arrows_inside_a_room_make_no_circle(name: str) -> None:
    files = {module(path): path for path in FILES if room(path) == name}
    arrows = {}
    for here, path in files.items():
        targets = {target if target in files else target.rpartition(".")[0] for target in imported(path)}
        # A name that a room's __init__ gives out is an arrow to the room; the room itself imports all its files.
        arrows[here] = {target for target in targets if target in files and target != here}
    TopologicalSorter(arrows).prepare()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_box_side_does_not_know_torch(path: Path) -> None:
    if room(path) not in TENSOR_ROOMS and str(path.relative_to(PACKAGE)) not in TENSOR_FILES:
        heavy = {name for name in imported(path) if name.split(".")[0] in {"torch", "transformers"}}
        assert not heavy, f"{path.name} imports {heavy}"


def test_importing_the_box_side_loads_no_torch() -> None:
    program = (
        "import sys, visionr1\n"
        "for name in visionr1.__all__: getattr(visionr1, name)\n"
        "import visionr1.cli, visionr1.report.page, visionr1.training.recipe\n"
        "print(*sorted({'torch', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.relative_to(TESTS_ROOT).as_posix())
def test_tests_share_helpers_in_support_alone(path: Path) -> None:
    """A test file imports neither another test file nor a program of benchmarks/ by its bare name."""
    roots = {name.split(".")[0] for name in imported(path)}
    siblings = {other.stem for other in TESTS} | {"conftest", "tests"}
    benchmarks = {program.stem for program in (TESTS_ROOT.parent / "benchmarks").glob("*.py")}
    assert not roots & (siblings | benchmarks)


def test_a_command_starts_without_the_libraries_it_may_need() -> None:
    """`--version`, a usage error and the start of any command wait for nothing but argparse."""
    program = (
        "import sys\n"
        "from visionr1.cli import build_parser\n"
        "build_parser().parse_args(['eval', '--model', 'tiny', '--data', 'bccd'])\n"
        "print(*sorted({'numpy', 'scipy', 'PIL', 'pydantic', 'jinja2', 'orjson'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


REPOSITORY = Path(__file__).parents[1]
LOADERS = {"from_pretrained", "from_config"}
NO_CODE = {"PeftModel"}
"""Classes whose `from_pretrained` runs no code of a folder, and takes no word on it."""


def loads_without_refusing_code(call: ast.Call) -> bool:
    """Return True for a call of transformers that would ask on the terminal whether to run a folder's code."""
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr not in LOADERS:
        return False
    if isinstance(function.value, ast.Name) and function.value.id in NO_CODE:
        return False
    for keyword in call.keywords:
        if keyword.arg == "trust_remote_code":
            return not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
        if keyword.arg is None and isinstance(keyword.value, ast.Name) and keyword.value.id == "LOCAL":
            return False
    return True


@pytest.mark.parametrize("folder", ["src", "examples", "benchmarks", "tests"])
def test_nobody_lets_transformers_ask_whether_to_run_code(folder: str) -> None:
    asking = []
    for path in sorted((REPOSITORY / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and loads_without_refusing_code(node):
                asking.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}")
    assert asking == []
