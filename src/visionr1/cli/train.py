"""`visionr1 train`: a model by a recipe."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from visionr1.cli.arguments import CommandParser, existing_path
from visionr1.cli.recipe import settings_overview
from visionr1.errors import RecipeError, needs_extra
from visionr1.terminal import printable_line, printable_toml

if TYPE_CHECKING:
    from visionr1.training.recipe import Recipe
    from visionr1.training.train import RunResult


def add_arguments(parser: CommandParser) -> None:
    # Reading all sections takes time that a run does not need, so only the help does it.
    parser.more_help = settings_overview
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        help='TOML file, or the name of one that ships, such as "demo"',
    )
    parser.add_argument(
        "--model",
        type=existing_path,
        help="start from this model instead of the recipe's",
    )
    parser.add_argument(
        "--data",
        type=existing_path,
        metavar="DATA",
        help="train on this instead of the recipe's data",
    )
    parser.add_argument(
        "--images",
        type=existing_path,
        metavar="DIR",
        help="the folder of DATA's images, where they lie in no usual place near the annotations; needs --data",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="change one setting of the recipe, such as train.learning_rate=1e-5 (of all phases that "
        "agree in it; of one: phase.NAME.learning_rate, or its number from 0); may be repeated",
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="what the run leaves (default: runs/RECIPE)",
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --run-dir")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and stop")


def run(args: argparse.Namespace) -> None:
    """Train a model by a recipe.

    visionr1 train paper_qwen25vl_7b --model models/Qwen2.5-VL-3B-Instruct --data my_boxes/ --run-dir runs/mine
    """
    from visionr1.assets import recipe_path
    from visionr1.training.recipe import load_recipe, to_toml

    # --model and --data take precedence over the recipe, so its ends are checked after them.
    path = recipe_path(args.recipe)
    recipe = load_recipe(path, args.overrides)
    if args.model:
        recipe = recipe.with_model(args.model)
    if args.images and not args.data:
        raise RecipeError("--images: expected --data too; the recipe's own data names its images in data.images")
    if args.data:
        recipe = recipe.with_data(args.data, args.images or "")
    recipe.check_ends()

    if args.dry_run:
        print(printable_toml(to_toml(recipe)), end="")
        return

    with needs_extra("train"):
        from visionr1.training.train import train
    result = train(recipe, args.run_dir or Path("runs") / path.stem, resume=args.resume)
    # Of several processes only the first prints.
    if os.environ.get("RANK", "0") == "0":
        print(printable_line(_summary(result, recipe)))


def _summary(result: RunResult, recipe: Recipe) -> str:
    """Say in one line how many steps a run has, and where its model is."""
    # Fewer steps than planned are explained where a phase has a time limit.
    steps = f"{result.steps} steps"
    num_planned = sum(phase.steps for phase in recipe.phases)
    has_time_limit = any(phase.minutes for phase in recipe.phases)
    if has_time_limit and result.steps < num_planned:
        steps += f" of {num_planned}, which train.minutes cut off"
    if result.was_finished:
        steps = f"{result.run_dir} is finished already: {steps}"
    summary = f"{steps}; the trained model is in {result.model_dir}"
    if result.skipped > 0:
        summary += f"; samples skipped: {result.skipped} (see {result.run_dir / 'skipped.jsonl'})"
    return summary
