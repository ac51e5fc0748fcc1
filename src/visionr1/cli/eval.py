"""`visionr1 eval`: measure a model, or replies that are there, on a set with boxes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from visionr1.cli.arguments import (
    CommandParser,
    add_data_arguments,
    add_dialect_argument,
    add_engine_argument,
    add_images_argument,
    add_model_arguments,
    add_reader_argument,
    count,
    existing_path,
    list_names,
    names,
    positive,
)
from visionr1.errors import RecipeError, needs_extra
from visionr1.terminal import printable, printable_line

if TYPE_CHECKING:
    from visionr1.evaluation import Evaluation
    from visionr1.evaluation.runner import Model


def add_arguments(parser: CommandParser) -> None:
    parser.more_help = names_overview
    _add_input_arguments(parser)
    _add_output_arguments(parser)
    _add_protocol_arguments(parser)
    _add_generation_arguments(parser)


def _add_input_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model",
        type=existing_path,
        metavar="MODEL",
        help='transformers folder, run folder, or "tiny"',
    )
    source.add_argument(
        "--predictions",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="score this instead: COCO results (JSON), or raw replies (JSON Lines with image_id and "
        "text), or a run's rollouts.jsonl; several are the shards of one evaluation",
    )
    add_data_arguments(parser)
    add_images_argument(parser)
    add_reader_argument(parser)


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="keep result and replies in DIR/evaluation, as NAME.json, or NAME-PROTOCOL.json with "
        "--protocol or --scores; what was stopped goes on, replies that are there are not asked "
        "again, and a result of anything else is never replaced",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object instead of the table",
    )


def _add_protocol_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--protocol",
        action="append",
        default=[],
        metavar="NAME|FIELD=VALUE",
        help="what the numbers depend on: one of the protocols below, then single fields, such as "
        "scores=rank; may be repeated (docs/evaluation.md)",
    )
    parser.add_argument(
        "--scores",
        type=names,
        default=[],
        metavar="A,B",
        help="score the same boxes in several ways side by side: constant, rank, token (one generation)",
    )
    parser.add_argument(
        "--limit",
        type=positive,
        metavar="N",
        help="ask and score N evenly spaced images alone; the protocol says so",
    )
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="only ask the I-th of N parts; then the same command without it scores them",
    )
    parser.add_argument(
        "--coco-results",
        type=Path,
        metavar="FILE",
        help="write the boxes as COCO results too",
    )
    parser.add_argument(
        "--benchmark",
        metavar="NAME",
        help="DATA is a folder in the layout of this benchmark: a name below, or your own as "
        "my_benchmark.py:BENCHMARK; all its splits or sets, or --split; with several, --predictions "
        "is a folder with a file for each, such as Aquarium.json (docs/benchmarks.md)",
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="how DATA is scored: a metric below, or your own as my_metric.py:METRIC (default: detection); a benchmark "
        "has its own",
    )
    parser.add_argument(
        "--resamples",
        type=count,
        metavar="N",
        help="for the intervals; 0 for none (default: 1000, and 0 for more than 50,000 boxes or 1,000 categories)",
    )


def _add_generation_arguments(parser: argparse.ArgumentParser) -> None:
    add_dialect_argument(
        parser,
        "how replies write boxes",
        default=None,
        otherwise="as the model folder says, or the file that eval wrote",
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=0,
        metavar="N",
        help="images at once (default: 16; 256 for an engine that takes new ones as others end, such as vllm)",
    )
    parser.add_argument(
        "--workers",
        type=count,
        metavar="N",
        help="processes that read images ahead of the engine (default: none; up to 4 for an engine such as vllm)",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=positive,
        metavar="N",
        help="of a reply (default: the protocol's, or 1024)",
    )
    add_model_arguments(parser)
    add_engine_argument(parser)
    parser.add_argument(
        "--on-bad",
        choices=("raise", "skip"),
        default="raise",
        help="stop at a bad row of DATA, and at an image that cannot be read or fed to the model, or count it; an "
        "image then has no reply (default: raise); a bad row of --predictions always stops",
    )


def names_overview() -> str:
    """List the names that --protocol, --benchmark, --metric, --dialect, --engine and --reader take."""
    from visionr1.data import READERS
    from visionr1.dialects import describe_dialects
    from visionr1.evaluation import BENCHMARKS, METRICS, PROTOCOLS
    from visionr1.rollout.engines import answering_engines

    return list_names(
        protocols=PROTOCOLS,
        benchmarks=BENCHMARKS,
        metrics=METRICS,
        dialects=describe_dialects(),
        engines=answering_engines(),
        readers=READERS,
    )


def run(args: argparse.Namespace) -> None:
    """Measure a model on a set with boxes.

    visionr1 eval --model tiny --data bccd
    """
    from visionr1.data import resolve_reader
    from visionr1.evaluation import PredictionFiles, Replier, Shard, coco_results, evaluate
    from visionr1.files import write_json_atomic

    _check_arguments(args)
    answers: Replier | PredictionFiles
    answers = _open_model(args) if args.model else PredictionFiles(args.predictions, args.dialect)

    # Without --split the whole of a benchmark is evaluated, but only the test part of other data.
    split = args.split
    if not split and not args.benchmark:
        split = "test"

    # A limit is a field of the protocol: figures on fewer images are not comparable.
    protocol = list(args.protocol)
    if args.limit:
        protocol.append(f"limit={args.limit}")

    evaluation = evaluate(
        args.data,
        answers,
        split=split,
        benchmark=args.benchmark,
        metric=args.metric or "detection",
        protocol=protocol,
        scores=args.scores,
        num_resamples=args.resamples,
        on_bad=args.on_bad,
        reader=resolve_reader(args.reader),
        image_dir=args.images,
        out=args.out,
        shard=Shard.read(args.shard) if args.shard else None,
        notify=lambda line: print(printable_line(line), file=sys.stderr),
    )

    # A shard only asks: there is nothing to score before the last one is done.
    if args.shard:
        _print_shard(args, evaluation)
        return
    if args.coco_results:
        write_json_atomic(args.coco_results, coco_results(*evaluation.result.scored))
    _print_results(args, evaluation)


def _check_arguments(args: argparse.Namespace) -> None:
    """Raise RecipeError for arguments that exclude each other, or need another."""
    if not args.data and (args.model or args.benchmark):
        raise RecipeError("--data: expected what has the true boxes; only --predictions may carry them")
    if args.benchmark and args.metric:
        raise RecipeError("--metric is for a data set, not for a --benchmark, which has its own")
    if args.coco_results and args.metric not in (None, "detection"):
        raise RecipeError(f"--coco-results holds boxes as detection scores them, not those of --metric {args.metric}")
    if args.benchmark and (args.scores or args.coco_results):
        raise RecipeError("--scores and --coco-results are not for a --benchmark; use --protocol scores=...")
    if args.coco_results and len(args.scores) > 1:
        raise RecipeError(f"--coco-results holds one score a box: choose one of --scores {','.join(args.scores)}")

    # Stored replies are scored as they are, and a benchmark has sets of its own.
    is_limited = args.limit or any(setting.startswith("limit=") for setting in args.protocol)
    if (args.benchmark or args.predictions) and is_limited:
        raise RecipeError("--limit is for a --model on one data set, not for --predictions or a --benchmark")


def _open_model(args: argparse.Namespace) -> Model:
    """Return the model of `--model`, which is loaded when it is first asked."""
    with needs_extra("train"):
        from visionr1.evaluation.runner import Model
    return Model(
        args.model,
        device=args.device,
        dtype=args.dtype,
        dialect_name=args.dialect,
        max_new_tokens=args.max_new_tokens,
        batch_size=args.batch_size,
        on_bad=args.on_bad,
        engine=args.engine,
        workers=args.workers,
    )


def _print_shard(args: argparse.Namespace, evaluation: Evaluation) -> None:
    """Say how many replies there are, of all shards together, and what comes next."""
    num_replies = evaluation.num_replies
    num_prompts = evaluation.num_prompts
    # A skipped sample never has a reply, so their number does not say whether all shards are done.
    next_step = "other shards are to come"
    if args.on_bad == "skip":
        next_step = "when all shards are done, the same command without --shard scores them"
    if num_replies == num_prompts:
        next_step = "the same command without --shard scores them"
    done = f"shard {args.shard} is done; {num_replies} of {num_prompts} replies are in {args.out}"
    print(printable_line(f"{done}; {next_step}"))


def _print_results(args: argparse.Namespace, evaluation: Evaluation) -> None:
    """Print one JSON object, or a table."""
    from visionr1.evaluation import format_benchmark, format_results

    # JSON is ASCII with escapes, so only the tables need `printable`.
    if args.json and args.benchmark:
        print(json.dumps(evaluation.to_json()))
    elif args.json and args.scores:
        records = {name: result.to_json() for name, result in evaluation.results.items()}
        print(json.dumps(records))
    elif args.json:
        print(json.dumps(evaluation.result.to_json()))
    elif args.benchmark:
        print(printable(format_benchmark(evaluation)))
    else:
        print(printable(format_results(evaluation.results)))
