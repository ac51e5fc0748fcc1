"""Criteria that a recipe adds to any preset, each by its weight: `[[reward.parts]]`.

A criterion is a name and a function that takes any of `text`, `reply`, `truth` and `stage`, by these names, and returns
a number, by custom in [0, 1]: `visionr1.rewards.published.vlm_r1:repetition` and `my_file.py:my_function` alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import field_validator

from visionr1.dialects import Dialect
from visionr1.errors import RecipeError
from visionr1.registry import Registry
from visionr1.rewards.criteria import count, dual_format
from visionr1.rewards.score import Score, Scorer
from visionr1.rewards.stages import BEGINNER, Stage
from visionr1.rewards.user import ScoringCall, check_number, check_part_name, parse_reply, scoring_call
from visionr1.samples import GroundTruth
from visionr1.settings import Section


@dataclass(frozen=True, slots=True)
class Criterion:
    """A part of a reward: a name, and a function that scores a completion."""

    name: str
    function: Callable[..., float]


CRITERION = (Criterion("count", count), Criterion("format", dual_format))


def _check_criterion(candidate: Any) -> Criterion:
    """Return what a user's `module:object` names as a criterion."""
    if isinstance(candidate, Criterion):
        return candidate
    if not callable(candidate):
        raise RecipeError(f"{candidate!r:.80} is no criterion: expected a function of text, reply, truth or stage")
    name = getattr(candidate, "__name__", type(candidate).__name__)
    return Criterion(name, candidate)


CRITERIA: Registry[Criterion] = Registry(
    "criterion", packages=("visionr1.rewards",), attribute="CRITERION", check=_check_criterion
)


class RewardPart(Section):
    """Add a criterion to a preset."""

    name: str
    """"count", "format", or a function of your own: "module:function" or "file.py:function"."""
    weight: float = 1.0
    """How much it counts; below 0 it is a penalty."""
    shown_as: str = ""
    """Its name in metrics and rows, by default that of the criterion."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        criterion = CRITERIA.resolve(name)
        scoring_call(f"criterion {name}", criterion.function)  # raises RecipeError
        return name


@dataclass(frozen=True, slots=True)
class WeightedCriterion:
    """A criterion in use: the name it is shown by, its weight, and the call of its function."""

    name: str
    weight: float
    call: ScoringCall


@dataclass(frozen=True, slots=True)
class RewardWithParts:
    """Score completions by a reward, and by criteria that are added to it."""

    reward: Scorer
    added: tuple[WeightedCriterion, ...]
    dialect: Dialect

    @property
    def weights(self) -> Mapping[str, float]:
        """The weights of the reward and of the criteria; none where the reward's total is no weighted sum."""
        if not self.reward.weights:
            return {}
        weights = dict(self.reward.weights)
        for criterion in self.added:
            weights[criterion.name] = criterion.weight
        return weights

    @property
    def maximum(self) -> float | None:
        """The largest total there is, if every criterion is in [0, 1]; None if it is not known."""
        if self.reward.maximum is None:
            return None
        gains = [criterion.weight for criterion in self.added if criterion.weight > 0]
        return self.reward.maximum + sum(gains)

    def score(self, text: str, truth: GroundTruth, stage: Stage = BEGINNER) -> Score:
        """Score one completion."""
        score = self.reward.score(text, truth, stage)

        # Parsing takes time, so it is done only where a criterion reads the reply and the reward has not parsed it.
        reply = score.reply
        if reply is None and any("reply" in criterion.call.arguments for criterion in self.added):
            reply = parse_reply(self.dialect, text, truth)

        total = score.total
        parts = dict(score.parts)
        for criterion in self.added:
            if criterion.name in parts:
                raise RecipeError(
                    f"the reward has a part {criterion.name!r} of its own; set shown_as for the added one"
                )
            value = criterion.call(text, reply, truth, stage)
            parts[criterion.name] = check_number(f"criterion {criterion.name}", value)
            total += criterion.weight * parts[criterion.name]
        return replace(score, total=check_number("the reward with its added parts", total), parts=parts)


def add_parts(reward: Scorer, parts: Sequence[RewardPart], dialect: Dialect) -> Scorer:
    """Return `reward` with `parts` added. Raises RecipeError if one does not exist or has a name that is taken."""
    added: list[WeightedCriterion] = []
    taken = set(reward.weights)
    for part in parts:
        # The parts of a reward without weights are known only once it has scored: RewardWithParts checks those.
        criterion = CRITERIA.resolve(part.name)
        name = part.shown_as or criterion.name
        check_part_name(f"criterion {part.name}", name)
        if name in taken:
            raise RecipeError(f"the reward has a part {name!r} already; set shown_as for the added one")
        taken.add(name)
        call = scoring_call(f"criterion {name}", criterion.function)
        added.append(WeightedCriterion(name, part.weight, call))

    if not added:
        return reward
    return RewardWithParts(reward, tuple(added), dialect)
