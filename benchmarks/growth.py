"""Resident memory of a long run on a CPU, step by step: it must not grow.

    python benchmarks/growth.py [--steps 40] [--every 5]

Supervised training of the model that ships on random views of BCCD's images, so that hardly a shape of a matrix
product comes twice; in float32 and under bfloat16 autocast, each in a process of its own. Two columns for each: the
most that the process has held so far, and what it holds after the step, in MiB. Nothing is timed. The last line is a
JSON object with the figures of all steps.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PRECISIONS = {"float32": "none", "bfloat16": "bfloat16"}
"""What is measured, and model.autocast for it."""
RECIPE = {
    "method": "sft",
    "threads": 1,
    "data": [{"source": "bccd", "split": "train", "augment": True}],
    "optimizer": {"tokens_per_forward": 2048},
    "checkpoint": {"every": 0},
}


def main() -> None:
    """Run each precision, print a table and the JSON object; in a child, print the figures of one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=5, help="steps from one row of the table to the next")
    parser.add_argument("--child", choices=PRECISIONS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child, args.steps)))
        return

    curves: dict[str, list[list[int]]] = {}
    for precision in PRECISIONS:
        command = [sys.executable, __file__, "--steps", str(args.steps), "--child", precision]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        curves[precision] = json.loads(done.stdout.splitlines()[-1])

    print("step " + " ".join(f"{precision:>9} peak  held" for precision in curves))
    for step in range(args.every, args.steps + 1, args.every):
        row = [f"{curve[step - 1][0]:14d} {curve[step - 1][1]:5d}" for curve in curves.values()]
        print(f"{step:4d} " + " ".join(row))
    print(json.dumps({"mib": curves}))


def measure(precision: str, steps: int) -> list[list[int]]:
    """Return peak and held MiB after each step of a run."""
    from visionr1.training import train
    from visionr1.training.recipe import parse_recipe

    schedule = {"steps": steps, "batch_size": 6, "learning_rate": 1e-6}
    recipe = parse_recipe({**RECIPE, "train": schedule, "model": {"path": "tiny", "autocast": PRECISIONS[precision]}})
    figures: list[list[int]] = []
    take_step = train.take_step

    def watched(*arguments: Any) -> train.StepReport:
        report = take_step(*arguments)
        figures.append([read_mib("VmHWM"), read_mib("VmRSS")])
        return report

    train.take_step = watched
    with tempfile.TemporaryDirectory() as folder:
        train.train(recipe, Path(folder) / "run", progress=False)
    return figures


def read_mib(name: str) -> int:
    """Return a figure of this process's memory as Linux states it: VmHWM is the most so far, VmRSS what it holds."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) // 1024


if __name__ == "__main__":
    main()
