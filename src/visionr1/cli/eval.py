"""`visionr1 eval`: measure a model, or replies that are there, on a set with boxes."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionr1.cli.arguments import (
    add_data_arguments,
    add_model_arguments,
    count,
    existing_path,
    names,
    positive,
)
from visionr1.dialects import describe_dialects
from visionr1.errors import RecipeError, needs_extra

if TYPE_CHECKING:
    from visionr1.evaluation import ReplyLog, ReplyProtocol, Result, Unit
    from visionr1.evaluation.runner import ModelEvaluator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model", type=existing_path, metavar="MODEL", help='transformers folder, run folder, or "tiny"'
    )
    source.add_argument(
        "--predictions",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="score this instead: COCO results (JSON), or raw replies (JSON Lines with image_id and text); several are "
        "the shards of one evaluation",
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="keep result and replies in DIR/evaluation, as NAME.json, or NAME-PROTOCOL.json with --protocol or "
        "--scores; what was stopped goes on, replies that are there are not asked again, and a result of anything else "
        "is never replaced",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument(
        "--protocol",
        action="append",
        default=[],
        metavar="NAME|FIELD=VALUE",
        help="what the numbers depend on: default, vision_r1_coco, vision_r1_odinw, qwen25vl, qwen3vl, mmdet, "
        "coco_results; then single fields, such as scores=rank; may be repeated (docs/evaluation.md)",
    )
    parser.add_argument(
        "--scores",
        type=names,
        default=[],
        metavar="A,B",
        help="score the same boxes in several ways side by side: constant, rank, token (one generation)",
    )
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="ask and score N evenly spaced images alone; the protocol says so"
    )
    parser.add_argument(
        "--shard", metavar="I/N", help="only ask the I-th of N parts; then the same command without it scores them"
    )
    parser.add_argument("--coco-results", type=Path, metavar="FILE", help="write the boxes as COCO results too")
    parser.add_argument(
        "--benchmark",
        metavar="NAME",
        help="DATA is a folder in this benchmark's layout: coco, odinw13, odinw35, vision_r1_ood, refcoco, refcoco+, "
        "refcocog, grefcoco, lisa, d3, ovdeval, v3det; all its splits or sets, or --split; with several, --predictions "
        "is a folder with a file for each, such as Aquarium.json (docs/benchmarks.md)",
    )
    parser.add_argument(
        "--resamples",
        type=count,
        metavar="N",
        help="for the intervals; 0 for none (default: 1000, and 0 for more than 50,000 boxes or 1,000 categories)",
    )
    parser.add_argument(
        "--dialect",
        metavar="NAME",
        help=f"how replies write boxes: {describe_dialects()} "
        "(default: as the model folder says, or the file that eval wrote)",
    )
    parser.add_argument("--batch-size", type=positive, default=16, metavar="N", help="images at once (default: 16)")
    parser.add_argument(
        "--max-new-tokens", type=positive, metavar="N", help="of a reply (default: the protocol's, or 1024)"
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--on-bad",
        choices=("raise", "skip"),
        default="raise",
        help="stop at a bad row of DATA, or count it (default: raise); one of --predictions always stops",
    )


def run(args: argparse.Namespace) -> None:
    """Measure a model on a set with boxes.

    visionr1 eval --model tiny --data bccd
    """
    from visionr1.data import data_path, read_dataset, truth_table
    from visionr1.evaluation import (
        DetectionResult,
        DetectionUnit,
        coco_results,
        evaluate_file,
        format_results,
        read_protocol,
        write_evaluation,
    )
    from visionr1.files import write_json_atomic

    if args.benchmark and (args.scores or args.coco_results):
        raise RecipeError("--scores and --coco-results are not for a --benchmark; use --protocol scores=...")
    if args.coco_results and len(args.scores) > 1:
        raise RecipeError(f"--coco-results holds one score a box: choose one of --scores {','.join(args.scores)}")
    args.protocol += [f"limit={args.limit}"] if args.limit else []
    if (args.benchmark or args.predictions) and any(setting.startswith("limit=") for setting in args.protocol):
        raise RecipeError("--limit is for a --model on one data set, not for --predictions or a --benchmark")
    if not args.benchmark:
        args.split = args.split or "test"
    if args.shard:
        _run_shard(args)
        return
    if args.benchmark:
        _run_benchmark(args)
        return
    name, log, predictions = Path(args.model).resolve().name if args.model else args.predictions[0].stem, None, None
    stem = _under_protocol(name, args)
    protocols = {f"{stem}-{scores}": [*args.protocol, f"scores={scores}"] for scores in args.scores}
    protocols = protocols or {stem: args.protocol}
    results: dict[str, DetectionResult] = {}
    if args.predictions:
        table = truth_table(data_path(args.data), split=args.split, on_bad=args.on_bad)
        print(*(f"{line}\n" for line in table.report.lines() if table.report.skipped), sep="", end="", file=sys.stderr)
        results = {
            of: evaluate_file(
                args.predictions, table, dialect=args.dialect, protocol=protocol, num_resamples=args.resamples
            )
            for of, protocol in protocols.items()
        }
    else:
        dataset = read_dataset(data_path(args.data), split=args.split, on_bad=args.on_bad)
        print(*(f"{line}\n" for line in dataset.report.lines()), sep="", end="", file=sys.stderr)
        log = _reply_log(args, args.out / "evaluation", name, protocols) if args.out else None
        stated = {of: read_protocol(settings) for of, settings in protocols.items()}  # before the model loads
        table, unit = dataset.table, DetectionUnit(name=name, table=dataset.table, samples=dataset.samples)
        of_all, predictions = _model_evaluator(args).evaluate(unit, stated, log)
        for of, own in of_all.items():
            result = own[name]
            assert isinstance(result, DetectionResult)
            results[of] = result
    if args.out:
        for key, result in results.items():
            facts = _facts(args, args.predictions) | {"replies_of": log.replies_of if log else None}
            write_evaluation(args.out / "evaluation", key, result, predictions, **facts)
            print(f"stored: {args.out / 'evaluation' / key}.json", file=sys.stderr)
    if log:
        log.remove()
    first = next(iter(results.values()))
    if args.coco_results and first.detections is not None:
        write_json_atomic(args.coco_results, coco_results(table, first.detections))
    if args.json:
        print(json.dumps({k: r.to_json() for k, r in results.items()} if args.scores else first.to_json()))
    else:
        print(format_results(results))


def _run_benchmark(args: argparse.Namespace) -> None:
    from visionr1.evaluation import evaluate_benchmark, get_benchmark, write_evaluation, write_predictions
    from visionr1.evaluation.offline import check_replaced
    from visionr1.evaluation.predictions import predictions_file
    from visionr1.files import write_json_atomic

    benchmark = get_benchmark(args.benchmark)
    protocol = benchmark.read_protocol(args.protocol)  # before anything is read
    found = benchmark.find(Path(args.data), args.split, with_images=bool(args.model), on_bad=args.on_bad)
    folder = args.out / _under_protocol(benchmark.name, args) if args.out else None
    whole_file = folder and folder.with_name(f"{folder.name}.json")
    if whole_file:
        check_replaced(whole_file, _facts(args, args.predictions))
    evaluator = _model_evaluator(args) if args.model else None

    def by_kind(is_replies: bool) -> ReplyProtocol:
        return benchmark.read_protocol(args.protocol, results=not is_replies)

    def evaluate(unit: Unit) -> Mapping[str, Result]:
        print(*(f"{unit.name}: {line}\n" for line in unit.report), sep="", end="", file=sys.stderr)
        predictions, log, files = None, None, args.predictions
        if evaluator:
            log = _reply_log(args, folder, unit.name, [unit.name]) if folder else None
            of_all, predictions = evaluator.evaluate(unit, {"": protocol}, log)
            results = of_all[""]
        else:
            if len(found.names) > 1 or not all(map(Path.is_file, files)):
                files = [predictions_file(files[0], unit.name)]
            results = unit.score_files(files, args.dialect, by_kind, args.resamples)
        if folder and log and predictions is not None:
            write_predictions(folder / f"{unit.name}.predictions.jsonl", predictions, log.replies_of)
        if folder:
            facts = _facts(args, files) | {"benchmark": benchmark.name, "unit": unit.name}
            for name, result in results.items():
                write_evaluation(folder, name, result, None, **facts)
        if log:
            log.remove()
        return results

    whole = evaluate_benchmark(benchmark, found, evaluate)
    if whole_file:
        write_json_atomic(whole_file, _facts(args, args.predictions) | whole.to_json())
        print(f"stored: {whole_file}", file=sys.stderr)
    print(json.dumps(whole.to_json()) if args.json else whole.table())


def _under_protocol(name: str, args: argparse.Namespace) -> str:
    """The name of a result: its own, and what `--protocol` says besides the default."""
    said = [re.sub(r"[^\w=.,+-]+", "_", setting)[:60] for setting in args.protocol if setting != "default"]
    return "-".join([name, *said])


def _facts(args: argparse.Namespace, files: Sequence[Path] | None) -> dict[str, Any]:
    """What a stored result is of, so that `compare` can compute it again."""
    scored = {"prediction_files": [*map(str, files)]} if files else {}
    of = args.model or ", ".join(map(str, args.predictions))
    return {"model": of, "data": args.data, "split": args.split or "", "on_bad": args.on_bad, **scored}


def _run_shard(args: argparse.Namespace) -> None:
    """Only ask a part of the samples; the command without --shard finds the replies and scores them."""
    from visionr1.data import data_path, read_dataset
    from visionr1.evaluation import DetectionUnit, Shard, get_benchmark, read_protocol

    shard = Shard.read(args.shard)
    if not (args.model and args.out):
        raise RecipeError("--shard needs --model, and --out, where the parts are kept")
    units: Iterable[Unit]
    if args.benchmark:
        benchmark = get_benchmark(args.benchmark)
        protocol, folder = benchmark.read_protocol(args.protocol), args.out / _under_protocol(benchmark.name, args)
        units = benchmark.find(Path(args.data), args.split, with_images=True, on_bad=args.on_bad).units
    else:
        protocol, folder = read_protocol(args.protocol), args.out / "evaluation"
        dataset = read_dataset(data_path(args.data), split=args.split, on_bad=args.on_bad)
        units = [DetectionUnit(name=Path(args.model).resolve().name, table=dataset.table, samples=dataset.samples)]
    evaluator = _model_evaluator(args)
    kept = asked = 0
    for unit in units:
        log = _reply_log(args, folder, unit.name)
        replies, samples = evaluator.collect(unit, protocol, log, shard)
        kept, asked = kept + replies, asked + samples
    print(f"shard {args.shard} is done; {kept} of {asked} replies are in {args.out}", end="; ")
    print("the same command without --shard scores them" if kept == asked else "other shards are to come")


def _reply_log(args: argparse.Namespace, folder: Path, name: str, results: Iterable[str] = ()) -> ReplyLog:
    from visionr1.evaluation import ReplyLog

    of = {"benchmark": args.benchmark, "unit": name} if args.benchmark else {}
    return ReplyLog(folder, name, {"model": args.model, "data": args.data, "split": args.split, **of}, results)


def _model_evaluator(args: argparse.Namespace) -> ModelEvaluator:
    """The model of `--model`, loaded."""
    with needs_extra("train"):
        from visionr1.evaluation.runner import ModelEvaluator
        from visionr1.models.loading import load_policy
    return ModelEvaluator(
        load_policy(args.model, device=args.device, dtype=args.dtype, dialect=args.dialect),
        max_new_tokens=args.max_new_tokens,
        batch_size=args.batch_size,
        num_resamples=args.resamples,
    )
