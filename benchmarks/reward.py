"""Completions scored a second by preset `paper`, all three rewards together, on one thread.

    python benchmarks/reward.py [--seconds 2] [--peer Griffon/Vision-R1/vision_r1/visionr1_qwen.py]

Replies of 1, 10 and 50 boxes, fenced as the paper writes them, each box within 6 pixels of a true one, of five labels.
Every completion is another text. Seconds are of CPU time, so that a busy machine measures what an idle one does. The
last line is a JSON object: boxes -> completions a second (median of five).

With --peer (a checkout of jefferyZhan/Griffon; needs torch), the public Vision-R1 code scores the same completions in
the same run, by its three reward functions: a second JSON object then stands before the last line, and the ratios too.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from visionr1.dialects import get_dialect
from visionr1.rewards import Reward
from visionr1.samples import Boxes, GroundTruth

NUM_BOXES = (1, 10, 50)
NAMES = ("person", "car", "dog", "traffic light", "bicycle")
SIZE = (640, 480)
INPUT_SIZE = (644, 476)
Case = tuple[str, GroundTruth]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each of five measurements (default: 2)")
    parser.add_argument("--peer", type=Path, metavar="FILE", help="the public visionr1_qwen.py, in its checkout")
    args = parser.parse_args()
    cases = {boxes: make_cases(boxes) for boxes in NUM_BOXES}
    reward = Reward()
    ours = {boxes: measure(lambda case: reward.score(*case), cases[boxes], args.seconds) for boxes in NUM_BOXES}
    for boxes, rate in ours.items():
        print(f"{boxes:3} boxes: {rate:9,.0f} completions a second, {1e6 / rate:7.1f} us each")
    if args.peer:
        score = load_peer(args.peer)
        peer = {boxes: measure(score, cases[boxes], args.seconds) for boxes in NUM_BOXES}
        for boxes, rate in peer.items():
            print(f"{boxes:3} boxes: {rate:9,.0f} by the public code; ours is {ours[boxes] / rate:.1f} times as fast")
        print(json.dumps({str(boxes): round(rate, 1) for boxes, rate in peer.items()}))
    print(json.dumps({str(boxes): round(rate, 1) for boxes, rate in ours.items()}))


def make_cases(num_boxes: int, count: int = 200) -> list[Case]:
    """`count` completions of `num_boxes` boxes with their truths."""
    rng = np.random.default_rng(num_boxes)
    dialect, cases = get_dialect("qwen25"), []
    for _ in range(count):
        corner = rng.uniform(0, (SIZE[0] - 130, SIZE[1] - 130), (num_boxes, 2))
        xyxy = np.concatenate([corner, corner + rng.uniform(20, 120, (num_boxes, 2))], axis=1)
        labels = tuple(rng.choice(NAMES, num_boxes).tolist())
        said = Boxes(np.clip(xyxy + rng.uniform(-6, 6, xyxy.shape), 0, (*SIZE, *SIZE)), labels)
        text = dialect.render(said, size_wh=SIZE, input_size_wh=INPUT_SIZE)
        cases.append((text, GroundTruth(Boxes(xyxy, labels), NAMES, SIZE, INPUT_SIZE)))
    return cases


def measure(score: Callable[[Case], object], cases: list[Case], seconds: float) -> float:
    """Cases a second, the median of five measurements of `seconds`."""
    rates = []
    for _ in range(5):
        start, done = time.process_time(), 0
        while (elapsed := time.process_time() - start) < seconds:
            for case in cases:
                score(case)
            done += len(cases)
        rates.append(done / elapsed)
    return median(rates)


def load_peer(path: Path) -> Callable[[Case], float]:
    """The public code's three rewards, summed: its functions from its files, without its trainer's imports."""
    import torch
    from scipy.optimize import linear_sum_assignment

    def box_area(boxes: Any) -> Any:  # torchvision's, which need not be installed
        return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])

    torch.set_num_threads(1)
    names: dict[str, Any] = {
        "torch": torch,
        "re": re,
        "json": json,
        "partial": partial,
        "linear_sum_assignment": linear_sum_assignment,
        "box_area": box_area,
    }
    for file, wanted in (
        (path.parents[2] / "griffon/coor_utils.py", {"box_iou", "generalized_box_iou"}),
        (path, None),
    ):
        functions = [
            node
            for node in ast.parse(file.read_text()).body
            if isinstance(node, ast.FunctionDef) and (node.name in wanted if wanted else node.name != "main")
        ]
        exec(compile(ast.Module(functions, []), str(file), "exec"), names)
    ids = json.dumps({name: index for index, name in enumerate(NAMES, 1)})

    def score(case: Case) -> float:
        text, truth = case
        labelled = zip(truth.boxes.labels, truth.boxes.xyxy.tolist(), strict=True)
        columns: dict[str, Any] = {
            "completions": [[{"content": text}]],
            "solution": [json.dumps([[label, [box]] for label, box in labelled])],
            "width": [SIZE[0]],
            "height": [SIZE[1]],
            "num_instances": [len(truth.boxes)],
            "input_widths": [INPUT_SIZE[0]],
            "input_heights": [INPUT_SIZE[1]],
            "target_id_maps": [ids],
            "step": None,
        }
        rewards = ("precision_reward", "dual_format_reward", "recall_reward")
        return sum(float(names[reward](**columns)[0]) for reward in rewards)

    return score


if __name__ == "__main__":
    main()
