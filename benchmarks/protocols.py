"""How much the protocol alone moves the number: models on every set of a folder, under several protocols.

FOLDER holds one data set a folder, each with test/ (or only valid/) and its annotation file, as ODinW's sets have them.
Every model answers every set under every protocol; the table has AP by set, the plain mean and the mean without sets of
fewer than ten images, and what the protocol changes for one and the same model. With --limit only the first images of a
set are asked. Replies and results are kept in --out: the same command goes on after a stop, and asks nothing twice.

    python benchmarks/protocols.py FOLDER --model base=tiny --model trained=runs/demo --out runs/protocols

The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visionr1.data import BoxDataset, find_splits, read_coco
from visionr1.evaluation import Protocol, Result, evaluate, read_protocol
from visionr1.evaluation.evaluation import SMALL_SET
from visionr1.evaluation.runner import Model
from visionr1.files import write_json_atomic

Results = dict[tuple[str, str, str], Result]
"""By model, protocol and set."""


def find_sets(folder: Path) -> dict[str, tuple[Path, str]]:
    """The sets in a folder by name: where each is, and its test split, or valid where it has none."""
    found = {}
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        if split := next((split for split in ("test", "valid") if split in find_splits(path)), None):
            found[path.name] = (path, split)
    return found


def first_images(dataset: BoxDataset, limit: int | None) -> BoxDataset:
    """The data set of the first `limit` images."""
    if limit is None or limit >= len(dataset.samples):
        return dataset
    return BoxDataset(dataset.samples[:limit], dataset.table.take(range(limit)), dataset.report)


def measure(model: Model, protocol: Protocol, name: str, source: tuple[Path, str], args: argparse.Namespace) -> Result:
    """One model on one set under one protocol; replies that are stored are not asked again."""
    path, split = source
    folder = args.out / model.name / protocol.name.replace("/", "_")
    dataset = first_images(read_coco(path, split=split), args.limit)
    print(f"{model.name}, {protocol.name}", file=sys.stderr)
    return evaluate(
        dataset, model, split=split, protocol=protocol, num_resamples=args.resamples, out=folder, name=name
    ).result


def mean(results: Mapping[str, Result], *, without_small: bool) -> float | None:
    """The plain mean AP over sets; None if none is left."""
    values = [
        result.metrics["AP"]
        for result in results.values()
        if not (without_small and result.counts["images"] < SMALL_SET)
    ]
    return sum(values) / len(values) if values else None


def table(results: Results, sets: list[str], columns: list[tuple[str, str]]) -> list[str]:
    """AP x 100 by set with its number of images, both means."""
    rows = [["set", "images", *(f"{model}: {protocol}" for model, protocol in columns)]]
    for name in sets:
        own = [results[(*column, name)] for column in columns]
        rows.append([name, str(own[0].counts["images"]), *(f"{100 * result.metrics['AP']:.1f}" for result in own)])
    for without, title in ((False, "mean"), (True, f"mean of sets with {SMALL_SET} images or more")):
        means = [mean({name: results[(*c, name)] for name in sets}, without_small=without) for c in columns]
        rows.append([title, "", *("n/a" if value is None else f"{100 * value:.1f}" for value in means)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def moved(results: Results, sets: list[str], models: list[str], protocols: list[str]) -> dict[str, dict[str, Any]]:
    """For each model and protocol after the first: AP minus that under the first, by set and on average."""
    changes: dict[str, dict[str, Any]] = {}
    for model in models:
        for protocol in protocols[1:]:
            by_set = {
                name: results[model, protocol, name].metrics["AP"] - results[model, protocols[0], name].metrics["AP"]
                for name in sets
            }
            changes.setdefault(model, {})[protocol] = {
                "mean": sum(by_set.values()) / len(by_set),
                "largest": max(by_set.values(), key=abs),
                "by_set": by_set,
            }
    return changes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--model", action="append", metavar="NAME=PATH", help='may be repeated (default: "tiny=tiny")')
    parser.add_argument(
        "--protocol", action="append", metavar="NAME", help="may be repeated (default: default and vision_r1_odinw)"
    )
    parser.add_argument("--set", action="append", metavar="NAME", help="only this set; may be repeated")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images of each set")
    parser.add_argument("--out", type=Path, default=Path("runs/protocols"), metavar="DIR")
    parser.add_argument("--max-new-tokens", type=int, default=600, metavar="N")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N")
    parser.add_argument("--resamples", type=int, default=0, metavar="N", help="for intervals (default: none)")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    models = dict(text.split("=", 1) for text in args.model or ["tiny=tiny"])
    protocols = [read_protocol([name]) for name in args.protocol or ["default", "vision_r1_odinw"]]
    sets = {name: own for name, own in find_sets(args.folder).items() if not args.set or name in args.set}
    if not sets:
        parser.error(f"{args.folder} holds no data set with a test or valid split")
    results: Results = {}
    for model, path in models.items():
        asked = Model(
            path, name=model, device=args.device, max_new_tokens=args.max_new_tokens, batch_size=args.batch_size
        )
        for protocol in protocols:
            for name, source in sets.items():
                results[model, protocol.name, name] = measure(asked, protocol, name, source, args)
    names = [protocol.name for protocol in protocols]
    columns = [(model, protocol) for model in models for protocol in names]
    print(*table(results, list(sets), columns), sep="\n")
    print(*dict.fromkeys(result.protocol.line() for result in results.values()), sep="\n")
    changes = moved(results, list(sets), list(models), names)
    for model, by_protocol in changes.items():
        for protocol, change in by_protocol.items():
            print(
                f"{model}: {protocol} instead of {names[0]} moves AP by {100 * change['mean']:+.1f} on average, "
                f"at most by {100 * change['largest']:+.1f}; the model is the same"
            )
    summary = {
        "limit": args.limit,
        "images": {name: results[(*columns[0], name)].counts["images"] for name in sets},
        "AP": {f"{m}/{p}": {name: results[m, p, name].metrics["AP"] for name in sets} for m, p in columns},
        "mean": {
            f"{m}/{p}": mean({name: results[m, p, name] for name in sets}, without_small=False) for m, p in columns
        },
        "mean_without_small": {
            f"{m}/{p}": mean({name: results[m, p, name] for name in sets}, without_small=True) for m, p in columns
        },
        "moved": changes,
    }
    write_json_atomic(args.out / "protocols.json", summary)
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
