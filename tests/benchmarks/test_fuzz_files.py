"""Mutated files are read or refused, and nothing outside their folder is opened; and the hook sees what is."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.benchmark_programs import load_benchmark
from visionr1.errors import DataError

fuzz_files = load_benchmark("fuzz_files")
NUM_INPUTS = {"run": 60, "results": 40, "completions": 100}
"""Of targets that are slower to read; 250 of the others."""


@pytest.mark.parametrize("target", fuzz_files.TARGETS, ids=lambda target: target.name)
def test_mutated_files_are_read_or_refused(target) -> None:
    outcome = fuzz_files.fuzz(target, NUM_INPUTS.get(target.name, 250), seed=11)
    assert not outcome.tracebacks, outcome.tracebacks[0]
    assert not outcome.outside
    assert outcome.read and outcome.refused and outcome.read + outcome.refused == outcome.inputs
    assert outcome.worst_bytes < 200e6


def write(folder: Path) -> None:
    (folder / "a.txt").write_text("a")


def open_outside(folder: Path, name: str) -> None:
    (folder.parent.parent / "outside.png").read_bytes()


def start_program(folder: Path, name: str) -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


def fail(folder: Path, name: str) -> None:
    if (folder / "a.txt").read_bytes() != b"a":
        raise ZeroDivisionError


def refuse(folder: Path, name: str) -> None:
    if (folder / "a.txt").read_bytes() != b"a":
        raise DataError("no")


@pytest.mark.parametrize(
    ("read", "outside", "tracebacks"),
    [(open_outside, "outside.png", 0), (start_program, "subprocess", 0), (fail, "", 1), (refuse, "", 0)],
)
def test_what_must_not_be_is_seen(read, outside: str, tracebacks: int) -> None:
    outcome = fuzz_files.fuzz(fuzz_files.Target(name="x", write=write, read=read), 20, seed=0)
    assert len(outcome.tracebacks) == tracebacks and outcome.inputs == 20
    assert bool(outcome.outside) == bool(outside) and all(outside in name for name in outcome.outside)


def test_the_same_seed_makes_the_same_inputs(tmp_path: Path) -> None:
    rows = []
    for _ in range(2):
        target = next(target for target in fuzz_files.TARGETS if target.name == "vlm_r1")
        outcome = fuzz_files.fuzz(target, 50, seed=3)
        rows.append((outcome.refused, outcome.read))
    assert rows[0] == rows[1]
