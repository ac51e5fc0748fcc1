"""`visionr1 plan`: what a run will take, before it starts."""

from __future__ import annotations

import argparse
import json
import re
from typing import TYPE_CHECKING

from visionr1.cli.arguments import CommandParser, existing_path, positive
from visionr1.cli.recipe import settings_overview
from visionr1.errors import RecipeError, needs_extra
from visionr1.terminal import printable

if TYPE_CHECKING:
    from visionr1.training.planning.machine import Machine
    from visionr1.training.recipe import Recipe

GPU_MEMORY = 80.0
"""GiB of a GPU where none is named."""
TFLOPS = 400.0
"""What an H100 reaches in bfloat16 products of a model's size: about 40 percent of its peak."""
TERABYTES = 2.5
"""A second of its memory, of 3.35 at best."""


def add_arguments(parser: CommandParser) -> None:
    # Reading all sections takes time that a plan does not need, so only the help does it.
    parser.more_help = settings_overview
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        help='TOML file, or the name of one that ships, such as "demo"',
    )
    parser.add_argument(
        "--model",
        type=existing_path,
        help="plan with this model instead of the recipe's; its weights need not be there",
    )
    parser.add_argument(
        "--data",
        type=existing_path,
        metavar="DATA",
        help="plan with this data instead of the recipe's",
    )
    parser.add_argument(
        "--image",
        type=image_size,
        metavar="WIDTHxHEIGHT",
        help="count with images of this size in place of the data, which need not be there",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="change one setting of the recipe, as for visionr1 train; may be repeated",
    )
    add_machine_arguments(parser)
    parser.add_argument("--changes", action="store_true", help="say what would take less memory even if it fits")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead: bytes, seconds, FLOPs")


def add_machine_arguments(parser: CommandParser) -> None:
    """Add the arguments that say what the run is on."""
    parser.add_argument(
        "--gpus",
        type=positive,
        metavar="N",
        help="plan for so many GPUs, one process each (default: one, if model.device is a GPU; else this CPU)",
    )
    parser.add_argument(
        "--gpu-memory",
        type=above_zero,
        metavar="GIB",
        help=f"of each GPU (default: {GPU_MEMORY:g})",
    )
    parser.add_argument(
        "--sharding",
        choices=("none", "fsdp2", "zero2"),
        default="none",
        help="what the launcher's configuration divides over the GPUs (default: none: each holds all)",
    )
    parser.add_argument(
        "--tflops",
        type=above_zero,
        default=TFLOPS,
        help=f"that a GPU reaches in bfloat16 products (default: {TFLOPS:g})",
    )
    parser.add_argument(
        "--bandwidth",
        type=above_zero,
        default=TERABYTES,
        metavar="TERABYTES",
        help=f"that a GPU's memory moves a second (default: {TERABYTES:g})",
    )


def image_size(text: str) -> tuple[int, int]:
    """Parse a width and a height in pixels, such as 1280x720."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected a width and a height in pixels, such as 1280x720, found {text!r}")
    return int(match[1]), int(match[2])


def above_zero(text: str) -> float:
    """Parse a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return value


def run(args: argparse.Namespace) -> None:
    """Plan a run: its memory by part and process, its seconds by phase, and what to change if it does not fit.

    visionr1 plan paper_qwen25vl_7b --data my_boxes/ --gpus 8 --gpu-memory 80 --sharding fsdp2
    """
    recipe = read_recipe(args)
    with needs_extra("train"):
        from visionr1.training.planning.changes import find_changes
        from visionr1.training.planning.plan import Planner
        from visionr1.training.planning.processes import Layout
        from visionr1.training.planning.text import format_plan, plan_to_json

    machine = choose_machine(args, recipe)
    if args.sharding != "none" and not machine.is_gpu:
        raise RecipeError(f"--sharding: expected none on a CPU, found {args.sharding}; give --gpus")
    layout = Layout(gpus=args.gpus or 1, sharding=args.sharding)
    planner = Planner(machine, args.image)
    plan = planner.plan(recipe, layout)
    changes = find_changes(planner, plan) if args.changes or not plan.fits else None
    if args.json:
        print(json.dumps(plan_to_json(plan, changes)))
    else:
        print(printable(format_plan(plan, changes)))


def read_recipe(args: argparse.Namespace) -> Recipe:
    """Return the recipe with the model, the data and the settings that were given."""
    from visionr1.assets import recipe_path
    from visionr1.training.recipe import load_recipe

    recipe = load_recipe(recipe_path(args.recipe), args.overrides)
    if args.model:
        recipe = recipe.with_model(args.model)
    if args.data and args.image:
        raise RecipeError("--image: expected no --data beside it; images of this size take the place of the data")
    if args.data:
        recipe = recipe.with_data(args.data)
    if not args.image:
        recipe.check_ends()
    return recipe


def choose_machine(args: argparse.Namespace, recipe: Recipe) -> Machine:
    """Return the GPU that was described, or this machine's CPU if neither recipe nor arguments name a GPU."""
    from visionr1.training.planning.machine import assume_gpu, measure_cpu

    if args.gpus or args.gpu_memory or recipe.model.device != "cpu":
        return assume_gpu(args.gpu_memory or GPU_MEMORY, args.tflops, args.bandwidth)
    return measure_cpu()
