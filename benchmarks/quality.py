"""What Vision-R1 and SFT add to the model that ships: BCCD test and held-out scenes, over several seeds.

    python benchmarks/quality.py --out runs/quality

Both train from the same base on the same samples, in the same order, for the same number of steps (recipes/demo.toml
and recipes/demo_sft.toml); every setting of both was chosen on BCCD valid. BCCD test is read once per seed. Prints one
table per set (mean and standard deviation over seeds) and the paired interval of each gain over images; the last line
is a JSON object. A run that was stopped goes on where it was.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from visionr1.assets import recipe_path
from visionr1.data import read_source
from visionr1.data.scenes import SceneConfig, SceneStream
from visionr1.evaluation import Result, evaluate, paired_difference
from visionr1.evaluation.runner import Model
from visionr1.evaluation.statistics import Resampler
from visionr1.samples import Sample
from visionr1.training.recipe import load_recipe
from visionr1.training.train import train

METHODS = {"SFT": "demo_sft", "Vision-R1": "demo"}
METRICS = ("AP", "AP50", "AP75", "AR100", "F1")
SCENES_SEED = 10_000
"""Of the held-out scenes; no recipe trains on it."""


def evaluation_sets(num_scenes: int) -> dict[str, list[Sample]]:
    """Samples by name of the set: real test images, and scenes that no training has shown."""

    def scenes(**settings: Any) -> list[Sample]:
        stream = SceneStream(SCENES_SEED, SceneConfig(subset=0.0, **settings))
        return [stream[index] for index in range(num_scenes)]

    return {
        "BCCD test": list(read_source("bccd", split="test")),
        "scenes, other seeds": scenes(),
        "scenes, new shape": scenes(held_out="shape", cells=0.0),
        "scenes, new texture": scenes(held_out="texture", cells=0.0),
    }


def evaluate_model(model_dir: str | Path, sets: dict[str, list[Sample]]) -> dict[str, Result]:
    """One result per set, each under the default protocol."""
    model = Model(model_dir)
    return {name: evaluate(samples, model, name=name).result for name, samples in sets.items()}


def trained_model(method: str, seed: int, out: Path, overrides: list[str]) -> Path:
    """The final model of one run, made if it is not there."""
    recipe = load_recipe(recipe_path(METHODS[method]), [f"seed={seed}", "train.minutes=0", *overrides])
    run_dir = out / f"{METHODS[method]}-seed{seed}"
    if not (run_dir / "final").is_dir():
        train(recipe, run_dir, resume=run_dir.is_dir())
    return run_dir / "final"


def resampler(result: Result) -> Resampler:
    """What gives the figures of drawn images."""
    assert result.resampler is not None
    return result.resampler


def summary(values: list[float]) -> str:
    """Mean and spread, x 100."""
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"


def print_tables(results: dict[str, list[dict[str, Result]]], sets: dict[str, list[Sample]]) -> None:
    """Markdown, one table per set, with the gains' paired intervals under it."""
    base = results["base"][0]
    for name, samples in sets.items():
        print(f"\n### {name} ({len(samples)} images)\n")
        print("| model | " + " | ".join(METRICS) + " | right format | truncated | boxes / true |")
        print("|---" * (len(METRICS) + 4) + "|")
        for method, runs in results.items():
            own = [run[name] for run in runs]
            figures = [summary([result.metrics[metric] for result in own]) for metric in METRICS]
            counts = [result.counts for result in own]
            formed = statistics.mean(count["well_formed"] / count["replies"] for count in counts)
            cut = statistics.mean(count["truncated"] / count["replies"] for count in counts)
            boxes = statistics.mean(count["predicted_boxes"] / max(1, count["true_boxes"]) for count in counts)
            print(f"| {method} | " + " | ".join(figures) + f" | {formed:.0%} | {cut:.0%} | {boxes:.2f} |")
        print(f"\n{base[name].protocol.line()}\n")
        for method, runs in results.items():
            for seed, run in enumerate(runs if method != "base" else []):
                gain = paired_difference(resampler(base[name]), resampler(run[name]))["AP"]
                low, high = gain.interval
                print(f"- {method}, seed {seed}: AP {100 * gain.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")


def main() -> None:
    """Train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/quality"), help="folder of the runs")
    parser.add_argument("--base", default="tiny", help="model to start from (default: the one that ships)")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--scenes", type=int, default=64, help="images of each set of scenes (default: 64)")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="as in `visionr1 train`")
    args = parser.parse_args()
    sets = evaluation_sets(args.scenes)
    overrides = [f"model.path={args.base}", *args.overrides]
    results = {"base": [evaluate_model(args.base, sets)]}
    for method in METHODS:
        models = [trained_model(method, seed, args.out, overrides) for seed in range(args.seeds)]
        results[method] = [evaluate_model(model, sets) for model in models]
    print_tables(results, sets)
    print(
        json.dumps(
            {name: {method: [run[name].metrics for run in runs] for method, runs in results.items()} for name in sets}
        )
    )


if __name__ == "__main__":
    main()
