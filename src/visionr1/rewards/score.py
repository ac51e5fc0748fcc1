"""Composing criteria into one reward, and the record of why a completion got it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import get_args

from visionr1.dialects import Dialect, get_dialect
from visionr1.errors import RecipeError
from visionr1.rewards.criteria import (
    Denominator,
    Matching,
    Pair,
    count,
    differentiate,
    dual_format,
    match,
    precision,
    recall,
    total,
)
from visionr1.rewards.stages import BEGINNER, Stage
from visionr1.samples import GroundTruth, Reply

CRITERIA = ("format", "recall", "precision", "count")
PAPER_WEIGHTS: Mapping[str, float] = MappingProxyType({"format": 1.0, "recall": 1.0, "precision": 1.0})


@dataclass(frozen=True, slots=True)
class Score:
    """What a completion got, and why.

    `total` is the weighted sum; `parts` are unweighted, each in [0, 1]. `plain_recall` and `plain_precision` are Eq. 5
    and Eq. 6 before f. `pairs` index into `reply.boxes` and the true boxes.
    """

    total: float
    parts: Mapping[str, float]
    stage: Stage
    pairs: tuple[Pair, ...]
    reply: Reply
    plain_recall: float
    plain_precision: float

    @property
    def label_accuracy(self) -> float | None:
        """The share of valid pairs whose label is right; None without a valid pair."""
        valid = [pair for pair in self.pairs if pair.valid]
        return sum(pair.label_correct for pair in valid) / len(valid) if valid else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardOptions:
    """What preset `paper` leaves open; see `criteria.py` for the choices behind the defaults.

    Raises RecipeError for an option that does not exist.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: dict(PAPER_WEIGHTS))
    """Which criteria count, and how much: format, recall, precision, count."""
    matching: Matching = "iou"
    """How predicted boxes find their true ones (Eq. 3)."""
    precision_over: Denominator = "predicted"
    """M of Eq. 6."""
    wrong_label_voids: bool = False
    """A pair of different labels is not valid."""
    differentiation: bool = True
    """f of Eq. 8."""

    def __post_init__(self) -> None:
        if unknown := set(self.weights) - set(CRITERIA):
            raise RecipeError(f"unknown criteria {sorted(unknown)}; known: {', '.join(CRITERIA)}")
        if wrong := {name: weight for name, weight in self.weights.items() if not 0 <= weight < math.inf}:
            raise RecipeError(f"the weights of criteria must be finite and not negative, but found {wrong}")
        if not any(self.weights.values()):
            raise RecipeError(f"a reward needs a criterion of a weight above 0, but found {dict(self.weights)}")
        for name, value, known in (
            ("matching", self.matching, get_args(Matching)),
            ("precision_over", self.precision_over, get_args(Denominator)),
        ):
            if value not in known:
                raise RecipeError(f"unknown {name} {value!r}; known: {', '.join(known)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward(RewardOptions):
    """Preset `paper`: format + recall + precision (Eq. 7), with the paper's options."""

    dialect: Dialect = field(default_factory=lambda: get_dialect("qwen25"))

    @classmethod
    def of(cls, options: RewardOptions, dialect: Dialect) -> Reward:
        """The reward with these options for completions in `dialect`."""
        return cls(dialect=dialect, **{option.name: getattr(options, option.name) for option in fields(RewardOptions)})

    @property
    def maximum(self) -> float:
        """The largest total there can be."""
        return sum(self.weights.values())

    def score(self, completion: str, truth: GroundTruth, *, stage: Stage = BEGINNER) -> Score:
        """Score one completion. Never raises on its text."""
        reply = self.dialect.parse(
            completion,
            size_wh=truth.size_wh,
            input_size_wh=truth.input_size_wh,
            categories=truth.categories,
        )
        return self.score_reply(reply, truth, stage=stage)

    def score_reply(self, reply: Reply, truth: GroundTruth, *, stage: Stage = BEGINNER) -> Score:
        """Score what was parsed already."""
        pairs = match(reply, truth, stage, self.matching, self.wrong_label_voids)
        if not len(truth.boxes):
            right = float(reply.num_predicted == 0 and reply.well_formed)
            recall_part = precision_part = plain_recall = plain_precision = right
        else:
            ious = [pair.iou for pair in pairs if pair.valid]
            over = {"predicted": reply.num_predicted, "matched": len(pairs), "valid": len(ious)}[self.precision_over]
            plain_recall = recall(pairs, len(truth.boxes))
            plain_precision = precision(ious, over)
            recall_part, precision_part = plain_recall, plain_precision
            if self.differentiation:
                recall_part = differentiate(plain_recall, stage)
                precision_part = precision([differentiate(iou, stage) for iou in ious], over)
        computed = {
            "format": dual_format(reply),
            "recall": recall_part,
            "precision": precision_part,
        }
        if "count" in self.weights:
            computed["count"] = count(reply, truth)
        parts = {name: computed[name] for name in self.weights}
        return Score(total(parts, self.weights), parts, stage, pairs, reply, plain_recall, plain_precision)
