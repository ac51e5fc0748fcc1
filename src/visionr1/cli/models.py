"""`visionr1 models`: which model families can be trained, and how."""

import argparse
from typing import Any

from visionr1.errors import needs_extra


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no arguments: the table is whole."""


def run(args: argparse.Namespace) -> None:
    """List the model families that were tested: how each goes through the model, its dialect, how images are bounded.

    visionr1 models
    """
    with needs_extra("train"):
        from visionr1.models.supported import read_families
    print(format_families(read_families()))


def format_families(rows: list[dict[str, Any]]) -> str:
    """Format the rows of `read_families` as a table in Markdown, followed by those that are refused or were not run."""
    lines = [
        "| family | path | dialect | model.max_pixels sets | needs | transformers |",
        "|---|---|---|---|---|---|",
    ]
    others = []
    for row in rows:
        if row["status"] != "ok":
            others.append(f"- `{row['family']}`: {row['status']}")
            continue
        cells = (
            f"`{row['family']}`",
            row["path"],
            f"`{row['dialect']}`" if row["dialect"] else "to be named",
            _format_bound(row["bound"]),
            ", ".join(row["needs"]),
            row["transformers"],
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *(["", *others] if others else [])])


def _format_bound(names: list[str] | None) -> str:
    """Format the settings that bound an image; none are needed where every image is fed at one size."""
    if names is None:
        return "nothing"
    return ", ".join(f"`{name}`" for name in names) or "one size"
