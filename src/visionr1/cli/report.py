"""`visionr1 report`: one HTML page about a run."""

import argparse
from pathlib import Path

from visionr1.terminal import printable_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run_dir",
        type=Path,
        metavar="RUN",
        help="folder of a run, or one that eval --out wrote",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where to (default: RUN/report.html)",
    )


def run(args: argparse.Namespace) -> None:
    """Write one HTML page about a run.

    visionr1 report runs/demo
    """
    from visionr1.report.page import write_report

    out = args.out or args.run_dir / "report.html"
    print(printable_line(write_report(args.run_dir, out)))
