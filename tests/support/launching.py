"""Launching two processes over gloo, by torchrun or by `accelerate launch`, that do jobs of training."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visionr1.cli import main

WORKER = Path(__file__).parent / "distributed_worker.py"
EXAMPLES = Path(__file__).parents[2] / "examples/accelerate"
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def arguments(root: Path, name: str, where: str) -> list[str]:
    """The command line of a run by the recipe `name`."""
    return [str(root / f"{name}.toml"), "--run-dir", str(root / where / name)]


def alone(root: Path, name: str) -> Path:
    """The run of one process, which is made once."""
    folder = root / "one" / name
    assert folder.exists() or main(["train", *arguments(root, name, "one")]) == 0
    return folder


def accelerate(settings: str) -> list[str]:
    """`accelerate launch` of two processes by an example's settings."""
    file = str(EXAMPLES / f"{settings}.yaml")
    return ["accelerate.commands.launch", "--config_file", file, "--num_processes", "2", "--main_process_port", "0"]


def launch(
    root: Path, jobs: list[dict[str, Any]], launcher: Sequence[str] = TORCHRUN
) -> subprocess.CompletedProcess[str]:
    """Two processes, by torchrun or by `accelerate launch`, which starts its own with that."""
    (root / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", *launcher, str(WORKER), str(root / "jobs.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
