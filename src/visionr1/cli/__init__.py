"""The command line: two small functions per command, what it takes (`_add_`) and what it does (`run_`, whose docstring
is its help).

Each imports its room when it is used, so that `--help` is quick and a part that is not installed is
missed only where it is needed. `main` is the one boundary that catches VisionR1Error, and what the
system says of files: it prints `error: ...` and returns 2.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from visionr1 import __version__
from visionr1.errors import DataError, RecipeError, VisionR1Error, needs_extra

if TYPE_CHECKING:
    from visionr1.evaluation import ReplyLog, ReplyProtocol, Result, Unit
    from visionr1.evaluation.runner import ModelEvaluator
    from visionr1.rewards import Score
    from visionr1.samples import GroundTruth

EXAMPLES = """\
examples:
  visionr1 demo                                          see it work, in minutes on a CPU
  visionr1 data check my_boxes/                          what is wrong with a data set
  visionr1 train demo --run-dir runs/a                   train the model that ships
  visionr1 eval --model runs/a --data my_boxes/          measure the trained model
  visionr1 predict photo.jpg --categories cat,dog --model runs/a
  visionr1 report runs/a                                 one HTML page about the run

DATA is a COCO JSON file, a folder whose train/, valid/ and test/ hold one each, a folder of Pascal VOC (Annotations/,
ImageSets/, JPEGImages/), VLM-R1's rows (.jsonl), or "bccd" (it ships).
MODEL is a transformers folder, a run folder (its final model), or "tiny" (it ships).
"""

DIALECTS = "qwen25, qwen3, griffon, internvl, or think+ and one of them"
SCORE_ROW = (
    r'{"completion": "[{\"bbox_2d\": [34, 157, 143, 240], \"label\": \"WBC\"}]", '
    '"boxes": [[68, 315, 286, 480], [53, 179, 146, 299]], "labels": ["WBC", "RBC"], '
    '"categories": ["Platelets", "RBC", "WBC"], '
    '"width": 640, "height": 480, "input_width": 320, "input_height": 240}'
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for a user's error, 130: interrupt, 141: closed pipe."""
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except VisionR1Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who reads our output has seen enough; what is left in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a file that cannot be written: a full disk, a folder of someone else
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    parser = argparse.ArgumentParser(
        prog="visionr1",
        description="Train vision-language models to detect objects, by RL from box annotations.",
        epilog=EXAMPLES + "\n`visionr1 COMMAND --help` says more of each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"visionr1 {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    for add, run in (
        (_add_demo, run_demo),
        (_add_train, run_train),
        (_add_eval, run_eval),
        (_add_compare, run_compare),
        (_add_vqa, run_vqa),
        (_add_predict, run_predict),
        (_add_report, run_report),
        (_add_data, run_data),
        (_add_score, run_score),
    ):
        _add_command(commands, run.__name__.removeprefix("run_"), add, run)
    return parser


def _add_command(
    commands: Any,
    name: str,
    add: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], None],
) -> None:
    """A command that takes what `add` adds; the docstring of `run` is its help, then its example."""
    about, _, example = (run.__doc__ or f"{name}.").partition("\n\n")
    parser = commands.add_parser(
        name,
        help=about[0].lower() + about[1:].removesuffix("."),
        description=about,
        epilog=f"example:\n  {example.strip()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    add(parser)


def _place(text: str) -> str:
    """A path without the slash that a shell adds to a folder: what is stored of it is compared."""
    return os.path.normpath(text) if Path(text).exists() else text


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    what = "what has the true boxes (see visionr1 --help)"
    parser.add_argument("--data", required=True, type=_place, metavar="DATA", help=what)
    parser.add_argument(
        "--split", help="which part of a data folder that has parts (default: test, or all of a --benchmark)"
    )


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="where the model runs, such as cuda (default: cpu)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of its weights (default: float32)"
    )


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="what it leaves (default: runs/demo, or demo-2 ... after a finished one); an unfinished demo goes on",
    )


