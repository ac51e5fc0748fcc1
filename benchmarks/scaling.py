"""One process against two, each of one thread, on the same steps of the small model: seconds a step, same losses.

    python benchmarks/scaling.py [--recipe demo] [--steps 4] [--rounds 2] [--set key=value ...]

Each round trains the recipe once with one process and once with two, started by torchrun over gloo, so that whatever
else the machine does meets both. The batch is the same: two processes take half of its samples each. The last line is a
JSON object: the medians, their ratio (2 is perfect), and the largest difference of a loss.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from visionr1.assets import recipe_path

PARTS = ("preprocess", "rollout", "reward", "update")


def rows(recipe: str, processes: int, overrides: list[str], run_dir: Path) -> list[dict[str, Any]]:
    """The metrics of each step of a run."""
    settings = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    command += ["visionr1", "train", str(recipe_path(recipe)), *settings, "--run-dir", str(run_dir)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--steps", type=int, default=4, help="of which the first is not counted (default: 4)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    args = parser.parse_args()
    limit = [f"train.steps={args.steps}", "train.minutes=0", "checkpoint.every=0", "threads=1", "model.autocast=none"]
    seconds: dict[int, list[float]] = {1: [], 2: []}
    losses: dict[int, list[float]] = {}
    for number in range(args.rounds):
        for processes in (1, 2) if number % 2 else (2, 1):
            with tempfile.TemporaryDirectory() as name:
                found = rows(args.recipe, processes, [*limit, *args.overrides], Path(name) / "run")
            seconds[processes] += [sum(row[f"seconds/{part}"] for part in PARTS) for row in found[1:]]
            losses[processes] = [row["loss"] for row in found]
    medians = {processes: statistics.median(values) for processes, values in seconds.items()}
    for processes, median in medians.items():
        print(f"{processes} x 1 thread: {median:.3f} s a step over {len(seconds[processes])} steps")
    difference = max(abs(one - two) for one, two in zip(losses[1], losses[2], strict=True))
    print(f"losses of {args.steps} steps differ by at most {difference:.1e}; {os.cpu_count()} CPU cores")
    result = {
        "seconds_1": medians[1],
        "seconds_2": medians[2],
        "speedup": medians[1] / medians[2],
        "max_abs_dloss": difference,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
