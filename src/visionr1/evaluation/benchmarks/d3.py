"""D3 (Xie et al., arXiv 2307.12813): described objects, in all, with presence, with absence, and by length."""

from __future__ import annotations

from pathlib import Path

from visionr1.data.readers.d3 import read_d3
from visionr1.evaluation.benchmarks import Benchmark, Reading, note_if_fewer, refuse_split
from visionr1.evaluation.protocols import Protocol
from visionr1.evaluation.units import FoundUnits, Unit

NUM_DESCRIPTIONS = 422


def find_d3(folder: Path, split: str | None, reading: Reading) -> FoundUnits:
    """Read the one split; its parts are scored from one asking."""
    refuse_split("d3", split)
    dataset = read_d3(folder, with_images=reading.with_images, on_bad=reading.on_bad)
    notes = note_if_fewer(len(dataset.parts["FULL"]), NUM_DESCRIPTIONS, "descriptions")
    unit = Unit.of_dataset("d3", dataset, notes=notes, parts=dataset.parts)
    return FoundUnits([unit.name], [unit])


BENCHMARK = Benchmark(name="d3", find=find_d3, protocol=Protocol(name="d3", prompt="per_category"))
