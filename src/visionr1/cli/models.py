"""`visionr1 models`: which model families can be trained, and how; `visionr1 models convert` makes a folder of one."""

import argparse
from pathlib import Path
from typing import Any

from visionr1.cli.arguments import add_command, existing_path
from visionr1.errors import needs_extra


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions; without one, the table is printed."""
    actions = parser.add_subparsers(metavar="[ACTION]")
    add_command(actions, "convert", _add_convert_arguments, convert)


def _add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=existing_path, metavar="CHECKPOINT", help="the folder as it was released")
    parser.add_argument("out", type=Path, metavar="OUT", help="the new folder to write")
    parser.add_argument(
        "--vision-tower",
        type=existing_path,
        required=True,
        metavar="DIR",
        help="the folder of the vision tower that the checkpoint names (mm_vision_tower in its config.json): its "
        "configuration, and its weights where the checkpoint has none",
    )


def run(args: argparse.Namespace) -> None:
    """List the model families that were tested: how each goes through the model, its dialect, how images are bounded;
    then those that are refused, and why.

    visionr1 models
    """
    with needs_extra("train"):
        from visionr1.models.supported import read_families
    print(format_families(read_families()))


def convert(args: argparse.Namespace) -> None:
    """Convert a checkpoint that transformers has no class for, Griffon-G as released, into a model folder.

    visionr1 models convert Griffon-G-gemma2-9B models/griffon-g --vision-tower clip-vit-large-path14-336_to_1022
    """
    with needs_extra("train"):
        from visionr1.models.conversion.griffon import convert_griffon
    left_out = convert_griffon(Path(args.checkpoint), Path(args.vision_tower), args.out)
    print(f"{args.out}: a model folder, as --model takes it")
    if left_out:
        print(f"left out: {len(left_out)} weights for images as prompts, such as {left_out[0]}")


def format_families(rows: list[dict[str, Any]]) -> str:
    """Format the rows of `read_families` as a table in Markdown, followed by those that are refused or not tried."""
    lines = [
        "| family | path | dialect | largest difference | model.max_pixels sets | needs | transformers |",
        "|---|---|---|---|---|---|---|",
    ]
    refused: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] != "ok":
            refused.setdefault(row["status"], []).append(f"`{row['family']}`")
            continue
        cells = (
            f"`{row['family']}`",
            row["path"],
            f"`{row['dialect']}`" if row["dialect"] else "to be named",
            f"{row['difference']:.0e}",
            _format_bound(row["bound"]),
            ", ".join(row["needs"]),
            row["transformers"],
        )
        lines.append(f"| {' | '.join(cells)} |")

    # One line a reason.
    lines += ["", *(f"- {', '.join(names)}: {status}" for status, names in refused.items())]
    return "\n".join(lines)


def _format_bound(names: list[str] | None) -> str:
    """Format the settings that bound an image; none are needed where every image is fed at one size."""
    if names is None:
        return "nothing"
    return ", ".join(f"`{name}`" for name in names) or "one size"
