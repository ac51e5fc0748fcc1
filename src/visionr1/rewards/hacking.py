"""Watch for reward hacking: a policy that finds an easier way to the reward than detecting objects.

The signs are those that the papers and the users of their code met: many boxes where a few are right (what VLM-R1's
length penalty is for), copies of one box, a box around the whole image, format errors that stay, groups without spread
(which teach nothing), recall bought with boxes that barely overlap (what Vision-R1's precision is for), jumps of KL.

`count` and `measure` turn a step's scores into numbers for its row in metrics.jsonl; `signs` reads those rows, in
training or afterwards. Each uses what the reward tells: without matched pairs there is no IoU, without a parsed reply
no duplicate, and the sign is left out. Thresholds are ours: no paper states any.
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
"""The share of the image's area from which on a box is taken to be around all of it."""
WINDOW = 20
"""Steps that the value of a sign is taken over: one step is too noisy."""

MetricsRow = Mapping[str, Any]
Counts = Mapping[str, float]
WindowValue = Callable[[Sequence[MetricsRow], Sequence[MetricsRow]], float | None]
"""The value of a sign, of the run's first window of rows and the one looked at; None where the rows do not tell."""


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
        """True if the run shows the sign in its last window."""
        return self.value > self.threshold

    def line(self) -> str:
        """Return the sign in one line of text."""
        line = f"{self.meaning}: {self.value:.3g} (sign above {self.threshold:.3g})"
        if self.steps:
            line += f", first at step {self.steps[0]}"
        return line


@dataclass(frozen=True, slots=True)
class Rule:
    """Read one sign from a window of metrics."""

    name: str
    meaning: str
    threshold: float
    value: WindowValue


def count(score: Score, truth: GroundTruth) -> Counts:
    """Count in one completion what `measure` adds up, as far as its score tells."""
    counts: dict[str, float] = {}

    # Boxes as written, for rewards that parse a reply.
    if score.reply is not None:
        counts["predicted"] = score.reply.num_predicted
        counts["duplicates"] = num_duplicates(score.reply.boxes.xyxy)
        counts["whole_image"] = _num_whole_image(score.reply.boxes.xyxy, truth)
        counts["format_errors"] = not score.reply.well_formed

    # Overlap, for rewards that match boxes.
    if score.pairs is not None:
        ious = [pair.iou for pair in score.pairs if pair.valid]
        counts["valid"] = len(ious)
        counts["iou"] = sum(ious)
    return counts


def measure(counts: Sequence[Counts]) -> dict[str, float | None]:
    """Return a step's numbers, over all completions whose scores tell them.

    `duplicates` and `whole_image` are shares of the predicted boxes: those with IoU > 0.9 to an earlier box of the
    completion, and those that fill 90% of an image in which no true box does. `format_errors` is the share of
    completions with any; `valid_iou` the mean IoU of valid pairs, None if there is none.
    """
    measured: dict[str, float | None] = {}

    # A step may mix rewards, so each number is over the completions that have it.
    with_reply = [count for count in counts if "predicted" in count]
    if with_reply:
        num_predicted = max(_total(with_reply, "predicted"), 1)
        measured["watch/duplicates"] = _total(with_reply, "duplicates") / num_predicted
        measured["watch/whole_image"] = _total(with_reply, "whole_image") / num_predicted
        measured["watch/format_errors"] = _total(with_reply, "format_errors") / len(with_reply)

    with_pairs = [count for count in counts if "valid" in count]
    if with_pairs:
        measured["watch/valid_iou"] = None
        num_valid = _total(with_pairs, "valid")
        if num_valid:
            measured["watch/valid_iou"] = _total(with_pairs, "iou") / num_valid
    return measured