def run_demo(args: argparse.Namespace) -> None:
    """Train the model that ships on real images and report.

    visionr1 demo
    """
    from visionr1.assets import recipe_path
    from visionr1.training.recipe import load_recipe

    with needs_extra("all"):
        from visionr1.cli.demo import demo, next_run_dir
    demo(load_recipe(recipe_path("demo")), args.run_dir or next_run_dir())


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help='TOML file, or the name of one that ships, such as "demo"')
    parser.add_argument("--model", type=_place, help="start from this model instead of the recipe's")
    parser.add_argument("--data", type=_place, metavar="DATA", help="train on this instead of the recipe's data")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="change one setting of the recipe, such as train.learning_rate=1e-5 (of all phases that agree in it; of "
        "one: phase.NAME.learning_rate, or its number from 0); may be repeated",
    )
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="what the run leaves (default: runs/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --run-dir")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and stop")


def run_train(args: argparse.Namespace) -> None:
    """Train a model by a recipe.

    visionr1 train paper_qwen25vl_7b --model models/Qwen2.5-VL-3B-Instruct --data my_boxes/ --run-dir runs/mine
    """
    from visionr1.assets import recipe_path
    from visionr1.training.recipe import load_recipe, to_toml

    path = recipe_path(args.recipe)
    recipe = load_recipe(path, args.overrides)
    if args.model:
        recipe = recipe.with_model(args.model)
    if args.data:
        recipe = recipe.with_data(args.data)
    recipe.check_ends()
    if args.dry_run:
        print(to_toml(recipe), end="")
        return
    with needs_extra("train"):
        from visionr1.training.train import train
    result = train(recipe, args.run_dir or Path("runs") / path.stem, resume=args.resume)
    if os.environ.get("RANK", "0") == "0":  # of several processes one tells
        already = f"{result.run_dir} is finished already: " if result.was_finished else ""
        planned, timed = sum(phase.steps for phase in recipe.phases), any(phase.minutes for phase in recipe.phases)
        cut = f" of {planned}, which train.minutes cut off" if timed and result.steps < planned else ""
        print(f"{already}{result.steps} steps{cut}; the trained model is in {result.model_dir}")


def _add_eval(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=_place, metavar="MODEL", help='transformers folder, run folder, or "tiny"')
    source.add_argument(
        "--predictions",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="score this instead: COCO results (JSON), or raw replies (JSON Lines with image_id and text); several are "
        "the shards of one evaluation",
    )
    _add_data_arguments(parser)
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
        type=_names,
        default=[],
        metavar="A,B",
        help="score the same boxes in several ways side by side: constant, rank, token (one generation)",
    )
    parser.add_argument(
        "--limit", type=_positive, metavar="N", help="ask and score N evenly spaced images alone; the protocol says so"
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
        type=_count,
        metavar="N",
        help="for the intervals; 0 for none (default: 1000, and 0 for more than 50,000 boxes or 1,000 categories)",
    )
    parser.add_argument(
        "--dialect",
        metavar="NAME",
        help=f"how replies write boxes: {DIALECTS} (default: as the model folder says, or the file that eval wrote)",
    )
    parser.add_argument("--batch-size", type=_positive, default=16, metavar="N", help="images at once (default: 16)")
    parser.add_argument(
        "--max-new-tokens", type=_positive, metavar="N", help="of a reply (default: the protocol's, or 1024)"
    )
    _add_model_arguments(parser)
    parser.add_argument(
        "--on-bad",
        choices=("raise", "skip"),
        default="raise",
        help="stop at a bad row of DATA, or count it (default: raise); one of --predictions always stops",
    )


def run_eval(args: argparse.Namespace) -> None:
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
        from visionr1.models.policy import load_policy
    return ModelEvaluator(
        load_policy(args.model, device=args.device, dtype=args.dtype, dialect=args.dialect),
        max_new_tokens=args.max_new_tokens,
        batch_size=args.batch_size,
        num_resamples=args.resamples,
    )


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results", nargs="+", type=Path, metavar="RESULT", help="files that `visionr1 eval --out DIR` left in DIR"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--resamples", type=_count, default=1000, metavar="N", help="for intervals (default: 1000)")


def run_compare(args: argparse.Namespace) -> None:
    """Put stored results side by side, with paired differences.

    visionr1 compare before/evaluation/base.json after/evaluation/mine.json
    """
    from visionr1.evaluation import compare

    compared = compare(args.results, num_resamples=max(1, args.resamples))
    print(json.dumps(compared.to_json()) if args.json else compared.table())


