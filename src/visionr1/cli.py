"""The command line: two small functions per command, what it takes and what it does.

Each imports its room when it is used, so that `--help` is quick and a part that is not installed is
missed only where it is needed. `main` is the one boundary that catches VisionR1Error: it prints
`error: ...` and returns 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visionr1 import __version__
from visionr1.errors import DataError, VisionR1Error, needs_extra
from visionr1.files import read_text

if TYPE_CHECKING:
    from visionr1.rewards import Score
    from visionr1.samples import GroundTruth

EXAMPLES = """\
examples:
  visionr1 demo                                          see it work, in minutes on a CPU
  visionr1 data check my_boxes/                          what is wrong with a data set
  visionr1 train demo --data my_boxes/ --run-dir runs/a  train on your own boxes
  visionr1 eval runs/a --data my_boxes/                  measure the trained model
  visionr1 predict photo.jpg --categories cat,dog --model runs/a
  visionr1 report runs/a                                 one HTML page about the run

DATA is a COCO JSON file, a folder whose train/, valid/ and test/ hold one each, or "bccd" (it ships).
MODEL is a transformers folder, a run folder (its final model), or "tiny" (it ships).
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for a user's error, 130 for an interrupt."""
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except VisionR1Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    parser = argparse.ArgumentParser(
        prog="visionr1",
        description="Train vision-language models to detect objects, by RL from box annotations.",
        epilog=EXAMPLES + "\n`visionr1 COMMAND --help` says more of each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"visionr1 {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], None], about: str, example: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}.",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    add_demo(command("demo", run_demo, "train the model that ships on real images and report", "visionr1 demo"))
    add_train(
        command(
            "train",
            run_train,
            "train a model by a recipe",
            "visionr1 train demo --data my_boxes/ --set train.minutes=30 --run-dir runs/mine",
        )
    )
    add_eval(command("eval", run_eval, "measure a model on a COCO-format set", "visionr1 eval tiny --data bccd"))
    add_predict(
        command(
            "predict",
            run_predict,
            "find objects in one image, drawn and as JSON",
            "visionr1 predict photo.jpg --categories cat,dog --model runs/mine",
        )
    )
    add_report(command("report", run_report, "write one HTML page about a run", "visionr1 report runs/demo"))
    add_data(command("data", run_data, "check a data set before training on it", "visionr1 data check my_boxes/"))
    add_score(
        command(
            "score",
            run_score,
            "score one completion by the paper's reward, with the reasons",
            "visionr1 score reply.txt --data bccd --split train --image BloodImage_00000.jpg",
        )
    )
    return parser


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, metavar="DATA", help='COCO JSON file, data folder or "bccd"')
    parser.add_argument("--split", default="test", help="which part of a data folder (default: test)")


def add_demo(parser: argparse.ArgumentParser) -> None:
    """visionr1 demo"""
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=Path("runs/demo"),
        metavar="DIR",
        help="what the run leaves (default: runs/demo); an interrupted demo there is continued",
    )


def run_demo(args: argparse.Namespace) -> None:
    """visionr1 demo"""
    with needs_extra("all"):
        from visionr1.demo import demo
    demo(args.run_dir)


def add_train(parser: argparse.ArgumentParser) -> None:
    """visionr1 train"""
    parser.add_argument("recipe", metavar="RECIPE", help='TOML file, or the name of one that ships, such as "demo"')
    parser.add_argument("--model", help="start from this model instead of the recipe's")
    parser.add_argument("--data", metavar="DATA", help="train on this instead of the recipe's data")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="change one setting of the recipe, such as train.learning_rate=1e-5; may be repeated",
    )
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="what the run leaves (default: runs/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --run-dir")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and stop")


def run_train(args: argparse.Namespace) -> None:
    """visionr1 train"""
    from visionr1.embedded import recipe_path
    from visionr1.recipe import load_recipe, to_toml

    path = recipe_path(args.recipe)
    recipe = load_recipe(path, args.overrides)
    if args.model:
        recipe = recipe.with_model(args.model)
    if args.data:
        recipe = recipe.with_data(args.data)
    if args.dry_run:
        print(to_toml(recipe), end="")
        return
    with needs_extra("train"):
        from visionr1.train import train
    result = train(recipe, args.run_dir or Path("runs") / path.stem, resume=args.resume)
    print(f"{result.steps} steps; the trained model is in {result.model_dir}")


def add_eval(parser: argparse.ArgumentParser) -> None:
    """visionr1 eval"""


def run_eval(args: argparse.Namespace) -> None:
    """visionr1 eval"""


def add_predict(parser: argparse.ArgumentParser) -> None:
    """visionr1 predict"""


def run_predict(args: argparse.Namespace) -> None:
    """visionr1 predict"""


def add_report(parser: argparse.ArgumentParser) -> None:
    """visionr1 report"""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to (default: RUN/report.html)")


def run_report(args: argparse.Namespace) -> None:
    """visionr1 report"""
    from visionr1.report import write_report

    print(write_report(args.run_dir, args.out or args.run_dir / "report.html"))


def add_data(parser: argparse.ArgumentParser) -> None:
    """visionr1 data"""


def run_data(args: argparse.Namespace) -> None:
    """visionr1 data check"""


def add_score(parser: argparse.ArgumentParser) -> None:
    """visionr1 score"""
    parser.add_argument("completion", metavar="FILE", help='the completion\'s text; "-" reads standard input')
    _add_data_arguments(parser)
    parser.add_argument("--image", required=True, metavar="NAME", help="file name of the image it is about")
    parser.add_argument(
        "--input-size",
        type=_size,
        metavar="WxH",
        help="size in which the model saw the image (default: the image's own)",
    )


def run_score(args: argparse.Namespace) -> None:
    """visionr1 score"""
    from visionr1.readers import read_source
    from visionr1.rewards import Reward

    samples = [s for s in read_source(args.data, split=args.split) if Path(str(s.image)).name == args.image]
    if not samples:
        raise DataError(f"{args.data}, split {args.split}, holds no image named {args.image}")
    truth = samples[0].ground_truth(args.input_size or samples[0].size_wh)
    text = sys.stdin.read() if args.completion == "-" else read_text(Path(args.completion))
    print(explain(Reward().score(text, truth), truth))


def explain(score: Score, truth: GroundTruth) -> str:
    """A score with its parts, its pairs and its faults, for reading."""
    parts = " + ".join(f"{name} {value:.3f}" for name, value in score.parts.items())
    stage = f"xi0 {score.stage.xi0}, xi1 {score.stage.xi1}, xi2 {score.stage.xi2}"
    lines = [
        f"{score.total:.3f} = {parts}   ({stage})",
        f"{score.reply.num_predicted} predicted, {len(truth.boxes)} true, "
        f"{sum(pair.valid for pair in score.pairs)} valid pairs",
    ]
    for pair in score.pairs:
        said, true = score.reply.boxes.labels[pair.predicted], truth.boxes.labels[pair.true]
        label = said if pair.label_correct else f"{said}, but it is {true}"
        lines.append(f"  box {pair.predicted + 1} matches true box {pair.true + 1}: IoU {pair.iou:.3f}, {label}")
    for fault in score.reply.faults:
        where = "the text" if fault.item is None else f"item {fault.item + 1}"
        lines.append(f"  fault in {where}: {fault.kind} ({fault.detail})")
    return "\n".join(lines)


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.partition("x")
    if not (x and width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT in pixels, such as 640x480, but found {text!r}")
    return int(width), int(height)


if __name__ == "__main__":
    sys.exit(main())