def signs(rows: Sequence[MetricsRow], window: int = WINDOW) -> tuple[Sign, ...]:
    """Return every sign that the rows of metrics.jsonl can tell of, in the order of `RULES`, raised or not.

    Values are taken over `window` consecutive rows (fewer if the run is shorter); rows of SFT have none.
    """
    rows = [row for row in rows if "groups_without_spread" in row]  # those of GRPO
    if not rows:
        return ()
    window = min(window, len(rows))

    all_signs = []
    for rule in RULES:
        # Take the rule's value of each window, by the window's last step.
        values: dict[int, float] = {}
        for end in range(window, len(rows) + 1):
            value = rule.value(rows[:window], rows[end - window : end])
            if value is not None:
                values[rows[end - 1]["step"]] = value
        if not values:
            continue

        sign = Sign(
            name=rule.name,
            meaning=rule.meaning,
            threshold=rule.threshold,
            value=list(values.values())[-1],
            worst=max(values.values()),
            steps=tuple(step for step, value in values.items() if value > rule.threshold),
        )
        all_signs.append(sign)
    return tuple(all_signs)


def num_duplicates(xyxy: Array) -> int:
    """Count the boxes among P (P, 4) that have IoU > 0.9 with an earlier one."""
    if len(xyxy) < 2:
        return 0
    iou_with_earlier = np.tril(iou_matrix(xyxy, xyxy), k=-1)  # below the diagonal
    return int((iou_with_earlier > DUPLICATE_IOU).any(axis=1).sum())


def _num_whole_image(xyxy: Array, truth: GroundTruth) -> int:
    """Count the boxes (P, 4) that fill an image in which no true box does."""
    area = truth.size_wh[0] * truth.size_wh[1] * WHOLE_IMAGE

    # Where an object fills the image, such a box is right.
    if (box_area(truth.boxes.xyxy) >= area).any():
        return 0
    return int((box_area(xyxy) >= area).sum())


def _total(counts: Sequence[Counts], name: str) -> float:
    return sum(count[name] for count in counts)


def _values(rows: Sequence[MetricsRow], key: str) -> list[float]:
    """Return a metric of the rows that have it: a reward need not tell it, nor each step."""
    return [row[key] for row in rows if row.get(key) is not None]


def _mean(rows: Sequence[MetricsRow], key: str) -> float | None:
    values = _values(rows, key)
    if not values:
        return None
    return sum(values) / len(values)


def _window_mean(key: str) -> WindowValue:
    def window_mean(first: Sequence[MetricsRow], rows: Sequence[MetricsRow]) -> float | None:
        return _mean(rows, key)

    return window_mean


def _boxes_per_object(first: Sequence[MetricsRow], rows: Sequence[MetricsRow]) -> float | None:
    """Return predicted boxes for each true one."""
    predicted = _mean(rows, "boxes_per_completion")
    true = _mean(rows, "true_boxes")
    if predicted is None or not true:
        return None
    return predicted / true


def _iou_paid_for_recall(first: Sequence[MetricsRow], rows: Sequence[MetricsRow]) -> float | None:
    """Return by how much the valid pairs' IoU fell since the run began, where recall rose; else 0."""
    recall_before = _mean(first, "reward/recall")
    recall = _mean(rows, "reward/recall")
    iou_before = _mean(first, "watch/valid_iou")
    iou = _mean(rows, "watch/valid_iou")
    if recall_before is None or recall is None or iou_before is None or iou is None:
        return None

    # Where recall fell too, the policy is worse, but has gained nothing by it.
    if recall <= recall_before:
        return 0.0
    return max(0.0, iou_before - iou)


def _kl_jump(first: Sequence[MetricsRow], rows: Sequence[MetricsRow]) -> float | None:
    """Return the window's largest KL over its median; 0 where no KL is above 0.01."""
    values = _values(rows, "kl")
    if not values:
        return None

    # Near the reference any change of KL is large beside the median.
    largest = max(values)
    if largest > 0.01:
        return largest / max(median(values), 1e-6)
    return 0.0


RULES = (
    Rule("boxes_beyond_objects", "predicted boxes for each true box", 1.5, _boxes_per_object),
    Rule("duplicates", "share of boxes that repeat another", 0.05, _window_mean("watch/duplicates")),
    Rule("whole_image", "share of boxes around the whole image", 0.05, _window_mean("watch/whole_image")),
    Rule("format_errors", "share of completions with a format error", 0.1, _window_mean("watch/format_errors")),
    Rule("no_spread", "share of groups without spread", 0.5, _window_mean("groups_without_spread")),
    Rule("recall_for_iou", "IoU of valid pairs given up while recall rose", 0.03, _iou_paid_for_recall),
    Rule("kl_jump", "largest KL of a step over the median", 5.0, _kl_jump),
)
