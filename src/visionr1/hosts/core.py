"""What every host's adapter calls: one completion and one JSON ground truth in, a Score out."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from visionr1.dialects import get_dialect
from visionr1.errors import RecipeError
from visionr1.hosts.ground_truth import HostTruth, from_json
from visionr1.rewards import FixedStages, Reward, Score, Stage

PARTS = ("format", "recall", "precision")


def score(completion: str, ground_truth: str, *, step: float = 1.0, progress: float | None = None) -> Score:
    """Score one completion. Never raises on its text.

    `step` is the paper's STEP, the share of training after which the thresholds tighten (1: never). `progress` is the
    share done; where the host does not know it, the ground truth's own is taken. Raises DataError for a bad ground
    truth, and RecipeError if `step` needs a progress that nobody gave.
    """
    host = _read(ground_truth)
    return _score(completion, ground_truth, _stage(step, host.progress if progress is None else progress))


def named_parts(score: Score) -> dict[str, float]:
    """The parts that a host can log, unweighted, in the paper's order."""
    return {part: score.parts[part] for part in PARTS}


def trainer_progress(state: Any) -> float | None:
    """The share of training done, of a transformers TrainerState; None before its length is known."""
    if state is None or state.max_steps <= 0:
        return None
    return min(1.0, float(state.global_step / state.max_steps))


def _stage(step: float, progress: float | None) -> Stage:
    stages = FixedStages(step)
    if progress is None and step not in (0, 1):
        raise RecipeError(
            f"step={step} needs to know how far training is, but this host does not say; pass progress=, or give each "
            "ground truth its own"
        )
    return stages.at(progress or 0.0)


@lru_cache(maxsize=4096)
def _read(ground_truth: str) -> HostTruth:
    return from_json(ground_truth)


@lru_cache(maxsize=16)
def _reward(dialect: str) -> Reward:
    return Reward(dialect=get_dialect(dialect))


@lru_cache(maxsize=1024)
def _score(completion: str, ground_truth: str, stage: Stage) -> Score:
    """Remembered, because TRL and ms-swift ask for each part by itself."""
    host = _read(ground_truth)
    return _reward(host.dialect).score(completion, host.truth, stage=stage)
