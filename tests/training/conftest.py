from collections.abc import Callable
from pathlib import Path

import pytest

from visionr1.cli import main

Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, qwen3_folder: Path) -> Run:
    """Train by a recipe's text through the command line: run(text, "name", "--set", ...)."""

    def start(text: str, name: str, *arguments: str) -> int:
        recipe = tmp_path / "recipe.toml"
        recipe.write_text(text.format(model=qwen3_folder.as_posix()), encoding="utf-8")
        return main(["train", str(recipe), "--run-dir", str(tmp_path / name), *arguments])

    return start
