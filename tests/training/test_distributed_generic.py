"""The generic path in two processes over gloo against one: the same replies, metrics and weights.

A prompt's cache is forked inside the forward pass of what DDP, FSDP2 and ZeRO-2 wrap, and each part makes two passes
through the model, so that ranks gather and reduce equally often, however long their completions are.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.family_builder import build_family
from support.family_shapes import SHAPES
from support.launching import accelerate, alone, arguments, launch
from support.short_replies import one_token_replies
from support.training import assert_same_run

GRPO = """
method = "grpo"
threads = 1
[model]
path = "{model}"
{settings}
[train]
steps = 2
batch_size = 3
learning_rate = 1e-3
[optimizer]
tokens_per_forward = 60
[rollout]
group_size = 3
max_new_tokens = 8
[reward]
preset = "support.letters:ByLetters"
[checkpoint]
every = 0
[[data]]
source = "scenes"
scenes = {{ width = 120, height = 80, max_objects = 2 }}
"""
RECIPES = {
    "recurrent": ("qwen3_5", "gradient_checkpointing = true"),
    "shared_keys": ("gemma4+shared_kv", "[lora]\nrank = 2"),
    "plain": ("llava", "freeze_vision = true"),
}
"""Family and model settings by name: a gated delta net; windows, keys of earlier layers and a tower that is frozen,
for adapters train; attention alone."""
ONE_TOKEN = 2
"""Place in the batch of the sample whose replies have one token: it is the only one of the second process."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, qwen3_folder: Path) -> Iterator[Path]:
    """A folder of recipes; while it is there, one sample of a batch gets replies of one token."""
    folder = tmp_path_factory.mktemp("distributed")
    families = {family: build_family(folder / family, qwen3_folder, SHAPES[family]) for family, _ in RECIPES.values()}
    for name, (family, settings) in RECIPES.items():
        text = GRPO.format(model=families[family].as_posix(), settings=settings)
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    with one_token_replies(ONE_TOKEN):
        yield folder


def launched(root: Path, jobs: list[dict[str, Any]], settings: str) -> None:
    done = launch(root, [{**job, "one_token": ONE_TOKEN} for job in jobs], accelerate(settings))
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def two(root: Path) -> Path:
    """The runs of two processes, replicated and in shards, in one launch."""
    jobs: list[dict[str, Any]] = [{"arguments": arguments(root, name, "replicated")} for name in RECIPES]
    jobs += [{"arguments": arguments(root, name, "sharded"), "shards": True} for name in RECIPES]
    launched(root, jobs, "ddp")
    return root


@pytest.fixture(scope="module")
def zero(root: Path) -> Path:
    """The runs of two processes that share the optimizer by ZeRO-2, in one launch."""
    pytest.importorskip("deepspeed")
    launched(root, [{"arguments": arguments(root, name, "zero")} for name in RECIPES], "zero2")
    return root


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_train_as_one(two: Path, name: str) -> None:
    assert_same_run(alone(two, name), two / "replicated" / name)


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_with_shards_train_as_one(two: Path, name: str) -> None:
    assert_same_run(alone(two, name), two / "sharded" / name)


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_train_as_one_by_zero(zero: Path, name: str) -> None:
    assert_same_run(alone(zero, name), zero / "zero" / name)
