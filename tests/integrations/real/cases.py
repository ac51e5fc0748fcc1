"""Completions with their ground truths and what the reward gives them, shared by the hosts' tests.

`write_cases` runs in the project's own environment and `check` in the host's.
"""

import json
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

FILE = Path(os.environ["VISIONR1_HOST_CASES"])
PARTS = ("format", "recall", "precision")


def write_cases():
    """One row per case and stage, with the scores of `Reward` itself."""
    from visionr1.dialects import get_dialect
    from visionr1.integrations import to_json
    from visionr1.rewards import FixedStages, Reward
    from visionr1.samples import Boxes, GroundTruth

    categories, sizes = ("RBC", "WBC"), ((640, 480), (640, 480))
    truth = GroundTruth(Boxes.of([[10, 20, 110, 220], [200, 100, 300, 200]], ["RBC", "WBC"]), categories, *sizes)
    nothing = GroundTruth(Boxes.empty(), categories, *sizes)
    right = get_dialect("qwen25").render(truth.boxes, size_wh=truth.size_wh, input_size_wh=truth.input_size_wh)
    texts = {
        right: truth,
        right.replace("[10, 20, ", "[10, 60, "): truth,  # one IoU of .8: 1 for a beginner, .8 later
        right.replace("[10, 20, ", "[10, 120, "): truth,  # one IoU of .5
        right[:60]: truth,  # cut off
        "Two cells, I think: é ☃": truth,
        "[]": nothing,
    }
    rows = []
    for stage, progress in (("beginner", 0.0), ("advanced", 1.0)):
        for completion, case in texts.items():
            score = Reward().score(completion, case, stage=FixedStages(0.5).at(progress))
            expected = {"total": score.total, **score.parts}
            row = {"stage": stage, "completion": completion, "ground_truth": to_json(case), "expected": expected}
            rows.append(row)
    FILE.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def load_cases(stage):
    """The cases of one stage."""
    return [row for row in json.loads(FILE.read_text(encoding="utf-8")) if row["stage"] == stage]


def check(cases, totals, parts):
    """Every total and part as the reward itself gave it."""
    columns = {"total": totals, **parts}
    for name in ("total", *PARTS):
        expected = [case["expected"][name] for case in cases]
        found = [float(value) for value in columns[name]]
        close = len(found) == len(expected) and all(abs(a - b) < 1e-5 for a, b in zip(found, expected, strict=True))
        assert close, f"{name}: expected {expected}, found {found}"


def settings_of(script, **variables):
    """The `key=value` arguments that a shell script gives to `python`, as the shell passes them."""
    with TemporaryDirectory() as folder:
        python, found = Path(folder) / "python", Path(folder) / "arguments"
        python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {found}\n')
        python.chmod(0o755)
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(["bash", script], check=True, env={**os.environ, "PATH": path, **variables})
        return [line for line in found.read_text().splitlines() if "=" in line]
