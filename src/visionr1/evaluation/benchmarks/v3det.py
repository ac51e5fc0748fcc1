"""V3Det (Wang et al., arXiv 2304.03752): 13,204 categories in a tree; all, base and novel ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from visionr1.data.readers.v3det import read_v3det
from visionr1.evaluation.benchmarks import Benchmark, Reading, note_if_fewer
from visionr1.evaluation.protocols import Protocol
from visionr1.evaluation.units import FoundUnits, Unit

NUM_VAL = 29_821
FIXED: dict[str, Any] = {
    "max_dets": (1, 10, 300),
    "metric": "a box of a category below the true one's is neither right nor wrong in AP",
}


def find_v3det(folder: Path, split: str | None, reading: Reading) -> FoundUnits:
    """Read one split, val unless told otherwise; its parts are scored from one asking."""
    dataset = read_v3det(folder, split or "val", with_images=reading.with_images, on_bad=reading.on_bad)
    notes = note_if_fewer(len(dataset.table), None if split else NUM_VAL, "images")
    unit = Unit.of_dataset(split or "val", dataset, notes=notes, parts=dataset.parts)
    return FoundUnits([unit.name], [unit])


BENCHMARK = Benchmark(
    name="v3det",
    find=find_v3det,
    protocol=replace(Protocol(name="v3det", categories="present", num_negatives=20), **FIXED),
    fixed=FIXED,
)
