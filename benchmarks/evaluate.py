"""Scoring a set of the size of COCO val2017, from files to the twelve figures, with pycocotools as peer.

5000 images, 80 categories, about 36,000 true boxes (1% crowd) and 200,000 scored results are made from a seed and
written as JSON. Each evaluator then runs in a process of its own, in turns: reading both files, matching, and all
figures that it prints. visionr1 also counts precision, recall, F1 and the errors of boxes by kind; its bootstrap
intervals, which pycocotools does not have and which are off for so many boxes unless asked for, are not timed. Seconds,
and CPU seconds of all threads (which a busy machine stretches less), are the median of the rounds; memory is the
process's peak.

    python benchmarks/evaluate.py [--images 5000] [--boxes 200000] [--rounds 3]

The last line is a JSON object. Exits with 1 if the twelve figures differ by more than 1e-12.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = 1e-12
EVALUATORS = ("pycocotools", "visionr1")


def make_problem(folder: Path, num_images: int, num_boxes: int) -> None:
    """Write truth.json and results.json: jittered truths, wrong labels and strays, scores by how close they are."""
    rng = np.random.default_rng(0)
    owner = np.sort(rng.integers(0, num_images, round(7.2 * num_images)))
    corner = rng.uniform((0, 0), (500, 350), (len(owner), 2))
    true = np.concatenate([corner, np.exp(rng.normal(3.8, 0.9, (len(owner), 2)))], axis=1)
    category = rng.zipf(1.3, len(owner)) % 80
    crowd = rng.random(len(owner)) < 0.01
    source = rng.integers(0, len(owner), num_boxes)
    stray = rng.random(num_boxes) < 0.5
    jitter = np.where(stray, 0.8, 0.08)[:, None] * rng.normal(size=(num_boxes, 4))
    found = true[source] + jitter * np.tile(true[source, 2:], 2)
    found[:, 2:] = np.maximum(found[:, 2:], 1.0)
    label = np.where(rng.random(num_boxes) < 0.1, rng.integers(0, 80, num_boxes), category[source])
    score = np.clip(rng.normal(np.where(stray, 0.3, 0.6), 0.2), 0.01, 0.99)
    rows = zip(owner.tolist(), category.tolist(), true.round(2).tolist(), crowd.tolist(), strict=True)
    truth = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(1, num_images + 1)],
        "categories": [{"id": i, "name": f"category {i}"} for i in range(1, 81)],
        "annotations": [
            {"id": n, "image_id": i + 1, "category_id": c + 1, "bbox": b, "area": b[2] * b[3] * 0.7, "iscrowd": int(w)}
            for n, (i, c, b, w) in enumerate(rows, 1)
        ],
    }
    results = [
        {"image_id": i + 1, "category_id": c + 1, "bbox": b, "score": s}
        for i, c, b, s in zip(
            owner[source].tolist(), label.tolist(), found.round(2).tolist(), score.round(4).tolist(), strict=True
        )
    ]
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))


def score(evaluator: str, folder: Path) -> list[float]:
    """The twelve figures by one evaluator."""
    truth, results = folder / "truth.json", folder / "results.json"
    if evaluator != "pycocotools":
        from visionr1.evaluation import PredictionFiles, evaluate

        figures: list[float] = evaluate(truth, PredictionFiles([results]), num_resamples=0).result.extras["coco"]
        return figures
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO(str(truth))
        evaluation = COCOeval(ground, ground.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(figure) for figure in evaluation.stats]


def measure(evaluator: str, folder: Path) -> dict[str, Any]:
    """Seconds, peak memory in MB and figures of one evaluator in a process of its own; imports are not timed."""
    command = [sys.executable, __file__, "--child", evaluator, "--folder", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return measured


def child(evaluator: str, folder: Path) -> None:
    if evaluator == "pycocotools":
        import pycocotools.cocoeval  # noqa: F401
    else:
        import hotcoco  # noqa: F401

        import visionr1.evaluation  # noqa: F401
    start, cpu_start = time.perf_counter(), time.process_time()
    figures = score(evaluator, folder)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "memory_mb": peak, "figures": figures}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--boxes", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", choices=EVALUATORS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.folder)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_problem(folder, args.images, args.boxes)
        runs: dict[str, list[dict[str, Any]]] = {evaluator: [] for evaluator in EVALUATORS}
        for number in range(args.rounds):
            for evaluator in EVALUATORS:
                runs[evaluator].append(measure(evaluator, folder))
                last = runs[evaluator][-1]
                print(
                    f"round {number + 1}, {evaluator}: {last['seconds']:.2f} s, {last['cpu_seconds']:.2f} s of CPU, "
                    f"{last['memory_mb']:.0f} MB",
                    flush=True,
                )
    peer = np.array(runs["pycocotools"][0]["figures"])
    apart = max(float(np.abs(peer - run["figures"]).max()) for own in runs.values() for run in own)
    summary: dict[str, Any] = {"images": args.images, "boxes": args.boxes, "AP": peer[0], "largest_difference": apart}
    for evaluator, own in runs.items():
        for kind in ("seconds", "cpu_seconds"):
            summary[f"{evaluator}_{kind}"] = round(statistics.median(run[kind] for run in own), 3)
        summary[f"{evaluator}_memory_mb"] = round(max(run["memory_mb"] for run in own))
    for kind, name in (("seconds", "times_faster"), ("cpu_seconds", "times_less_cpu")):
        summary[name] = round(summary[f"pycocotools_{kind}"] / summary[f"visionr1_{kind}"], 1)
    print(json.dumps(summary))
    return 0 if apart <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
