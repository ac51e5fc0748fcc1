"""`visionr1 data check`: is a data set fit to train on, row by row?

Every image is decoded, and with a model its processor is asked for it. Every truth is rendered in a dialect, parsed
back and scored: it must come back whole and in right format. Coordinates are rounded to the dialect's grid, which can
push small boxes below the IoU that a stage asks for; no reply can do better, so these are counted and are no failure. A
label that the dialect cannot write is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from visionr1.boxes import iou_matrix
from visionr1.data.dataset import BoxDataset
from visionr1.data.oddities import find_faults, find_notes
from visionr1.dialects import Dialect
from visionr1.dialects.base import MAX_BOXES
from visionr1.errors import DataError, naming
from visionr1.rewards import Reward, Score
from visionr1.rewards.stages import ADVANCED, BEGINNER
from visionr1.samples import Boxes, GroundTruth, Reply, Sample, Size, normalize_label

MOST_SCORED = 2000
"""Boxes of one image that are scored."""
PAIRS_AT_ONCE = 256
THRESHOLDS = (BEGINNER.xi0, BEGINNER.xi2, ADVANCED.xi2)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCheck:
    """Findings of the check. `failures` name the samples that cannot be trained on, `faults` are of the whole set."""

    images: int
    boxes: int
    images_without_boxes: int
    largest_count: int
    """Boxes of the fullest image."""
    longest_reply: int
    """Characters of the longest rendered truth."""
    below: Mapping[float, int]
    """Boxes that rounding pushes below each of THRESHOLDS."""
    mean_total: float
    """Mean reward of the rendered truths in the beginner stage, of 3 at most."""
    per_category: Mapping[str, int]
    failures: tuple[str, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    """What should be looked at (`visionr1.data.oddities`)."""

    def lines(self) -> list[str]:
        """Return the findings as lines of text."""
        lines = [
            f"{self.images} images, {self.images_without_boxes} of them without boxes; {self.boxes} boxes, "
            f"{self.boxes / self.images:.1f} an image, {self.largest_count} at most"
        ]
        for category, count in self.per_category.items():
            lines.append(f"  {category}: {count}")
        lines.append(
            f"the true boxes as a reply score {self.mean_total:.4f} of 3 on average; "
            f"the longest has {self.longest_reply} characters"
        )
        rounded = ", ".join(f"{count} boxes below IoU {iou:g}" for iou, count in self.below.items())
        lines.append(f"rounding to the dialect's grid leaves {rounded}")
        for note in self.notes:
            lines.append(f"NOTE {note}")
        for failure in (*self.faults, *self.failures):
            lines.append(f"FAILED {failure}")
        return lines


def check_data(
    dataset: BoxDataset, dialect: Dialect, *, input_size: Callable[[Sample], Size] = lambda sample: sample.size_wh
) -> DataCheck:
    """Check every sample. `input_size` gives what a model's processor makes of its image, by default the same size.

    It raises DataError for an image that cannot be fed to the model.
    """
    reward = Reward(dialect=dialect)
    failures: list[str] = []
    totals: list[float] = []
    reply_lengths: list[int] = []
    below = dict.fromkeys(THRESHOLDS, 0)
    for sample in dataset.samples:
        try:
            truth = _load_truth(sample, input_size)
            text = _render_truth(sample, truth, dialect)
        except DataError as error:
            failures.append(str(error))
            continue

        # The truth as a reply, read and scored as one that a model wrote.
        reply = dialect.parse(
            text, size_wh=truth.size_wh, input_size_wh=truth.input_size_wh, categories=truth.categories
        )
        totals.append(_score_first_boxes(reward, reply, truth).total)
        reply_lengths.append(len(text))
        if not reply.well_formed or not _have_equal_labels(reply.boxes, sample.truth):
            failures.append(_describe_loss(sample, reply))
            continue

        # It came back whole and in order, so box by box shows what rounding does.
        ious = _iou_of_pairs(reply.boxes, sample.truth)
        for threshold in THRESHOLDS:
            below[threshold] += int((ious < threshold).sum())

    box_counts = [len(sample.truth) for sample in dataset.samples]
    return DataCheck(
        images=len(box_counts),
        boxes=sum(box_counts),
        images_without_boxes=box_counts.count(0),
        largest_count=max(box_counts),
        longest_reply=max(reply_lengths, default=0),
        below=below,
        mean_total=sum(totals) / max(1, len(totals)),
        per_category=_count_boxes(dataset),
        failures=tuple(failures),
        faults=tuple(find_faults(dataset)),
        notes=tuple(find_notes(dataset)),
    )


def _load_truth(sample: Sample, input_size: Callable[[Sample], Size]) -> GroundTruth:
    """Decode the image of a sample as training does, and return its truth; DataError names the sample."""
    sample.load_image()
    with naming(f"sample {sample.id}"):
        return sample.ground_truth(input_size(sample))


def _render_truth(sample: Sample, truth: GroundTruth, dialect: Dialect) -> str:
    """Return the true boxes as a reply; DataError, which names the sample, if the dialect cannot write a label."""
    try:
        return dialect.render(sample.truth, size_wh=truth.size_wh, input_size_wh=truth.input_size_wh)
    except ValueError as error:
        remedy = "rename the category, or choose another dialect"
        raise DataError(f"sample {sample.id}: {error}; {remedy}") from error


def _score_first_boxes(reward: Reward, reply: Reply, truth: GroundTruth) -> Score:
    """Score the first MOST_SCORED boxes: to match thousands of equal ones takes their square in memory, and longer."""
    if len(truth.boxes) <= MOST_SCORED:
        return reward.score_reply(reply, truth)
    first = range(MOST_SCORED)
    few = replace(reply, boxes=reply.boxes.take(first[: len(reply.boxes)]))
    return reward.score_reply(few, replace(truth, boxes=truth.boxes.take(first)))


def _iou_of_pairs(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Return the IoU (N,) of each box of `a` with the one of `b` at the same place."""
    parts = [np.zeros(0)]
    for start in range(0, len(a), PAIRS_AT_ONCE):
        end = start + PAIRS_AT_ONCE
        parts.append(iou_matrix(a.xyxy[start:end], b.xyxy[start:end]).diagonal())
    return np.concatenate(parts)


def _have_equal_labels(a: Boxes, b: Boxes) -> bool:
    """Return True if the boxes have the same labels in the same order, as labels are compared."""
    return list(map(normalize_label, a.labels)) == list(map(normalize_label, b.labels))


def _describe_loss(sample: Sample, reply: Reply) -> str:
    """Return how the rendered truth differs from what was read back."""
    if len(sample.truth) > MAX_BOXES:
        return (
            f"sample {sample.id}: {len(sample.truth)} true boxes, and of a reply {MAX_BOXES} are read, so none can be "
            "right: cut the image into parts, or leave it out (docs/faq.md#an-image-has-more-than-1000-boxes)"
        )
    kinds = [str(fault.kind) for fault in reply.faults]
    return (
        f"sample {sample.id}: {len(sample.truth)} true boxes were rendered, "
        f"{len(reply.boxes)} came back, faults: {kinds}"
    )


def _count_boxes(dataset: BoxDataset) -> dict[str, int]:
    """Return the number of boxes of each category, in the order of the table, also of those without any."""
    counts = dict.fromkeys(dataset.table.categories, 0)
    for sample in dataset.samples:
        for label in sample.truth.labels:
            counts[label] += 1
    return counts
