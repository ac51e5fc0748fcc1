"""What the tests of training share: recipes, runs that die, and how two runs are compared."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from visionr1.files import read_json_lines
from visionr1.training.recipe import load_recipe
from visionr1.training.run_folder import RunFolder

SFT = """
method = "sft"
[model]
path = "{model}"
[checkpoint]
every = 2
[train]
batch_size = 2
learning_rate = 1e-3
[[data]]
source = "scenes"
scenes = {{ width = 120, height = 80, max_objects = 2 }}
[[phase]]
name = "first"
steps = 2
[[phase]]
name = "second"
steps = 3
warmup_steps = 2
schedule = "cosine"
"""
GRPO = """
method = "grpo"
[model]
path = "{model}"
[checkpoint]
every = 2
[train]
steps = 4
batch_size = 2
learning_rate = 1e-3
[[data]]
source = "scenes"
scenes = {{ width = 120, height = 80, max_objects = 2 }}
[rollout]
group_size = 3
max_new_tokens = 12
[reward]
preset = "support.letters:ByLetters"
adaptive = true
"""


def rows(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """Rows of a .jsonl file, wall-clock fields aside."""
    lines = read_json_lines(folder / name)
    return [{k: v for k, v in line.items() if not k.startswith("seconds/")} for line in lines]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "final/model.safetensors")


def assert_same_run(one: Path, two: Path) -> None:
    """Two runs are equal but for the order in which float32 numbers are added."""
    for log in ("metrics.jsonl", "rollouts.jsonl", "evaluations.jsonl"):
        if not (one / log).exists():
            assert not (two / log).exists()
            continue
        assert len(rows(one, log)) == len(rows(two, log))
        for mine, other in zip(rows(one, log), rows(two, log), strict=True):
            assert mine.keys() == other.keys()
            for key, value in mine.items():
                near = 1e-4 if key.startswith("sampling/") else 1e-6  # those are of rounding alone
                same = pytest.approx(value, rel=1e-4, abs=near) if isinstance(value, float) else value
                assert other[key] == same, (log, key)
    assert_same_update(one, two)


def assert_same_update(one: Path, two: Path) -> None:
    """What training added to the weights is equal up to a thousandth of it."""
    before = load_file(Path(load_recipe(one / "recipe.toml").model.path) / "model.safetensors")
    mine, other = weights(one), weights(two)
    assert mine.keys() == other.keys()
    added = torch.cat([(mine[name] - before[name]).flatten() for name in mine])
    difference = torch.cat([(mine[name] - other[name]).flatten() for name in mine])
    assert difference.norm() <= 1e-3 * added.norm()


class Killed(BaseException):
    """As sudden as kill -9: nothing catches it."""


@contextmanager
def killed_at(step: int, name: str) -> Iterator[None]:
    """Die inside this block, right after the row of `step` has been written to .jsonl file `name`."""
    append = RunFolder.append

    def dying(self: RunFolder, file: str, new: Iterable[Mapping[str, Any]]) -> None:
        kept = list(new)
        append(self, file, kept)
        if file == name and kept and kept[0]["step"] == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "append", dying)
        try:
            yield
        except Killed:
            return
    raise AssertionError(f"step {step} was never written to {name}")
