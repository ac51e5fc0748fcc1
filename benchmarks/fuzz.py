"""Fuzzing of every dialect and preset with hostile text, for as long as you like, and of every reader of files.

    python benchmarks/fuzz.py --minutes 30 [--engine atheris|random] [--seed 0]
    python benchmarks/fuzz.py --files 10000 [--readers coco,voc] [--seed 0]

The second reads so many mutations of the files of each reader (see fuzz_files.py), prints a table, and each kind of
traceback once. It exits with another status than 0 if there was one, or if a file was opened outside the folder.

Each execution parses and scores one text of at most 64 KB and fails, printing the text, on an exception, on a part out
of its range, or on more than 100 ms of CPU time (the best of three; 1 s under atheris, whose tracing costs). The
engine atheris (pip install atheris) follows the coverage of visionr1; random, which needs nothing, splices and repeats
what the dialects are made of. Exits with another status than 0 on a failure; the last line is a JSON object: engine,
minutes, executions, slowest_ms.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

LIMIT_BYTES = 65_536
LIMIT_SECONDS = {"random": 0.1, "atheris": 1.0}

TOKENS = [
    *'{}[]",:&-\\. \n\t\r0159',
    *(
        "```json\n",
        "\n```",
        "```",
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "<ref>",
        "</ref>",
        "<box>",
        "</box>",
    ),
    *(
        '"bbox_2d"',
        '"label"',
        '"bbox_2d": [',
        ', "label": "cat"}',
        "[1, 2, 30, 40]",
        "[[1, 2, 30, 40]]",
        "None",
        "null",
    ),
    *("true", "NaN", "Infinity", "1e999", "-1", "0.123", "1.000", "9" * 25, "cat-[", "cat-[0.100,0.200,0.300,0.400]"),
    *(
        '\\"',
        "\\u0041",
        "\\ud800",
        "猫",
        "\u2028",
        "\x00",
        "\x1c",
        " " * 20,
        '{"bbox_2d": [1, 2, 30, 40], "label": "cat"}',
    ),
    *("{'bbox': [1, 2, 30, 40], 'name': 'cat'}", '"label": "15" tv"}', "}, {", ": ", "'", "“", "”", "，", "/*", "//"),
    *('{\\"bbox_2d\\": ', "[[1, 2], [30, 40]]", "(1,2),(30,40)", "<|box_start|>", "<|box_end|>", "x1=1, y1=2, "),
    *(
        '"box_2d": [',
        "<|box_start|>(1,2),(30,40)<|box_end|>",
        "<|object_ref_start|>",
        "<|object_ref_end|>",
        "<1><2><30><40>",
    ),
    *(
        "<|ref|>",
        "<|/ref|>",
        "<|det|>",
        "<|/det|>",
        "<box>1 2 30 40</box>",
        "<|begin_of_box|>",
        "<|end_of_box|>",
        " ; ",
    ),
    *(
        "<phrase>",
        "</phrase>",
        "<object>",
        "</object>",
        "<patch_index_0044>",
        "</delimiter_of_multi_objects/>",
        "<seg001>",
    ),
    *(
        "<loc0001><loc0002><loc0030><loc0040> cat",
        "<loc_1><loc_2><loc_30><loc_40>",
        "<loc_1>",
        '<points coords="1 1 2 3">',
    ),
    *("<cat><bbox>1, 2, 30, 40</bbox>", "cat[[1, 2, 30, 40]]\n", "<loc0001>", '{"objects": [', "\\boxed{2}"),
]


class Stats:
    """What has been run, and the end of it."""

    def __init__(self, engine: str, minutes: float) -> None:
        self.engine, self.start, self.minutes = engine, time.monotonic(), minutes
        self.executions, self.slowest = 0, 0.0

    @property
    def over(self) -> bool:
        return time.monotonic() - self.start >= 60 * self.minutes

    def line(self) -> str:
        minutes = (time.monotonic() - self.start) / 60
        return json.dumps(
            {
                "engine": self.engine,
                "minutes": round(minutes, 2),
                "executions": self.executions,
                "slowest_ms": round(1000 * self.slowest, 1),
            }
        )


def make_check(stats: Stats) -> Callable[[int, str], None]:
    """A function that scores a text by the scorer of a number, and fails on what must not be."""
    from visionr1.dialects import dialect_names, get_dialect
    from visionr1.rewards import Reward
    from visionr1.rewards.published.vision_r1_release import STEPS, ReleaseReward
    from visionr1.rewards.published.vlm_r1 import VlmR1Reward
    from visionr1.samples import Boxes, GroundTruth

    size = (640, 480)
    scorers = [
        *(Reward(dialect=get_dialect(name)).score for name in dialect_names()),
        *(Reward(matching=matching, wrong_label_voids=True).score for matching in ("iou+label", "detr", "detr+label")),
        *(ReleaseReward(step).score for step in STEPS.values()),
        VlmR1Reward().score,
    ]
    boxes = [[0, 0, 640, 480], *([10 * i, 8 * i, 10 * i + 60, 8 * i + 50] for i in range(11))]
    truths = [
        GroundTruth(
            Boxes.of(boxes[:count], ["cat", "dog"] * (count // 2) + ["cat"] * (count % 2)), ("cat", "dog"), size, size
        )
        for count in (0, 1, 12)
    ]

    limit = LIMIT_SECONDS[stats.engine]

    def check(choice: int, text: str) -> None:
        score = scorers[choice % len(scorers)]
        truth = truths[choice // len(scorers) % len(truths)]
        seconds = []
        for _ in range(3):
            start = time.process_time()
            found = score(text, truth)
            seconds.append(time.process_time() - start)
            if seconds[-1] < limit:
                break
        stats.executions += 1
        stats.slowest = max(stats.slowest, min(seconds))
        assert min(seconds) < limit, f"{1000 * min(seconds):.0f} ms"
        for name, part in found.parts.items():
            low, high = (-1.0, 0.0) if name == "repetition" else (0.0, 1.0)
            assert low - 1e-9 <= part <= high + 1e-9, f"{name} is {part}"

    return check


def seeds() -> list[str]:
    """Well-formed replies of every dialect."""
    from visionr1.dialects import dialect_names, get_dialect
    from visionr1.samples import Boxes

    some = Boxes.of([[10, 20, 300, 400], [50, 60, 70, 80], [10, 20, 300, 400]], ["cat", "dog", "cat"])
    return [
        dialect.render(boxes, size_wh=(640, 480), input_size_wh=(644, 476))
        for dialect in map(get_dialect, dialect_names())
        for boxes in (some, Boxes.empty())
    ]


def random_text(rng: random.Random, corpus: list[str]) -> str:
    """Something between a reply and noise; now and then as long as a text may be."""
    pieces = []
    for _ in range(rng.randint(1, 12)):
        piece = rng.choice(TOKENS) if rng.random() < 0.7 else rng.choice(corpus)
        if rng.random() < 0.3:
            start = rng.randint(0, len(piece))
            piece = piece[start : rng.randint(start, len(piece))]
        if rng.random() < 0.2:
            piece *= rng.choice((2, 3, 50, 20_000))
        pieces.append(piece[:LIMIT_BYTES])
    if rng.random() < 0.1:
        pieces = ["".join(pieces) * rng.randint(1, 5_000)] if sum(map(len, pieces)) < 200 else pieces
    return "".join(pieces).encode(errors="surrogatepass")[:LIMIT_BYTES].decode(errors="surrogateescape")


def run_random(stats: Stats, seed: int) -> None:
    """Random texts until the time is over."""
    rng, corpus, check = random.Random(seed), seeds(), make_check(stats)
    while not stats.over:
        text, choice = random_text(rng, corpus), rng.randrange(1_000)
        try:
            check(choice, text)
        except BaseException:
            print(f"choice {choice}, text {text!r}"[:3_000])
            raise


def run_atheris(stats: Stats, seed: int) -> None:
    """Coverage-guided texts until the time is over; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["visionr1"]):
        check = make_check(stats)

    folder = Path(tempfile.mkdtemp())

    def one_input(data: bytes) -> None:
        if stats.over:  # libFuzzer never returns
            shutil.rmtree(folder)
            print(stats.line(), flush=True)
            os._exit(0)
        if len(data) > 1:
            check(data[0] + 256 * data[1], data[2 : LIMIT_BYTES + 2].decode(errors="surrogateescape"))

    for index, text in enumerate(seeds()):
        for choice in range(45):
            (folder / f"{index}-{choice}").write_bytes(bytes([choice, 0]) + text.encode())
    words = "\n".join('"' + "".join(f"\\x{byte:02x}" for byte in token.encode()) + '"' for token in TOKENS)
    dictionary = folder / "dictionary"
    dictionary.write_text(words)
    options = [f"-dict={dictionary}", f"-seed={seed + 1}", f"-max_len={LIMIT_BYTES + 2}", "-print_pcs=0"]
    atheris.Setup([sys.argv[0], str(folder), *options], one_input)
    atheris.Fuzz()


def run_files(num_inputs: int, seed: int, names: set[str]) -> int:
    """Read mutations of the files of each reader, print a table, and return the exit status."""
    import fuzz_files

    fuzz_files.limit_memory()
    print(fuzz_files.TABLE_HEAD, flush=True)
    is_clean = True
    for target in fuzz_files.TARGETS:
        if names and target.name not in names:
            continue
        outcome = fuzz_files.fuzz(target, num_inputs, seed)
        print(outcome.row(), flush=True)
        for text in (*outcome.tracebacks, *sorted(outcome.outside)):
            print(text, file=sys.stderr)
        is_clean = is_clean and not outcome.tracebacks and not outcome.outside
    return 0 if is_clean else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--engine", choices=("atheris", "random"), default="random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", type=int, metavar="N", help="read N mutations of the files of each reader instead")
    parser.add_argument("--readers", default="", metavar="A,B", help="with --files, these alone")
    args = parser.parse_args()
    if args.files:
        sys.exit(run_files(args.files, args.seed, set(filter(None, args.readers.split(",")))))
    stats = Stats(args.engine, args.minutes)
    {"atheris": run_atheris, "random": run_random}[args.engine](stats, args.seed)
    print(stats.line())


if __name__ == "__main__":
    main()
