"""Engines with a copy of the weights on two processes over gloo: what FSDP2 and ZeRO-2 hold reaches them, and vLLM."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from support import copying_engine, letters
from support.launching import accelerate, arguments, launch
from support.random_models import build_qwen3
from support.training import assert_same_run, assert_same_update, rows
from support.vllm_server import StandInServer, serving
from visionr1.cli import main

LETTERS = f"{Path(letters.__file__).as_posix()}:ByLetters"
ENGINE = f"{Path(copying_engine.__file__).as_posix()}:open_engine"
GRPO = """
method = "grpo"
threads = 1
[model]
path = "{model}"
freeze_vision = {frozen}
[train]
steps = 3
batch_size = 3
learning_rate = 1e-3
[[data]]
source = "scenes"
scenes = {{ width = 120, height = 80, max_objects = 2 }}
[lora]
rank = {rank}
[reward]
preset = "{reward}"
[rollout]
group_size = 3
max_new_tokens = {tokens}
"""
RECIPES: dict[str, dict[str, Any]] = {
    "full": {"frozen": "false", "rank": 0},  # with a reference in shards of its own
    "frozen": {"frozen": "true", "rank": 0},  # features of a vision tower that each rank must hold whole
    "adapters": {"frozen": "false", "rank": 2},  # merged on the way
}


def write_recipes(folder: Path, model: Path, *, tokens: int = 8) -> None:
    for name, settings in RECIPES.items():
        text = GRPO.format(model=model.as_posix(), tokens=tokens, reward=LETTERS, **settings)
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, qwen3_folder: Path) -> Path:
    """A folder of recipes, and the runs of one process by the built-in engine."""
    folder = tmp_path_factory.mktemp("copies")
    write_recipes(folder, qwen3_folder)
    for name in RECIPES:
        assert main(["train", *arguments(folder, name, "one")]) == 0
    return folder


def by_copy(root: Path, where: str) -> list[dict[str, Any]]:
    """The jobs of two processes by the engine with a copy."""
    jobs: list[dict[str, Any]] = []
    for name in RECIPES:
        jobs.append({"arguments": [*arguments(root, name, where), "--set", f"rollout.engine={ENGINE}"]})
    return jobs


def by_server(root: Path, where: str, url: str, weights: str = "weights") -> list[str]:
    """The command line of a run by a server."""
    settings = ["rollout.engine=vllm_server", f"rollout.server={url}", f"rollout.server_weights={root / weights}"]
    command = [str(root / "adapters.toml"), "--run-dir", str(root / where / "served")]
    for setting in settings:
        command += ["--set", setting]
    return command


@pytest.fixture(scope="module")
def fsdp2(root: Path, qwen3_folder: Path) -> Path:
    state = StandInServer(qwen3_folder)
    state.settings["device_config"]["device"] = "cuda"  # where an output layer may be tied
    with serving(state) as url:
        assert main(["train", *by_server(root, "one", url)]) == 0
        jobs = [{**job, "shards": True} for job in by_copy(root, "fsdp2")]
        jobs.append({"arguments": by_server(root, "fsdp2", url), "shards": True})
        done = launch(root, jobs)
    assert done.returncode == 0, done.stderr
    return root / "fsdp2"


@pytest.fixture(scope="module")
def zero2(root: Path) -> Path:
    pytest.importorskip("deepspeed")
    done = launch(root, by_copy(root, "zero2"), accelerate("zero2"))
    assert done.returncode == 0, done.stderr
    return root / "zero2"


@pytest.mark.parametrize("name", RECIPES)
def test_an_engine_with_a_copy_samples_as_the_policy_in_shards(root: Path, fsdp2: Path, name: str) -> None:
    assert_same_run(root / "one" / name, fsdp2 / name)


def test_rank_0_hands_gathered_weights_to_a_server_and_all_ask_it(root: Path, fsdp2: Path) -> None:
    assert_same_run(root / "one/served", fsdp2 / "served")


def test_weights_that_rank_0_cannot_send_end_all_ranks(root: Path, qwen3_folder: Path) -> None:
    """The other rank is in the gathering of weights, and would wait there for hours."""
    state = StandInServer(qwen3_folder)
    state.settings["device_config"]["device"] = "cuda"
    (root / "a_file").write_text("where a folder is to be")
    with serving(state) as url:
        done = launch(root, [{"arguments": by_server(root, "failed", url, "a_file"), "shards": True}])
    assert done.returncode != 0
    assert "rollout.server_weights: cannot write weights to" in done.stderr
    assert "another process of this run has ended" not in done.stderr


@pytest.mark.parametrize("name", RECIPES)
def test_an_engine_with_a_copy_samples_as_the_policy_under_zero(root: Path, zero2: Path, name: str) -> None:
    assert_same_run(root / "one" / name, zero2 / name)


def test_an_engine_with_a_copy_is_called_once_a_step(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*arguments(root, "full", "refused"), "--set", f"rollout.engine={ENGINE}"]
    assert main(["train", *command, "--set", "rollout.batch_size=2"]) == 2
    assert "rollout.batch_size: expected 0 for an engine with a copy of the weights" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm")
def test_vllm_itself_samples_as_the_policy_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two processes has a vLLM of its own; what it samples is the policy's after each of three updates.

    Seeds are of samples, so that two processes in shards and two with whole weights (DDP) train alike.
    """
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    write_recipes(tmp_path, build_qwen3(tmp_path / "qwen3", layers=2), tokens=16)
    jobs: list[dict[str, Any]] = []
    for where in ("fsdp2", "ddp"):
        job = {"arguments": [*arguments(tmp_path, "adapters", where), "--set", "rollout.engine=vllm"]}
        jobs.append({**job, "shards": True} if where == "fsdp2" else job)
    for job in jobs:
        done = launch(tmp_path, [job])
        assert done.returncode == 0, done.stderr
    for where in ("fsdp2", "ddp"):
        gaps = [row["sampling/largest_gap"] for row in rows(tmp_path / where / "adapters")]
        assert len(gaps) == 3
        assert max(gaps) < 1e-4
    assert_same_update(tmp_path / "fsdp2/adapters", tmp_path / "ddp/adapters")
