"""ODinW-13 and ODinW-35 (Li et al., arXiv 2112.03857), and Vision-R1's four out-of-domain sets.

The list (`odinw.json`) is GLIP's: for each set its path below the folder, the annotation file that mmdetection
evaluates, and the category names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from visionr1.data.dataset import BoxDataset
from visionr1.data.readers.coco import read_coco, read_table
from visionr1.data.row_log import OnBad
from visionr1.errors import DataError
from visionr1.evaluation.benchmarks import Benchmark, Reading, refuse_split
from visionr1.evaluation.units import FoundUnits, Unit
from visionr1.files import read_json
from visionr1.samples import normalize_label, normalized_labels

Suite = Literal["odinw13", "odinw35", "vision_r1_ood"]


@dataclass(frozen=True, slots=True)
class OdinwSet:
    """One set: its path below the ODinW folder, its annotation file and images below that, its categories."""

    path: str
    annotations: str
    images: str
    categories: tuple[str, ...]
    in_13: bool

    @property
    def name(self) -> str:
        """The first part of its path, with the second where two sets share the first."""
        first = self.path.partition("/")[0]
        return self.path.replace("/", "_") if first in _PAIRS else first

    @property
    def known(self) -> frozenset[str]:
        """Its category names as labels are compared."""
        return normalized_labels(self.categories)


_PAIRS = {"AerialMaritimeDrone", "EgoHands", "OxfordPets"}
_VISION_R1_OOD = {"boggleBoards", "MountainDewCommercial", "ThermalCheetah"}
_VECTOR = OdinwSet(
    "vector/vectorCompleteDataset.v5-v5-(resize-+-grayscale-+-rotate-+-blur-+-bb-optimizations).coco",
    "valid/annotations_without_background.json",
    "valid",
    (),
    False,
)
"""The fourth of Vision-R1's out-of-domain sets: in GLIP's archive, but in no list of ODinW; its names are open."""


def odinw_sets(suite: Suite) -> tuple[OdinwSet, ...]:
    """The sets of a suite: ODinW's, or the four of them that Vision-R1 calls out of domain (arXiv 2503.18013)."""
    rows = read_json(Path(__file__).with_name("odinw.json"))
    sets = [OdinwSet(path, file, images, tuple(names), in_13) for path, file, images, names, in_13 in rows]
    if suite == "vision_r1_ood":
        return (*(one for one in sets if one.name in _VISION_R1_OOD), _VECTOR)
    return tuple(one for one in sets if one.in_13 or suite == "odinw35")


def find_odinw(folder: Path, suite: Suite) -> tuple[dict[OdinwSet, Path], tuple[str, ...]]:
    """The annotation file of each set of a suite that lies in `folder`, and the names of the others.

    A set lies at its own path, as in ODinW's archives, or in a folder of its name; its split
    is the one that mmdetection evaluates (all of valid). Raises DataError if there is none.
    """
    set_files: dict[OdinwSet, Path] = {}
    missing = []
    for one in odinw_sets(suite):
        files = [folder / place / one.annotations for place in (one.path, one.name)]
        file = next((file for file in files if file.is_file()), None)
        if file:
            set_files[one] = file
        else:
            missing.append(one.name)
    if not set_files:
        raise DataError(f"{folder}: expected sets of {suite}, such as {missing[0]}/, found none of the {len(missing)}")
    return set_files, tuple(missing)


def read_odinw(one: OdinwSet, file: Path, *, on_bad: OnBad = "raise") -> BoxDataset:
    """A set with its images, categories named as in the file."""
    folder = file.parents[len(Path(one.annotations).parts) - 1]
    return read_coco(file, image_dir=folder / one.images, on_bad=on_bad)


def find_suite(suite: Suite, folder: Path, split: str | None, reading: Reading) -> FoundUnits:
    """Find the sets of a suite that are there; each is read when it is its turn."""
    refuse_split(suite, split)
    set_files, missing = find_odinw(folder, suite)
    return FoundUnits([one.name for one in set_files], _read_units(set_files, reading), missing)


def _read_units(set_files: Mapping[OdinwSet, Path], reading: Reading) -> Iterator[Unit]:
    for one, file in set_files.items():
        dataset = read_odinw(one, file, on_bad=reading.on_bad) if reading.with_images else None
        table = dataset.table if dataset else read_table(file, on_bad=reading.on_bad)
        renamed = sorted(name for name in table.categories if one.known and normalize_label(name) not in one.known)
        note = f"its file names {', '.join(renamed)}, which GLIP and mmdetection name otherwise"
        yield Unit(
            name=one.name,
            annotations=table,
            samples=dataset.samples if dataset else (),
            report=dataset.report.lines() if dataset else (),
            notes=[note] if renamed else [],
        )


_SUITES: tuple[Suite, ...] = ("odinw13", "odinw35", "vision_r1_ood")
BENCHMARK = tuple(Benchmark(name=suite, find=partial(find_suite, suite), averaged=True) for suite in _SUITES)
