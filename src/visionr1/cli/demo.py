"""`visionr1 demo`: see it work."""

import argparse
from pathlib import Path

from visionr1.errors import needs_extra


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="what it leaves (default: runs/demo, or demo-2 ... after a finished one); an unfinished demo goes on",
    )


def run(args: argparse.Namespace) -> None:
    """Train the model that ships on real images and report.

    visionr1 demo
    """
    from visionr1.assets import recipe_path
    from visionr1.training.recipe import load_recipe

    # The demo trains, evaluates and writes a report.
    with needs_extra("all"):
        from visionr1.demo import demo, next_run_dir

    recipe = load_recipe(recipe_path("demo"))
    demo(recipe, args.run_dir or next_run_dir())
