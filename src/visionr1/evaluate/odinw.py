"""ODinW-13 and ODinW-35: which sets they are, where they lie in a folder, and the mean over them.

The list (`odinw.json`) is GLIP's: for each set its path below the folder, the annotation file that mmdetection
evaluates, and the category names. The mean hides that some sets have fewer than ten images, so it stands beside the
mean without them, with the number of images of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from visionr1.errors import DataError
from visionr1.evaluate.detection import DetectionResult
from visionr1.files import read_json
from visionr1.readers.coco import CocoDataset, read_coco
from visionr1.samples import normalize_label, normalized_labels

Suite = Literal["odinw13", "odinw35", "vision_r1_ood"]
SMALL_SET = 10
"""Sets of fewer images are left out of the second mean: one box moves their AP by several points."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class OdinwResult:
    """Results by set, the sets that were not there, and by set the categories that its file calls otherwise."""

    suite: Suite
    results: Mapping[str, DetectionResult]
    missing: tuple[str, ...]
    renamed: Mapping[str, Sequence[str]]

    def mean(self, metric: str, *, without_small: bool = False) -> float | None:
        """The plain mean of a metric over the sets; None if none is left."""
        values = [
            result.metrics[metric]
            for result in self.results.values()
            if not (without_small and result.counts["images"] < SMALL_SET)
        ]
        return sum(values) / len(values) if values else None

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object: both means, each set's result, what is missing."""
        metrics = list(next(iter(self.results.values())).metrics)
        return {
            "suite": self.suite,
            "complete": not self.missing,
            "missing": list(self.missing),
            "renamed": dict(self.renamed),
            "mean": {name: self.mean(name) for name in metrics},
            "mean_without_small": {name: self.mean(name, without_small=True) for name in metrics},
            "small_set": SMALL_SET,
            "sets": {name: result.to_json() for name, result in self.results.items()},
        }

    def table(self) -> str:
        """The sets with their number of images, both means, what is missing, and the one protocol of all."""
        metrics = ("AP", "AP50", "F1")
        rows = [["set", "images", *metrics]]
        for name, result in self.results.items():
            rows.append([name, str(result.counts["images"]), *(_cell(result, metric) for metric in metrics)])
        number = len(self.results)
        large = sum(result.counts["images"] >= SMALL_SET for result in self.results.values())
        titles = {False: f"mean of {number}", True: f"mean of the {large} with {SMALL_SET} images or more"}
        for without, title in titles.items():
            means = [self.mean(metric, without_small=without) for metric in metrics]
            rows.append([title, "", *("n/a" if mean is None else f"{100 * mean:.1f}" for mean in means)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.insert(1, "-" * max(map(len, lines)))
        if self.missing:
            total = number + len(self.missing)
            lines.append(
                f"NOT {self.suite}: {len(self.missing)} of {total} sets are missing: {', '.join(self.missing)}"
            )
        for name, categories in self.renamed.items():
            lines.append(f"{name}: its file names {', '.join(categories)}, which GLIP and mmdetection name otherwise")
        lines += sorted({result.protocol.line() for result in self.results.values()})
        lines.append("figures x 100; [95% bootstrap interval over images]")
        return "\n".join(lines)


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
    found: dict[OdinwSet, Path] = {}
    missing = []
    for one in odinw_sets(suite):
        files = [folder / place / one.annotations for place in (one.path, one.name)]
        if file := next((file for file in files if file.is_file()), None):
            found[one] = file
        else:
            missing.append(one.name)
    if not found:
        raise DataError(f"{folder}: expected sets of {suite}, such as {missing[0]}/, found none of the {len(missing)}")
    return found, tuple(missing)


def read_odinw(one: OdinwSet, file: Path) -> CocoDataset:
    """A set with its images, categories named as in the file."""
    folder = file.parents[len(Path(one.annotations).parts) - 1]
    return read_coco(file, image_dir=folder / one.images)


def evaluate_suite(folder: Path, suite: Suite, evaluate: Callable[[OdinwSet, Path], DetectionResult]) -> OdinwResult:
    """`evaluate(set, annotation file)` of every set of a suite that lies in `folder`, all under one protocol."""
    found, missing = find_odinw(folder, suite)
    results = {one.name: evaluate(one, file) for one, file in found.items()}
    renamed = {
        one.name: sorted(names)
        for one, file in found.items()
        if (names := [name for name in results[one.name].per_category if normalize_label(name) not in one.known])
    }
    return OdinwResult(suite=suite, results=results, missing=missing, renamed=renamed)


def _cell(result: DetectionResult, metric: str) -> str:
    value, interval = 100 * result.metrics[metric], result.interval.get(metric)
    return f"{value:.1f}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")
