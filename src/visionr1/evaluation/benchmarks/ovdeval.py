"""OVDEval (Yao et al., arXiv 2308.13177): nine subtasks of open-vocabulary detection, scored by NMS-AP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from visionr1.data.readers.ovdeval import SUBTASKS, find_subtask_file, read_ovdeval
from visionr1.errors import DataError
from visionr1.evaluation.benchmarks import Benchmark, Reading
from visionr1.evaluation.protocols import Protocol
from visionr1.evaluation.units import FoundUnits, Unit


def find_ovdeval(folder: Path, split: str | None, reading: Reading) -> FoundUnits:
    """Find the subtasks that are there; `split` names one."""
    names: Sequence[str] = SUBTASKS
    if split:
        names = [split]
    files: dict[str, Path] = {}
    missing = []
    for name in names:
        file = find_subtask_file(folder, name)
        if file:
            files[name] = file
        else:
            missing.append(name)
    if not files:
        raise DataError(f"{folder}: expected annotations/{missing[0]}.json of OVDEval and the like, found none")
    return FoundUnits(list(files), _read_units(files, reading), missing)


def _read_units(files: Mapping[str, Path], reading: Reading) -> Iterator[Unit]:
    """Read the subtasks one by one."""
    for name, file in files.items():
        dataset = read_ovdeval(file, with_images=reading.with_images, on_bad=reading.on_bad)
        yield Unit.of_dataset(name, dataset)


BENCHMARK = Benchmark(
    name="ovdeval",
    find=find_ovdeval,
    protocol=Protocol(name="ovdeval", suppression="truth"),
    averaged=True,
    fixed={"suppression": "truth"},
)
