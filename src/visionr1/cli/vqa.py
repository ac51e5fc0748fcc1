"""`visionr1 vqa`: questions about images, through VLMEvalKit."""

import argparse
import json
from pathlib import Path

from visionr1.cli.arguments import (
    CommandParser,
    add_dialect_argument,
    add_engine_argument,
    add_model_arguments,
    list_names,
    positive,
)
from visionr1.errors import needs_extra
from visionr1.terminal import printable


def add_arguments(parser: CommandParser) -> None:
    parser.more_help = names_overview
    parser.add_argument(
        "benchmark",
        metavar="BENCHMARK",
        help="as VLMEvalKit calls it: GQA_TestDev_Balanced, ChartQA_TEST, AI2D_TEST, SEEDBench_IMG ...",
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help='transformers folder, run folder, or "tiny"',
    )
    parser.add_argument(
        "--tsv",
        type=Path,
        metavar="FILE",
        help="ask this file of VLMEvalKit's format instead of its own",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="what it leaves: the record in DIR/vqa",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=positive,
        default=128,
        metavar="N",
        help="of an answer (default: 128)",
    )
    add_dialect_argument(parser, "how the model writes boxes", default=None, otherwise="as its folder says")
    add_model_arguments(parser)
    add_engine_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def names_overview() -> str:
    """List the names that --dialect and --engine take."""
    from visionr1.dialects import describe_dialects
    from visionr1.rollout.engines import answering_engines

    return list_names(dialects=describe_dialects(), engines=answering_engines())


def run(args: argparse.Namespace) -> None:
    """Ask a model questions about images, through VLMEvalKit.

    visionr1 vqa GQA_TestDev_Balanced --model runs/mine --out runs/mine
    """
    with needs_extra("train"):
        from visionr1.evaluation.model.answerer import open_answerer
        from visionr1.evaluation.model.vqa import describe, evaluate_vqa

    answerer = open_answerer(args.model, engine=args.engine, device=args.device, dtype=args.dtype, dialect=args.dialect)
    record = evaluate_vqa(
        answerer,
        args.benchmark,
        args.out,
        model=args.model,
        tsv=args.tsv,
        max_new_tokens=args.max_new_tokens,
    )
    if args.json:
        print(json.dumps(record))
    else:
        print(printable(describe(record)))
