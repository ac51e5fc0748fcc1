"""COCO val2017 (Lin et al., arXiv 1405.0312): `annotations/instances_val2017.json` and `val2017/`, or another split."""

from __future__ import annotations

from pathlib import Path

from visionr1.data.readers.coco import read_coco, read_table
from visionr1.data.readers.coco_layout import find_annotations
from visionr1.data.table import BoxTable
from visionr1.evaluation.benchmarks import Benchmark, Reading, note_if_fewer
from visionr1.evaluation.units import FoundUnits, Unit

NUM_VAL2017 = 5000


def find_coco(folder: Path, split: str | None, reading: Reading) -> FoundUnits:
    """Read one split; its images only where they are needed."""
    file = find_annotations(folder, split or "val")
    name = split or "val2017"

    # Scoring a file of predictions needs no images.
    if not reading.with_images:
        table = read_table(file, on_bad=reading.on_bad)
        return FoundUnits([name], [Unit.of_table(name, table, notes=_notes(table, split))])

    dataset = read_coco(file, on_bad=reading.on_bad)
    return FoundUnits([name], [Unit.of_dataset(name, dataset, notes=_notes(dataset.table, split))])


def _notes(table: BoxTable, split: str | None) -> list[str]:
    """Return the note on a val2017 with other images than the benchmark's; nothing is known of other splits."""
    if split:
        return []
    return note_if_fewer(len(table), NUM_VAL2017, "images")


BENCHMARK = Benchmark(name="coco", find=find_coco)
