"""Seconds and peak memory of one GRPO step, by part: preprocessing, rollout, reward, update.

    python benchmarks/step.py [--recipe demo] [--steps 6] [--set key=value ...]

Trains for some steps by a recipe, on its own model and data, and averages over all but the first.
The last line is a JSON object.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
from pathlib import Path

import torch

from visionr1.assets import recipe_path
from visionr1.training.recipe import load_recipe
from visionr1.training.train import train

PARTS = ("preprocess", "rollout", "reward", "update")


def main() -> None:
    """Train, read the metrics, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    args = parser.parse_args()
    limit = [f"train.steps={args.steps}", "train.minutes=0", "checkpoint.every=0"]
    recipe = load_recipe(recipe_path(args.recipe), [*args.overrides, *limit])
    with tempfile.TemporaryDirectory() as name:
        run_dir = Path(name) / "run"
        train(recipe, run_dir)
        lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines][1:]
    seconds = {part: statistics.mean(row[f"seconds/{part}"] for row in rows) for part in PARTS}
    whole = sum(seconds.values())
    phase, rollout = recipe.phases[0], recipe.rollout
    length = statistics.mean(row["completion_length"] for row in rows)
    print(
        f"{phase.batch_size} samples x {rollout.group_size} completions of {length:.0f} tokens, "
        f"beta {recipe.grpo.beta}, {torch.get_num_threads()} threads"
    )
    for part, value in seconds.items():
        print(f"  {part:<10} {value:8.3f} s  {100 * value / whole:5.1f}%")
    print(f"  {'step':<10} {whole:8.3f} s")
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    print(f"  peak memory of the process {peak:.2f} GiB")
    result = {"seconds": seconds, "step_seconds": whole, "peak_memory_gib": peak, "completion_length": length}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
