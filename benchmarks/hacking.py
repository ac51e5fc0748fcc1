"""Does the watch see reward hacking? The small model trained by a reward that can be hacked, beside the sound one.

    python benchmarks/hacking.py --out runs/hacking [--steps 60] [--set key=value ...]

Both runs start from the same model and see the same samples. The hackable reward is recall alone with a small weight on
precision over the MATCHED boxes, so that more boxes never cost anything (the reading of the public code). Prints every
sign for both; each run folder can be read by `visionr1 report`. The last line is a JSON object.
"""

import argparse
import json
from pathlib import Path

from visionr1.assets import recipe_path
from visionr1.rewards.hacking import RULES, Sign, signs
from visionr1.training.recipe import load_recipe
from visionr1.training.train import train

HACKABLE = ["reward.weights={recall = 1.0, precision = 0.1}", "reward.precision_over=matched"]
RUNS: dict[str, list[str]] = {"sound": [], "hackable": HACKABLE}


def run_signs(name: str, out: Path, steps: int, overrides: list[str]) -> tuple[Sign, ...]:
    """Train one run, if it is not there, and read its signs."""
    limits = [f"train.steps={steps}", "train.minutes=0", "checkpoint.every=0"]
    run_dir = out / name
    if not (run_dir / "final").is_dir():
        train(load_recipe(recipe_path("demo"), [*limits, *RUNS[name], *overrides]), run_dir)
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return signs([json.loads(line) for line in lines])


def main() -> None:
    """Train both, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    args = parser.parse_args()
    found = {name: run_signs(name, args.out, args.steps, args.overrides) for name in RUNS}
    print(f"{'last 20 steps of ' + str(args.steps):45}{'sign above':>12}{'sound':>12}{'hackable':>12}")
    columns = [
        {sign.name: f"{sign.value:.3f}{' !' if sign.raised else '  '}" for sign in run} for run in found.values()
    ]
    for rule in RULES:
        sound, hackable = (column.get(rule.name, "n/a  ") for column in columns)
        print(f"{rule.meaning:45}{rule.threshold:>12g}{sound:>12}{hackable:>12}")
    raised = {name: [sign.name for sign in run if sign.raised] for name, run in found.items()}
    print(json.dumps({"steps": args.steps, "raised": raised}))


if __name__ == "__main__":
    main()
