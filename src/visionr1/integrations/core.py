"""What every host's adapter calls: one completion and one JSON ground truth in, a total with its parts out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from visionr1.dialects import get_dialect
from visionr1.errors import RecipeError
from visionr1.integrations.ground_truth import HostTruth, from_json
from visionr1.rewards import FixedStages, Reward, Score
from visionr1.rewards.published.vision_r1_release import ReleaseReward, ReleaseScore
from visionr1.rewards.published.vlm_r1 import OVD_WEIGHTS, VlmR1Reward, VlmR1Score
from visionr1.rewards.score import PAPER_WEIGHTS

HostScore = Score | ReleaseScore | VlmR1Score
Scorer = Callable[[str, HostTruth, float, float], HostScore]

WEIGHTS: Mapping[str, Mapping[str, float]] = {"paper": PAPER_WEIGHTS, "release": PAPER_WEIGHTS, "vlm_r1": OVD_WEIGHTS}
"""Every preset with the parts whose weighted sum is its total; all weights are 1."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A completion's `total`, its unweighted `parts` (those that make the total), and the largest total there is."""

    total: float
    parts: Mapping[str, float]
    maximum: float


def score(completion: str, ground_truth: str, *, step: float = 1.0, progress: float | None = None) -> Scored:
    """Score one completion. Never raises on its text.

    `step` is the paper's STEP, the share of training after which the thresholds tighten (1: never). `progress` is the
    share done; where the host does not know it, the ground truth's own is taken. With preset `release`, a step below 1
    stands for its `--adaptive`; preset `vlm_r1` has no stages. Raises DataError for a bad ground truth, and RecipeError
    if `step` needs a progress that nobody gave.
    """
    own = _read(ground_truth).progress
    known = own if progress is None else progress
    if known is None and step not in (0, 1):
        raise RecipeError(
            f"step={step} needs to know how far training is, but this host does not say; pass progress=, or give each "
            "ground truth its own"
        )
    return _score(completion, ground_truth, step, known or 0.0)


def part_of(scored: Scored, part: str) -> float:
    """One part of a score; RecipeError if the ground truth's preset has no such part."""
    if part not in scored.parts:
        raise RecipeError(
            f"this ground truth's preset has the parts {', '.join(scored.parts)}, but a reward for {part} is in use; "
            "use the preset's own parts"
        )
    return scored.parts[part]


def parts_of(preset: str) -> tuple[str, ...]:
    """The parts that make the total of `preset`; RecipeError if there is none of this name."""
    if preset not in WEIGHTS:
        raise RecipeError(f"unknown preset {preset!r}; known: {', '.join(WEIGHTS)}")
    return tuple(WEIGHTS[preset])


def trainer_progress(state: Any) -> float | None:
    """The share of training done, of a transformers TrainerState; None before its length is known."""
    if state is None or state.max_steps <= 0:
        return None
    return min(1.0, float(state.global_step / state.max_steps))


@lru_cache(maxsize=4096)
def _read(ground_truth: str) -> HostTruth:
    return from_json(ground_truth)


@lru_cache(maxsize=1024)
def _score(completion: str, ground_truth: str, step: float, progress: float) -> Scored:
    """Remembered, because TRL and ms-swift ask for each part by itself."""
    host = _read(ground_truth)
    found, weights = _SCORERS[host.preset](completion, host, step, progress), WEIGHTS[host.preset]
    return Scored(found.total, {part: found.parts[part] for part in weights}, sum(weights.values()))


def _paper(completion: str, host: HostTruth, step: float, progress: float) -> Score:
    reward = Reward(dialect=get_dialect(host.dialect))
    return reward.score(completion, host.truth, stage=FixedStages(step).at(progress))


def _release(completion: str, host: HostTruth, step: float, progress: float) -> ReleaseScore:
    return ReleaseReward(None if step == 1 else 0 if progress < step else 1500).score(completion, host.truth)


def _vlm_r1(completion: str, host: HostTruth, step: float, progress: float) -> VlmR1Score:
    return VlmR1Reward(dialect=get_dialect(host.dialect)).score(completion, host.truth)


_SCORERS: Mapping[str, Scorer] = {"paper": _paper, "release": _release, "vlm_r1": _vlm_r1}
