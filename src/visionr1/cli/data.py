"""`visionr1 data check`: read every row and image of a data set."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from visionr1.cli.arguments import (
    CommandParser,
    add_command,
    add_dialect_argument,
    add_images_argument,
    add_reader_argument,
    existing_path,
    list_names,
)
from visionr1.errors import DataError, needs_extra
from visionr1.terminal import printable_line

if TYPE_CHECKING:
    from visionr1.data.check import DataCheck
    from visionr1.samples import Query, Sample, Size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    add_command(actions, "check", _add_check_arguments, run)


def _add_check_arguments(parser: CommandParser) -> None:
    parser.more_help = names_overview
    parser.add_argument("data", metavar="DATA", help="what to check (see visionr1 --help)")
    parser.add_argument("--split", help="which part of a data folder (default: each)")
    parser.add_argument(
        "--model",
        type=existing_path,
        metavar="MODEL",
        help='ask the processor of this model ("tiny", a transformers folder or a run) whether it takes each image, '
        "and at what size; weights are not loaded",
    )
    add_images_argument(parser)
    add_reader_argument(parser)
    add_dialect_argument(parser, "in which truths are written", default=None, otherwise="the model's, or qwen25")
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

    visionr1 data check my_boxes/ --split train --model models/Qwen2.5-VL-3B-Instruct
    """
    from visionr1.data import data_path, find_splits, read_dataset, resolve_reader
    from visionr1.data.check import check_data
    from visionr1.dialects import resolve_dialect

    path = data_path(args.data)
    reader = resolve_reader(args.reader)

    check = partial(check_data, dialect=resolve_dialect(args.dialect or "qwen25"))
    if args.model:
        check = _check_with_model(args.model, args.dialect)

    # One split, or every one that there is; data without splits is read as a whole.
    splits: list[str | None] = [args.split]
    if not args.split:
        splits = [*find_splits(path, reader)] or [None]

    num_failures = num_faults = 0
    for split in splits:
        dataset = read_dataset(path, split=split, on_bad=args.on_bad, reader=reader, image_dir=args.images)
        findings = check(dataset)
        num_failures += len(findings.failures)
        num_faults += len(findings.faults)
        for line in (dataset.table.path, *dataset.report.lines(), *findings.lines()):
            print(printable_line(line))
    if num_faults > 0:
        raise DataError("a set without a usable box cannot be trained on; see above (docs/faq.md#no-box-to-learn-from)")
    if num_failures > 0:
        raise DataError(f"samples that cannot be trained on: {num_failures}; see above")


def _check_with_model(model: str, dialect_name: str | None) -> partial[DataCheck]:
    """Return the check in the model's dialect, which asks its processor for every image; no weights are loaded."""
    from visionr1.data.check import check_data

    with needs_extra("train"):
        from PIL import Image

        from visionr1.models.loading import load_encoder
    policy = load_encoder(model, dialect=dialect_name)
    sizes: dict[tuple[Size, Query], Size] = {}

    def input_size(sample: Sample) -> Size:
        """Return the size that the processor makes of a sample's image; ImageRefused if it takes none of that size."""
        # An empty image stands for all of one size.
        key = sample.size_wh, sample.query
        if key not in sizes:
            sizes[key] = policy.encode(Image.new("RGB", sample.size_wh), sample.query).input_size_wh
        return sizes[key]

    return partial(check_data, dialect=policy.dialect, input_size=input_size)
