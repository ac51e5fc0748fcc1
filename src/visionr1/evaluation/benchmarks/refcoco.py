"""RefCOCO, RefCOCO+ (Yu et al., arXiv 1608.00272) and RefCOCOg (Mao et al., arXiv 1511.02283), by split."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from visionr1.data.readers.refer import read_refer
from visionr1.evaluation.benchmarks import Benchmark, Reading, note_if_fewer
from visionr1.evaluation.metrics.rec import REC
from visionr1.evaluation.units import FoundUnits, Unit

NUM_EXPRESSIONS = {
    "refcoco": {"val": 10834, "testA": 5657, "testB": 5095},
    "refcoco+": {"val": 10758, "testA": 5726, "testB": 4889},
    "refcocog": {"val": 4896, "test": 9602},
}
"""By split; those of RefCOCOg are UMD's."""


def find_refer(
    name: str, num_expressions: Mapping[str, int], folder: Path, split: str | None, reading: Reading
) -> FoundUnits:
    """Read the splits of a set in REFER's layout that are there.

    A split gets a note if its number of expressions differs from `num_expressions`.
    """
    datasets, missing = read_refer(folder, name, split, with_images=reading.with_images, on_bad=reading.on_bad)
    units = []
    for key, dataset in datasets.items():
        notes = note_if_fewer(len(dataset.samples), num_expressions.get(key), "expressions")
        units.append(Unit.of_rows(key, dataset, notes=notes))
    return FoundUnits([unit.name for unit in units], units, missing)


BENCHMARK = tuple(
    Benchmark(name=name, find=partial(find_refer, name, num_expressions), metric=REC)
    for name, num_expressions in NUM_EXPRESSIONS.items()
)
