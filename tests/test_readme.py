"""What the README says is so: its code runs, its commands exist, its links and its file tree hold."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from visionr1.cli import build_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "src/visionr1"


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


@pytest.mark.parametrize("code", blocks("python"))
def test_code_prints_what_its_comments_say(code: str) -> None:
    expected = re.findall(r"^# (.*)$", code, flags=re.MULTILINE)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue().splitlines() == expected
    assert expected


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("visionr1 ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_commands(line: str) -> None:
    build_parser().parse_args(shlex.split(line)[1:])


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake (\w+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_file_tree_is_the_package() -> None:
    (tree,) = [block for block in blocks("") if block.startswith("src/visionr1/")]
    listed = set(re.findall(r"^  ([\w.]+)/? ", tree, flags=re.MULTILINE))
    there = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert listed == there - {"__init__.py"}
    for name in re.findall(r"^(\w+)/ ", tree, flags=re.MULTILINE):
        assert (ROOT / name).is_dir(), name