def _add_vqa(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "benchmark",
        metavar="BENCHMARK",
        help="as VLMEvalKit calls it: GQA_TestDev_Balanced, ChartQA_TEST, AI2D_TEST, SEEDBench_IMG ...",
    )
    parser.add_argument("--model", required=True, metavar="MODEL", help='transformers folder, run folder, or "tiny"')
    parser.add_argument(
        "--tsv", type=Path, metavar="FILE", help="ask this file of VLMEvalKit's format instead of its own"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="what it leaves: the record in DIR/vqa")
    parser.add_argument(
        "--max-new-tokens", type=_positive, default=128, metavar="N", help="of an answer (default: 128)"
    )
    _add_model_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run_vqa(args: argparse.Namespace) -> None:
    """Ask a model questions about images, through VLMEvalKit.

    visionr1 vqa GQA_TestDev_Balanced --model runs/mine --out runs/mine
    """
    with needs_extra("train"):
        from visionr1.evaluation.vqa import describe, evaluate_vqa
        from visionr1.models.policy import load_policy

    record = evaluate_vqa(
        load_policy(args.model, device=args.device, dtype=args.dtype),
        args.benchmark,
        args.out,
        model=args.model,
        tsv=args.tsv,
        max_new_tokens=args.max_new_tokens,
    )
    print(json.dumps(record) if args.json else describe(record))


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, metavar="IMAGE", help="image file")
    parser.add_argument("--categories", required=True, metavar="A,B", help="what to look for, separated by commas")
    parser.add_argument("--model", default="tiny", metavar="MODEL", help='model or run folder (default: "tiny")')
    parser.add_argument("--out", type=Path, metavar="FILE", help="the drawn PNG (default: IMAGE.boxes.png, here)")
    parser.add_argument(
        "--max-new-tokens", type=_positive, default=1024, metavar="N", help="of the reply (default: 1024)"
    )
    _add_model_arguments(parser)


def run_predict(args: argparse.Namespace) -> None:
    """Find objects in one image, drawn and as JSON.

    visionr1 predict photo.jpg --categories cat,dog --model runs/mine
    """
    from visionr1.images import image_size
    from visionr1.samples import normalized_labels

    categories = _names(args.categories)
    if not categories:
        raise DataError(f"--categories: expected names separated by commas, found {args.categories!r}")
    if len(normalized_labels(tuple(categories))) < len(categories):
        raise DataError(f"--categories: expected each name once, found {args.categories!r}")
    if args.image.is_dir():
        raise DataError(f"{args.image} is a folder; predict takes one image (eval a whole set)")
    image_size(args.image)  # before the model loads
    out = args.out or Path(f"{args.image.stem}.boxes.png")
    if out.suffix.lower() != ".png" or (out.exists() and out.samefile(args.image)):
        raise DataError(f"--out: expected a .png file other than the image itself, found {out}")
    with needs_extra("train"):
        from visionr1.evaluation.runner import predict_image
        from visionr1.models.policy import load_policy
    from visionr1.report.draw import save_png

    policy = load_policy(args.model, device=args.device, dtype=args.dtype)
    drawn, record = predict_image(policy, args.image, categories, max_new_tokens=args.max_new_tokens)
    save_png(drawn, out)
    print(json.dumps({**record, "drawn": str(out)}, indent=2, ensure_ascii=False))


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="folder of a run, or one that eval --out wrote")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to (default: RUN/report.html)")


def run_report(args: argparse.Namespace) -> None:
    """Write one HTML page about a run.

    visionr1 report runs/demo
    """
    from visionr1.report.page import write_report

    print(write_report(args.run_dir, args.out or args.run_dir / "report.html"))


def _add_data(parser: argparse.ArgumentParser) -> None:
    _add_command(parser.add_subparsers(metavar="ACTION", required=True), "check", _add_check, run_data)


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="what to check (see visionr1 --help)")
    parser.add_argument("--split", help="which part of a data folder (default: each)")
    parser.add_argument(
        "--dialect", default="qwen25", metavar="NAME", help=f"in which truths are written: {DIALECTS} (default: qwen25)"
    )
    parser.add_argument(
        "--on-bad",
        choices=("raise", "skip"),
        default="raise",
        help="stop at a bad row of the annotations, or count it (default: raise); bad images are all named either way",
    )


