"""The shape of the package: arrows only go down, the box side never meets torch, and it stays small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src/visionr1"
ORDER = """
errors files embedded images boxes samples dialects prompts rewards hosts readers scenes augment evaluate draw
data_check recipe distributed optimizers zero models prefix rollout rollout_compiled rollout_vllm grpo sft
stream learners run_folder progress trackers
predict vqa validate train charts gallery report demo cli __main__
""".split()
"""A room may import those before it."""
TENSOR_SIDE = set("""
distributed optimizers zero models prefix rollout rollout_compiled rollout_vllm grpo sft learners run_folder train
predict vqa validate demo cli
""".split())
LINE_BUDGET = 16_200
"""Of the package, comments and blank lines included; raise it in the commit that says what for."""

FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


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
def test_arrows_only_go_down(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        assert not {name for name in imported(path) if name.startswith("visionr1")}
        return
    assert here in ORDER, f"{here} is new: give it its place in ORDER"
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "visionr1" and parts[1:2] != [] and parts[1] in ORDER and parts[1] != here:
            assert ORDER.index(parts[1]) < ORDER.index(here), f"{here} imports {parts[1]}, which stands above it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_box_side_does_not_know_torch(path: Path) -> None:
    if room(path) not in TENSOR_SIDE:
        heavy = {name for name in imported(path) if name.split(".")[0] in {"torch", "transformers"}}
        assert not heavy, f"{path.name} imports {heavy}"


def test_importing_the_box_side_loads_no_torch() -> None:
    program = (
        "import sys, visionr1\n"
        "for name in visionr1.__all__: getattr(visionr1, name)\n"
        "import visionr1.cli, visionr1.report, visionr1.recipe\n"
        "print(*sorted({'torch', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_the_package_keeps_to_its_size_budget() -> None:
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES)
    assert lines <= LINE_BUDGET
