"""COCO val2017 (Lin et al., arXiv 1405.0312): `annotations/instances_val2017.json` and `val2017/`, or another split."""

from __future__ import annotations

from pathlib import Path

from visionr1.data.readers.coco import find_annotations, read_coco, read_table
from visionr1.evaluation.benchmarks import Benchmark, Reading, note_if_fewer
from visionr1.evaluation.units import FoundUnits, Unit

NUM_VAL2017 = 5000


def find_coco(folder: Path, split: str | None, reading: Reading) -> FoundUnits:
    """Read one split; its images only where they are needed."""
    file = find_annotations(folder, split or "val")
    dataset = read_coco(file, on_bad=reading.on_bad) if reading.with_images else None
    table = dataset.table if dataset else read_table(file, on_bad=reading.on_bad)
    unit = Unit(
        name=split or "val2017",
        annotations=table,
        samples=dataset.samples if dataset else (),
        report=dataset.report.lines() if dataset else (),
        notes=note_if_fewer(len(table), None if split else NUM_VAL2017, "images"),
    )
    return FoundUnits([unit.name], [unit])


BENCHMARK = Benchmark(name="coco", find=find_coco)
