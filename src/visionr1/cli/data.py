"""`visionr1 data check`: read every row and image of a data set."""

import argparse

from visionr1.cli.arguments import (
    CommandParser,
    add_command,
    add_dialect_argument,
    add_images_argument,
    add_reader_argument,
    list_names,
)
from visionr1.errors import DataError
from visionr1.terminal import printable_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    add_command(actions, "check", _add_check_arguments, run)


def _add_check_arguments(parser: CommandParser) -> None:
    parser.more_help = names_overview
    parser.add_argument("data", metavar="DATA", help="what to check (see visionr1 --help)")
    parser.add_argument("--split", help="which part of a data folder (default: each)")
    add_images_argument(parser)
    add_reader_argument(parser)
    add_dialect_argument(parser, "in which truths are written", default="qwen25", otherwise="qwen25")
    parser.add_argument(
        "--on-bad",
        choices=("raise", "skip"),
        default="raise",
        help="stop at a bad row of the annotations, or count it (default: raise); bad images are all named either way",
    )


def names_overview() -> str:
    """List the names that --dialect and --reader take."""
    from visionr1.data import READERS
    from visionr1.dialects import describe_dialects

    return list_names(dialects=describe_dialects(), readers=READERS)


def run(args: argparse.Namespace) -> None:
    """Read every row and image of a data set, and score its truth as a reply.

    visionr1 data check my_boxes/ --split train --dialect qwen3
    """
    from visionr1.data import data_path, find_splits, read_dataset, resolve_reader
    from visionr1.data.check import check_data
    from visionr1.dialects import resolve_dialect

    path = data_path(args.data)
    reader = resolve_reader(args.reader)
    dialect = resolve_dialect(args.dialect)

    # One split, or every one that there is; data without splits is read as a whole.
    splits: list[str | None] = [args.split]
    if not args.split:
        splits = [*find_splits(path, reader)] or [None]

    num_failures = num_faults = 0
    for split in splits:
        dataset = read_dataset(path, split=split, on_bad=args.on_bad, reader=reader, image_dir=args.images)
        check = check_data(dataset, dialect)
        num_failures += len(check.failures)
        num_faults += len(check.faults)
        for line in (dataset.table.path, *dataset.report.lines(), *check.lines()):
            print(printable_line(line))
    if num_faults > 0:
        raise DataError("a set without a usable box cannot be trained on; see above (docs/faq.md#no-box-to-learn-from)")
    if num_failures > 0:
        raise DataError(f"samples that cannot be trained on: {num_failures}; see above")