def run_data(args: argparse.Namespace) -> None:
    """Read every row and image of a data set, and score its truth as a reply.

    visionr1 data check my_boxes/ --split train --dialect qwen3
    """
    from visionr1.data import data_path, find_splits, read_dataset
    from visionr1.data.check import check_data
    from visionr1.dialects import get_dialect

    path, dialect, failures = data_path(args.data), get_dialect(args.dialect), 0
    splits: list[str | None] = [args.split] if args.split else [*find_splits(path)]
    for split in splits or [None]:
        dataset = read_dataset(path, split=split, on_bad=args.on_bad)
        check = check_data(dataset, dialect)
        print(dataset.table.path, *dataset.report.lines(), *check.lines(), sep="\n")
        failures += len(check.failures)
    if failures:
        raise DataError(f"samples that cannot be trained on: {failures}; see above")


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"{parser.epilog}\n\na row of rows.jsonl:\n  {SCORE_ROW}"
    parser.add_argument(
        "rows",
        metavar="FILE",
        help="JSON Lines, a row a completion with its truth: completion, boxes (xyxy pixels of the image), labels, "
        'categories, width, height, input_width, input_height (as the model sees it); "-" reads a pipe',
    )
    parser.add_argument(
        "--preset", choices=("paper", "release", "vlm_r1"), default="paper", help="which reward (default: paper)"
    )
    parser.add_argument(
        "--dialect",
        default="qwen25",
        metavar="NAME",
        help=f"how the model writes: {DIALECTS} (default: qwen25)",
    )
    parser.add_argument(
        "--progress",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="share of training done, which decides the stage of preset paper (default: 0)",
    )
    parser.add_argument(
        "--step",
        type=_share,
        default=0.5,
        metavar="SHARE",
        help="the paper's STEP: from this progress on thresholds are tight; 1 is never (default: 0.5)",
    )
    parser.add_argument(
        "--release-step",
        choices=("none", "0", "1500"),
        default="none",
        help="preset release: none as its script runs, 0 and 1500 with --adaptive before and after its switch",
    )
    parser.add_argument("--explain", action="store_true", help="say on standard error why each row got its score")
    parser.add_argument(
        "--image",
        type=Path,
        metavar="FILE",
        help="with --explain and preset paper, the rows' image: each row is drawn to FILE's name + .score-N.png, here",
    )


def run_score(args: argparse.Namespace) -> None:
    """Score completions against their true boxes.

    visionr1 score rows.jsonl --explain > scores.jsonl
    """
    from visionr1.rewards.published.vision_r1_release import STEPS
    from visionr1.rewards.score_rows import make_scorer, score_rows, to_json

    if args.image and (not args.explain or args.preset != "paper"):
        raise RecipeError("--image needs --explain and preset paper")
    if args.image and not args.image.is_file():
        raise DataError(f"--image: expected an image file, found no {args.image}")
    scorer = make_scorer(
        args.preset,
        dialect=args.dialect,
        progress=args.progress,
        step=args.step,
        release_step=STEPS[args.release_step],
    )
    errors = undrawn = rows = 0
    with _open_rows(args.rows) as lines:
        for scored in score_rows(lines, "standard input" if args.rows == "-" else args.rows, scorer):
            print(to_json(scored.result), flush=True)
            rows, errors = rows + 1, errors + (scored.row is None)
            if args.explain:
                print(*scored.reasons, sep="\n  ", file=sys.stderr)
            if args.image and scored.row and scored.score:
                try:
                    print(f"  drawn: {_draw_score(args.image, rows, scored.row.truth, scored.score)}", file=sys.stderr)
                except VisionR1Error as error:  # the rows to come still get their score
                    print(f"  not drawn: {error}", file=sys.stderr)
                    undrawn += 1
    if not rows:
        print(f"{args.rows}: no rows", file=sys.stderr)
    if errors:
        raise DataError(f'{errors} of {rows} rows are wrong and have no score; the "error" of each says why')
    if undrawn:
        raise DataError(f"{undrawn} of {rows} rows could not be drawn; see above")


def _draw_score(image: Path, number: int, truth: GroundTruth, score: Score) -> Path:
    from visionr1.report.draw import draw_score, save_png
    from visionr1.samples import Query, Sample

    sample = Sample(image.stem, image, Query("detection", truth.categories or ("object",)), truth.boxes, truth.size_wh)
    path = Path(f"{image.stem}.score-{number}.png")
    save_png(draw_score(sample.load_image(), score, truth), path)
    return path


def _open_rows(name: str) -> AbstractContextManager[IO[bytes]]:
    if name == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror}") from error


def _count(text: str, least: int = 0) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"expected a number from {least} up, but found {text!r}")
    return int(text)


def _positive(text: str) -> int:
    return _count(text, 1)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, but found {text!r}")
    return value
