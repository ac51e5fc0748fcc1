"""Preset `paper`: format + recall + precision of Vision-R1 (Eq. 7), with what the paper leaves open as options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import Field, PlainValidator, field_validator

from visionr1.dialects import Dialect, get_dialect
from visionr1.errors import RecipeError
from visionr1.rewards.criteria import (
    Denominator,
    MatchingRule,
    count,
    differentiate,
    dual_format,
    match,
    precision,
    recall,
    total,
)
from visionr1.rewards.presets import Preset
from visionr1.rewards.score import Score
from visionr1.rewards.stages import BEGINNER, Stage
from visionr1.samples import GroundTruth, Reply
from visionr1.settings import Section

CRITERIA = ("format", "recall", "precision", "count")
PAPER_WEIGHTS: Mapping[str, float] = MappingProxyType({"format": 1.0, "recall": 1.0, "precision": 1.0})


class PaperOptions(Section):
    """Choose what the paper leaves open; `criteria.py` has the reasons behind the defaults."""

    weights: Mapping[str, float] = Field(default_factory=lambda: dict(PAPER_WEIGHTS))
    """The criteria that count, and how much: format, recall, precision, count."""
    matching: MatchingRule = "iou"
    """How predicted boxes find their true ones (Eq. 3)."""
    precision_over: Denominator = "predicted"
    """M of Eq. 6."""
    wrong_label_voids: bool = False
    """A pair of different labels is not valid."""
    differentiation: bool = True
    """f of Eq. 8."""

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, weights: Mapping[str, float]) -> Mapping[str, float]:
        unknown = set(weights) - set(CRITERIA)
        if unknown:
            raise RecipeError(f"unknown criteria {sorted(unknown)}; known: {', '.join(CRITERIA)}")

        # A weight of NaN is refused too.
        wrong = {name: weight for name, weight in weights.items() if not 0 <= weight < math.inf}
        if wrong:
            raise RecipeError(f"the weights of criteria must be finite and not negative, but found {wrong}")
        if not any(weights.values()):
            raise RecipeError(f"a reward needs a criterion of a weight above 0, but found {dict(weights)}")
        return weights


class Reward(PaperOptions):
    """Score completions in `dialect` as the paper does. Raises RecipeError for an option that does not exist."""

    dialect: Annotated[Dialect, PlainValidator(lambda dialect: dialect)] = Field(
        default_factory=lambda: get_dialect("qwen25")
    )

    @property
    def maximum(self) -> float:
        """The largest total there can be."""
        return sum(self.weights.values())

    def score(self, text: str, truth: GroundTruth, stage: Stage = BEGINNER) -> Score:
        """Score one completion. Never raises on its text."""
        reply = self.dialect.parse(
            text,
            size_wh=truth.size_wh,
            input_size_wh=truth.input_size_wh,
            categories=truth.categories,
        )
        return self.score_reply(reply, truth, stage)

    def score_reply(self, reply: Reply, truth: GroundTruth, stage: Stage = BEGINNER) -> Score:
        """Score what was parsed already."""
        pairs = match(reply, truth, stage, self.matching, self.wrong_label_voids)
        ious = [pair.iou for pair in pairs if pair.valid]
        num_true = len(truth.boxes)

        # M, the number of boxes that precision divides by.
        over = reply.num_predicted
        if self.precision_over == "matched":
            over = len(pairs)
        elif self.precision_over == "valid":
            over = len(ious)

        # Recall and precision before f (Eq. 5, 6); where there is no object, the empty reply is right.
        if num_true:
            plain_recall = recall(pairs, num_true)
            plain_precision = precision(ious, over)
        else:
            plain_recall = plain_precision = float(reply.num_predicted == 0 and reply.well_formed)

        # The same after f (Eq. 8).
        final_recall = plain_recall
        final_precision = plain_precision
        if self.differentiation and num_true:
            final_recall = differentiate(plain_recall, stage)
            final_precision = precision([differentiate(iou, stage) for iou in ious], over)

        # The total (Eq. 7) is of the criteria that have a weight.
        criteria = {"format": dual_format(reply), "recall": final_recall, "precision": final_precision}
        if "count" in self.weights:
            criteria["count"] = count(reply, truth)
        parts = {name: criteria[name] for name in self.weights}
        return Score(
            total=total(parts, self.weights),
            parts=parts,
            reply=reply,
            num_predicted=reply.num_predicted,
            pairs=pairs,
            stage=stage,
            plain_recall=plain_recall,
            plain_precision=plain_precision,
        )


def _build(options: PaperOptions, dialect: Dialect) -> Reward:
    return Reward(**dict(options), dialect=dialect)


PRESET = Preset("paper", options=PaperOptions, build=_build, has_adaptive_stages=True)
