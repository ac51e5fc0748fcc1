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
from visionr1.data.table import BoxTable
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
        """Return the first part of its path, with the second where two sets share the first."""
        first = self.path.partition("/")[0]
        if first in _PAIRS:
            return self.path.replace("/", "_")
        return first

    @property
    def known(self) -> frozenset[str]:
        """Return its category names as labels are compared."""
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
    """Return the sets of a suite: ODinW's, or the four that Vision-R1 calls out of domain (arXiv 2503.18013)."""
    rows = read_json(Path(__file__).with_name("odinw.json"))
    sets = []
    for path, file, images, categories, in_13 in rows:
        sets.append(OdinwSet(path, file, images, tuple(categories), in_13))

    if suite == "odinw35":
        return tuple(sets)
    if suite == "odinw13":
        return tuple(odinw_set for odinw_set in sets if odinw_set.in_13)
    return (*(odinw_set for odinw_set in sets if odinw_set.name in _VISION_R1_OOD), _VECTOR)


def find_odinw(folder: Path, suite: Suite) -> tuple[dict[OdinwSet, Path], tuple[str, ...]]:
    """Return the annotation file of each set of a suite that lies in `folder`, and the names of the others.

    A set lies at its own path, as in ODinW's archives, or in a folder of its name; its split
    is the one that mmdetection evaluates (all of valid). Raises DataError if there is none.
    """
    set_files: dict[OdinwSet, Path] = {}
    missing = []
    for odinw_set in odinw_sets(suite):
        # As in ODinW's archives, or else in a folder of its name.
        file = folder / odinw_set.path / odinw_set.annotations
        if not file.is_file():
            file = folder / odinw_set.name / odinw_set.annotations
        if file.is_file():
            set_files[odinw_set] = file
        else:
            missing.append(odinw_set.name)
    if not set_files:
        raise DataError(f"{folder}: expected sets of {suite}, such as {missing[0]}/, found none of the {len(missing)}")
    return set_files, tuple(missing)


def read_odinw(odinw_set: OdinwSet, file: Path, *, on_bad: OnBad = "raise") -> BoxDataset:
    """Read a set with its images, categories named as in the file."""
    # The set's own folder, above the whole path of the annotation file.
    folder = file.parents[len(Path(odinw_set.annotations).parts) - 1]
    return read_coco(file, image_dir=folder / odinw_set.images, on_bad=on_bad)


def find_suite(suite: Suite, folder: Path, split: str | None, reading: Reading) -> FoundUnits:
    """Find the sets of a suite that are there; each is read when it is its turn."""
    refuse_split(suite, split)
    set_files, missing = find_odinw(folder, suite)
    names = [odinw_set.name for odinw_set in set_files]
    return FoundUnits(names, _read_units(set_files, reading), missing)


def _read_units(set_files: Mapping[OdinwSet, Path], reading: Reading) -> Iterator[Unit]:
    """Read the sets one by one, with images only where a model is asked."""
    for odinw_set, file in set_files.items():
        if reading.with_images:
            dataset = read_odinw(odinw_set, file, on_bad=reading.on_bad)
            yield Unit.of_dataset(odinw_set.name, dataset, notes=_note_renamed(odinw_set, dataset.table))
        else:
            table = read_table(file, on_bad=reading.on_bad)
            yield Unit.of_table(odinw_set.name, table, notes=_note_renamed(odinw_set, table))


def _note_renamed(odinw_set: OdinwSet, table: BoxTable) -> list[str]:
    """Return the note on categories that the file names otherwise than the list; none where the list has no names."""
    if not odinw_set.known:
        return []

    renamed = []
    for name in sorted(table.categories):
        if normalize_label(name) not in odinw_set.known:
            renamed.append(name)
    if not renamed:
        return []
    return [f"its file names {', '.join(renamed)}, which GLIP and mmdetection name otherwise"]


_SUITES: tuple[Suite, ...] = ("odinw13", "odinw35", "vision_r1_ood")
BENCHMARK = tuple(Benchmark(name=suite, find=partial(find_suite, suite), averaged=True) for suite in _SUITES)
