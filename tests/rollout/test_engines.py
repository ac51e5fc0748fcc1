"""The registry of rollout engines, and one from a file outside the package, that docs/extending.md shows."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from support.extending import guide_file
from support.random_models import make_prompts, sharpen
from visionr1.errors import RecipeError
from visionr1.models.loading import load_policy
from visionr1.models.settings import ModelSection
from visionr1.rollout.engine import Sampling
from visionr1.rollout.engines import ENGINES
from visionr1.rollout.engines.builtin import generate
from visionr1.rollout.settings import RolloutSection

SAMPLING = Sampling(num_completions=2, max_new_tokens=5)
SEEDS = [(1,), (2,), (3,)]


def test_engines_that_ship_are_listed() -> None:
    assert set(ENGINES) >= {"builtin", "vllm"}
    assert ENGINES.resolve("builtin")(None, ModelSection(), RolloutSection()) is generate


@pytest.mark.parametrize("name", ["vlm", "fast", ""])
def test_an_unknown_engine_is_refused_with_the_recipe(name: str) -> None:
    with pytest.raises(RecipeError, match=r"engine: expected one of builtin, vllm.*, or module:object, found"):
        RolloutSection(engine=name)


def test_only_the_built_in_engine_compiles() -> None:
    with pytest.raises(RecipeError, match=r"compile: expected false \(it compiles the built-in engine's decode step\)"):
        RolloutSection(engine="mine.py:open_engine", compile=True)


def test_what_cannot_be_called_is_no_engine(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("engine = 3\n")
    with pytest.raises(RecipeError, match="3 is no rollout engine: expected a function"):
        ENGINES.resolve(f"{tmp_path / 'mine.py'}:engine")


def test_the_guide_s_engine_halves_the_batch_and_draws_the_same(
    tmp_path: Path, qwen3_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = ENGINES.resolve(f"{guide_file('A rollout engine', tmp_path)}:open_engine")
    policy = sharpen(load_policy(qwen3_folder))
    prompts = make_prompts(policy, [(120, 80), (80, 120), (80, 80)])
    sizes: list[int] = []

    def small_memory(policy: Any, prompts: Any, *settings: Any) -> Any:
        sizes.append(len(prompts))
        if len(prompts) > 1:
            raise torch.OutOfMemoryError
        return generate(policy, prompts, *settings)

    monkeypatch.setattr(sys.modules[opened.__module__], "generate", small_memory)
    halved = opened(policy, ModelSection(), RolloutSection())(policy, prompts, SAMPLING, SEEDS)
    whole = generate(policy, prompts, SAMPLING, SEEDS)
    assert sizes == [3, 1, 1, 1]
    assert [[one.text for one in row] for row in halved] == [[one.text for one in row] for row in whole]
