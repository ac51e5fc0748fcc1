"""LISA-Grounding (VLM-R1): implicit expressions, one object each, from LISA's reasoning segmentation."""

from __future__ import annotations

from pathlib import Path

from visionr1.data.readers.grounding_files import find_lisa, read_grounding_file
from visionr1.evaluation.benchmarks import Benchmark, Reading
from visionr1.evaluation.metrics.rec import REC
from visionr1.evaluation.units import FoundUnits, Unit


def find_lisa_split(folder: Path, split: str | None, reading: Reading) -> FoundUnits:
    """Read one split, test unless told otherwise."""
    name = split or "test"
    dataset = read_grounding_file(find_lisa(folder, name), with_images=reading.with_images, on_bad=reading.on_bad)
    return FoundUnits([name], [Unit.of_rows(name, dataset)])


BENCHMARK = Benchmark(name="lisa", find=find_lisa_split, metric=REC)
