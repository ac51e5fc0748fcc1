"""`visionr1 compare`: stored results side by side."""

import argparse
import json
from pathlib import Path

from visionr1.cli.arguments import count
from visionr1.terminal import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULT",
        help="files that `visionr1 eval --out DIR` left in DIR",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object instead of the table",
    )
    parser.add_argument(
        "--resamples",
        type=count,
        default=1000,
        metavar="N",
        help="for intervals (default: 1000)",
    )


def run(args: argparse.Namespace) -> None:
    """Put stored results side by side, with paired differences.

    visionr1 compare before/evaluation/base.json after/evaluation/mine.json
    """
    from visionr1.evaluation import compare

    # The table has intervals, which need at least one resample.
    comparison = compare(args.results, num_resamples=max(1, args.resamples))
    if args.json:
        print(json.dumps(comparison.to_json()))
    else:
        print(printable(comparison.table()))
