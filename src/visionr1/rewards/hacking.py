"""Watching for reward hacking: what a policy does when it finds an easier way to the reward than detecting objects.

The signs are those that the papers and the users of their code met: many boxes where a few are right (what VLM-R1's
length penalty is for), copies of one box, a box around the whole image, format errors that stay, groups without spread
(which teach nothing), recall bought with boxes that barely overlap (what Vision-R1's precision is for), jumps of KL.

`count` and `measure` turn a step's scores into numbers for its row in metrics.jsonl; `signs` reads those rows, in
training or afterwards. Thresholds are ours: no paper states any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from visionr1.boxes import Array, box_area, iou_matrix
from visionr1.rewards.score import Score
from visionr1.samples import GroundTruth

DUPLICATE_IOU = 0.9
WHOLE_IMAGE = 0.9
WINDOW = 20

Row = Mapping[str, Any]
Counts = Mapping[str, float]
Value = Callable[[Sequence[Row], Sequence[Row]], float | None]
"""Of the run's first window of rows and the one looked at; None where the rows do not tell."""


@dataclass(frozen=True, slots=True)
class Sign:
    """One sign of reward hacking, and whether a run shows it.

    `value` is of the last window of steps, `worst` the largest of any window; `steps` are the last steps of the windows
    beyond `threshold`.
    """

    name: str
    meaning: str
    threshold: float
    value: float
    worst: float
    steps: tuple[int, ...]

    @property
    def raised(self) -> bool:
        """Whether the run shows the sign in its last window."""
        return self.value > self.threshold

    def line(self) -> str:
        """The sign in one line of text."""
        when = f", first at step {self.steps[0]}" if self.steps else ""
        return f"{self.meaning}: {self.value:.3g} (sign above {self.threshold:.3g}){when}"


@dataclass(frozen=True, slots=True)
class Rule:
    """How a sign is read from a window of metrics."""

    name: str
    meaning: str
    threshold: float
    value: Value


def count(score: Score, truth: GroundTruth) -> Counts:
    """What `measure` adds up, of one completion."""
    ious = [pair.iou for pair in score.pairs if pair.valid]
    return {
        "predicted": score.reply.num_predicted,
        "duplicates": num_duplicates(score.reply.boxes.xyxy),
        "whole_image": _num_whole_image(score, truth),
        "format_errors": not score.reply.well_formed,
        "valid": len(ious),
        "iou": sum(ious),
    }


def measure(counts: Sequence[Counts]) -> dict[str, float | None]:
    """A step's numbers, over all its completions.

    `duplicates` and `whole_image` are shares of the predicted boxes: those with IoU > 0.9 to an earlier box of the
    completion, and those that fill 90% of an image in which no true box does. `format_errors` is the share of
    completions with any; `valid_iou` the mean IoU of valid pairs, None if there is none.
    """
    total = {name: sum(count[name] for count in counts) for name in counts[0]}
    return {
        "watch/duplicates": total["duplicates"] / max(total["predicted"], 1),
        "watch/whole_image": total["whole_image"] / max(total["predicted"], 1),
        "watch/format_errors": total["format_errors"] / len(counts),
        "watch/valid_iou": total["iou"] / total["valid"] if total["valid"] else None,
    }


def signs(rows: Sequence[Row], window: int = WINDOW) -> tuple[Sign, ...]:
    """Every sign that the rows of metrics.jsonl can tell of, in the order of `RULES`, raised or not.

    Values are taken over `window` consecutive rows (fewer if the run is shorter); rows of SFT have none.
    """
    rows = [row for row in rows if row.get("boxes_per_completion") is not None]
    window = min(window, len(rows))
    found = []
    for rule in RULES if rows else ():
        values = {
            rows[end - 1]["step"]: value
            for end in range(window, len(rows) + 1)
            if (value := rule.value(rows[:window], rows[end - window : end])) is not None
        }
        if values:
            beyond = tuple(step for step, value in values.items() if value > rule.threshold)
            last = list(values.values())[-1]
            found.append(Sign(rule.name, rule.meaning, rule.threshold, last, max(values.values()), beyond))
    return tuple(found)


def num_duplicates(xyxy: Array) -> int:
    """How many of P boxes (P, 4) have IoU > 0.9 with an earlier one."""
    if len(xyxy) < 2:
        return 0
    return int((np.tril(iou_matrix(xyxy, xyxy), k=-1) > DUPLICATE_IOU).any(axis=1).sum())


def _num_whole_image(score: Score, truth: GroundTruth) -> int:
    image = truth.size_wh[0] * truth.size_wh[1] * WHOLE_IMAGE
    if (box_area(truth.boxes.xyxy) >= image).any():
        return 0
    return int((box_area(score.reply.boxes.xyxy) >= image).sum())


def _mean(rows: Sequence[Row], key: str) -> float | None:
    values = [row[key] for row in rows if row.get(key) is not None]
    return sum(values) / len(values) if values else None


def _window_mean(key: str) -> Value:
    return lambda first, rows: _mean(rows, key)


def _boxes_per_object(first: Sequence[Row], rows: Sequence[Row]) -> float | None:
    predicted, true = _mean(rows, "boxes_per_completion"), _mean(rows, "true_boxes")
    return predicted / true if predicted is not None and true else None


def _iou_paid_for_recall(first: Sequence[Row], rows: Sequence[Row]) -> float | None:
    """By how much the valid pairs' IoU fell since the run began, where recall rose; else 0."""
    recall_before, recall = _mean(first, "reward/recall"), _mean(rows, "reward/recall")
    iou_before, iou = _mean(first, "watch/valid_iou"), _mean(rows, "watch/valid_iou")
    if recall_before is None or recall is None or iou_before is None or iou is None:
        return None
    return max(0.0, iou_before - iou) if recall > recall_before else 0.0


def _kl_jump(first: Sequence[Row], rows: Sequence[Row]) -> float | None:
    """The window's largest KL over its median; 0 where no KL is above 0.01."""
    values = [row["kl"] for row in rows if row.get("kl") is not None]
    if not values:
        return None
    return max(values) / max(median(values), 1e-6) if max(values) > 0.01 else 0.0


RULES = (
    Rule("boxes_beyond_objects", "predicted boxes for each true box", 1.5, _boxes_per_object),
    Rule("duplicates", "share of boxes that repeat another", 0.05, _window_mean("watch/duplicates")),
    Rule("whole_image", "share of boxes around the whole image", 0.05, _window_mean("watch/whole_image")),
    Rule("format_errors", "share of completions with a format error", 0.1, _window_mean("watch/format_errors")),
    Rule("no_spread", "share of groups without spread", 0.5, _window_mean("groups_without_spread")),
    Rule("recall_for_iou", "IoU of valid pairs given up while recall rose", 0.03, _iou_paid_for_recall),
    Rule("kl_jump", "largest KL of a step over the median", 5.0, _kl_jump),
)
