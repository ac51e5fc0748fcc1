"""Kills a training run (SIGKILL) at random moments, resumes it each time, and compares it with a run left alone.

    python benchmarks/kill_resume.py --kills 20

Both runs are GRPO with KL, evaluation and checkpoints on the model that ships, one thread, one device. Equal means
equal bit for bit: the weights of final/ and best/, and every row of metrics, rollouts and evaluations but for its
wall-clock fields. A moment is drawn in the process's CPU time, from its start to some steps beyond its first, so that
kills fall into loading, sampling, updating, evaluating and writing alike, on a busy machine too. Processes are forked
from one that has imported everything: only their own work takes time. The last line is a JSON object.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from visionr1.models.loading import model_folder
from visionr1.training.recipe import Recipe, parse_recipe
from visionr1.training.train import train

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the random models of the tests
from support.random_models import build_qwen3

LOGS = ("metrics.jsonl", "rollouts.jsonl", "evaluations.jsonl")
FORK = multiprocessing.get_context("fork")
TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--small", action="store_true", help="a random model of a few thousand parameters")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(compare(Path(folder), args.kills, args.steps, random.Random(args.seed), small=args.small)))


def compare(folder: Path, kills: int, steps: int, moments: random.Random, *, small: bool) -> dict[str, Any]:
    """Run alone and run killed, both in `folder`; what is equal."""
    model = folder / "model"  # a copy, which nobody changes meanwhile
    if small:
        build_qwen3(model, width=64, layers=2, pixels=120 * 120)
    else:
        shutil.copytree(model_folder("tiny"), model)
    recipe = make_recipe(str(model), steps)
    alone, killed = folder / "alone", folder / "killed"
    first = spend(recipe, folder / "first", until=lambda _: (folder / "first" / LOGS[0]).exists())
    step = spend(recipe, alone) / steps
    print(f"a run spends {first:.2f} CPU s up to its first step, {step:.2f} on each", flush=True)
    at: list[dict[str, Any]] = []
    latest = first + 2 * steps / kills * step  # more than half is lost again
    while len(at) < kills:
        moment = moments.uniform(0, latest)
        spent = spend(recipe, killed, until=lambda spent, moment=moment: spent >= moment)
        if (killed / "final").exists():
            print(f"the run ended before kill {len(at) + 1}; more --steps leave room for more")
            if at:
                break
            shutil.rmtree(killed)  # a machine whose first steps took longer: what was never killed shows nothing
            latest = spent / 2
            continue
        at.append({"cpu_s": round(moment, 2), "steps": len(rows(killed, LOGS[0])), "unfinished": unfinished(killed)})
        print(f"kill {len(at)}: {at[-1]}", flush=True)
    spend(recipe, killed)
    different = [
        *(log for log in LOGS if rows(alone, log) != rows(killed, log)),
        *(name for name in ("final", "best") if weights(alone, name) != weights(killed, name)),
    ]
    return {
        "kills": len(at),
        "steps": steps,
        "model": "random" if small else "tiny",
        "rows": {log: len(rows(alone, log)) for log in LOGS},
        "steps_logged_at_kills": [kill["steps"] for kill in at],
        "while_writing_a_folder": sum(bool(kill["unfinished"]) for kill in at),
        "different": different,
        "equal": not different,
    }


def make_recipe(model: str, steps: int) -> Recipe:
    """A run in which everything that a checkpoint must keep is in use."""
    return parse_recipe(
        {
            "threads": 1,
            "model": {"path": model},
            "train": {"steps": steps, "batch_size": 2, "learning_rate": 1e-4, "warmup_steps": 2, "schedule": "cosine"},
            "data": [{"source": "bccd", "limit": 7, "augment": True}],
            "rollout": {"group_size": 2, "max_new_tokens": 16},
            "reward": {"adaptive": True},
            "checkpoint": {"every": 2},
            "eval": {"every": 3, "limit": 2, "max_new_tokens": 24},
        }
    )


def spend(recipe: Recipe, run: Path, until: Callable[[float], bool] = lambda spent: False) -> float:
    """Train in a process of its own to the end, or until its CPU seconds say so and it is killed; those seconds."""
    resume = (run / "recipe.toml").exists()
    process = FORK.Process(target=train, args=(recipe, run), kwargs={"resume": resume, "progress": False})
    process.start()
    spent = 0.0
    while process.is_alive() and not until(spent):
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        spent = (int(fields[11]) + int(fields[12])) / TICK
        time.sleep(0.002)
    if process.is_alive():
        process.kill()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise SystemExit(f"a run failed with status {process.exitcode}")
    return spent


def rows(run: Path, log: str) -> list[dict[str, Any]]:
    """The whole rows of a log, wall-clock fields aside."""
    if not (run / log).exists():
        return []
    *lines, _ = (run / log).read_text(encoding="utf-8").split("\n")
    whole = [json.loads(line) for line in lines]
    return [{key: value for key, value in row.items() if not key.startswith("seconds/")} for row in whole]


def weights(run: Path, name: str) -> bytes:
    """A model folder's weights, byte for byte."""
    return (run / name / "model.safetensors").read_bytes()


def unfinished(run: Path) -> list[str]:
    """What the killed process was writing."""
    return sorted(path.name for path in run.rglob(".*.partial"))


if __name__ == "__main__":
    main()
