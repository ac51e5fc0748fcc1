"""`visionr1 demo`: evaluate the model that ships, train it with Vision-R1, evaluate it again, report.

Everything is real and in the package: BCCD's images, the base model, `recipes/demo.toml`. Each part
leaves its file when it is done, so a demo that was stopped goes on where it was.
"""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from visionr1.errors import TrainingError
from visionr1.evaluation import (
    Difference,
    PredictionFiles,
    Protocol,
    Result,
    evaluate,
    format_results,
    paired_difference,
)
from visionr1.evaluation.compare import HEADLINES
from visionr1.evaluation.runner import Model
from visionr1.evaluation.statistics import format_differences
from visionr1.files import read_json, write_json_atomic
from visionr1.report.page import write_report
from visionr1.terminal import printable, printable_line
from visionr1.training.recipe import Recipe
from visionr1.training.run_lock import lock_run
from visionr1.training.train import train

DATA, SPLIT = "bccd", "test"


def next_run_dir(parent: Path = Path("runs")) -> Path:
    """Return the first of demo, demo-2, demo-3, ... in `parent` that holds no finished demo."""
    number = 1
    folder = parent / "demo"
    while (folder / "results.json").is_file():
        number += 1
        folder = parent / f"demo-{number}"
    return folder


def demo(recipe: Recipe, run_dir: Path) -> None:
    """Run all of it in `run_dir`, or what is left of it, and leave `results.json` and `report.html` there.

    Raises TrainingError if `run_dir` holds a finished demo or something else, or if another process writes it.
    """
    check_run_dir(run_dir)
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(
        f"Everything goes to {printable_line(run_dir)}. If you stop this, the same command goes on.", soft_wrap=True
    )

    console.rule(f"1/3  The base model on {DATA} {SPLIT}", align="left")
    with lock_run(run_dir):
        base = measure("base", recipe.model.path, recipe, run_dir)

    # The final model is there if training ended before the demo was stopped. Training locks the folder itself.
    training_data = recipe.phases[0].data[0]
    console.rule(f"2/3  Vision-R1 on {training_data.source} {training_data.split}", align="left")
    final = run_dir / "final"
    if not final.is_dir():
        train(recipe, run_dir, resume=(run_dir / "recipe.toml").is_file())

    console.rule(f"3/3  The trained model on {DATA} {SPLIT}", align="left")
    with lock_run(run_dir):
        trained = measure("trained", str(final), recipe, run_dir)

        # The report reads the results from the folder, so they are written before it.
        gain = compute_gain(base, trained)
        write_json_atomic(run_dir / "results.json", make_record(base, trained, gain))
        report = write_report(run_dir, run_dir / "report.html")

    console.rule("Result", align="left")
    console.print(format_results({"base": base, "Vision-R1": trained}), soft_wrap=True)
    console.print(f"Change, paired over the images: {format_differences(gain, HEADLINES)}", soft_wrap=True)
    console.print(
        printable(f"\nThe report: {report}\nThe numbers: {run_dir / 'results.json'}\nThe trained model: {final}"),
        soft_wrap=True,
    )


def check_run_dir(run_dir: Path) -> None:
    """Raise TrainingError unless `run_dir` is new, empty or an unfinished demo."""
    if (run_dir / "results.json").is_file():
        raise TrainingError(f"{run_dir} holds a finished demo; choose another --run-dir")
    has_files = any(not path.name.startswith(".") for path in run_dir.glob("*"))
    if has_files and not (run_dir / "evaluation").is_dir():
        raise TrainingError(f"{run_dir} is not empty and holds no demo to go on with; choose another --run-dir")


def measure(name: str, model: str, recipe: Recipe, run_dir: Path) -> Result:
    """Evaluate `model` into `run_dir`/evaluation, or score the replies that are there already."""
    stored = run_dir / "evaluation" / f"{name}.json"
    if stored.is_file():
        protocol = Protocol.from_json(read_json(stored)["protocol"])
        replies = PredictionFiles([stored.with_name(f"{name}.predictions.jsonl")])
        return evaluate(DATA, replies, split=SPLIT, protocol=protocol).result

    replier = Model(model, device=recipe.model.device, max_new_tokens=recipe.rollout.max_new_tokens)
    return evaluate(DATA, replier, split=SPLIT, out=run_dir, name=name).result


def compute_gain(base: Result, trained: Result) -> dict[str, Difference]:
    """Return how much the trained model is above the base, by metric, paired over the images."""
    # Both are evaluated with intervals, which is what resamples them.
    assert base.resampler is not None and trained.resampler is not None
    return paired_difference(base.resampler, trained.resampler)


def make_record(base: Result, trained: Result, gain: Mapping[str, Difference]) -> dict[str, object]:
    """Make the content of `results.json`: the metrics of both models, the gain, and the protocol of all."""
    data = {"data": DATA, "split": SPLIT, "images": base.counts["images"]}
    return {
        "base": base.metrics,
        "trained": trained.metrics,
        "gain": {name: difference.to_json() for name, difference in gain.items()},
        "protocol": {**base.protocol.to_json(), **data},
    }
