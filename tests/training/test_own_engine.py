"""Training with a rollout engine from a file outside the package: the one that docs/extending.md shows, and one like
vLLM, which evaluates too."""

from collections.abc import Callable
from pathlib import Path

from support.extending import guide_file
from support.streaming_engine import LABEL, NAME
from support.training import GRPO, rows


def test_a_run_samples_by_it(run: Callable[..., int], tmp_path: Path) -> None:
    name = f"{guide_file('A rollout engine', tmp_path)}:open_engine"
    recipe = GRPO.replace("[rollout]", f'[rollout]\nengine = "{name}"').replace("steps = 4", "steps = 2")
    assert run(recipe, "own") == 0
    gaps = [row["sampling/largest_gap"] for row in rows(tmp_path / "own")]
    assert len(gaps) == 2 and max(gaps) < 1e-4


def test_an_engine_that_takes_prompts_as_others_end_evaluates_too(run: Callable[..., int], tmp_path: Path) -> None:
    evaluating = "[eval]\nevery = 1\nlimit = 3\nmax_new_tokens = 8\n"
    recipe = GRPO.replace("steps = 4", "steps = 2") + evaluating
    assert run(recipe, "builtin") == 0
    assert run(recipe.replace("[rollout]", f'[rollout]\nengine = "{NAME}"'), "own") == 0
    builtin, own = rows(tmp_path / "builtin", "evaluations.jsonl"), rows(tmp_path / "own", "evaluations.jsonl")
    assert len(own) == 2
    for ours, theirs in zip(own, builtin, strict=True):
        assert ours.pop("protocol") == {**theirs.pop("protocol"), "engine": LABEL}
        assert ours == theirs  # with the weights of each step
