"""Training on data of a format from a file outside the package, the reader that docs/extending.md shows."""

from collections.abc import Callable
from pathlib import Path

from support.extending import guide_file, yolo_folder
from support.training import SFT, rows


def test_a_run_reads_by_it(run: Callable[..., int], tmp_path: Path) -> None:
    name = f"{guide_file('A reader', tmp_path)}:READER"
    data = yolo_folder(tmp_path / "set").as_posix()
    recipe = SFT.replace('source = "scenes"', f'source = "{data}"\nreader = "{name}"').partition("scenes =")[0]
    recipe += "[[phase]]\nsteps = 2\n"
    assert run(recipe, "own") == 0
    assert [row["step"] for row in rows(tmp_path / "own")] == [1, 2]
