"""Training with a rollout engine from a file outside the package, the one that docs/extending.md shows."""

from collections.abc import Callable
from pathlib import Path

from support.extending import guide_file
from support.training import GRPO, rows


def test_a_run_samples_by_it(run: Callable[..., int], tmp_path: Path) -> None:
    name = f"{guide_file('A rollout engine', tmp_path)}:open_engine"
    recipe = GRPO.replace("[rollout]", f'[rollout]\nengine = "{name}"').replace("steps = 4", "steps = 2")
    assert run(recipe, "own") == 0
    gaps = [row["sampling/largest_gap"] for row in rows(tmp_path / "own")]
    assert len(gaps) == 2 and max(gaps) < 1e-4
