"""Score one completion by one JSON ground truth: the part that all integrations share."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from visionr1.dialects import HasTokens, get_dialect
from visionr1.errors import RecipeError
from visionr1.integrations.ground_truth import HostTruth, from_json
from visionr1.rewards import PRESETS, FixedStages, Preset, Scorer
from visionr1.rewards.user import preset_from_object

_log = logging.getLogger(__name__)

TOTAL = "total"
"""Stands for the only part of a reward whose total is no weighted sum."""


@dataclass(frozen=True, slots=True)
class HostScore:
    """A completion's `total`, the unweighted `parts` that make it, and the largest total there is, if it is known."""

    total: float
    parts: Mapping[str, float]
    maximum: float | None


def find_preset(reward: Any) -> Preset | None:
    """Return the preset that a plug-in's `reward` names or is; None for None, where each row says its own.

    `reward` may be the name of a preset, `module:object`, `file.py:object`, or an object as `rewards.user` takes them.
    Raises RecipeError if it is no reward.
    """
    if reward is None:
        return None
    if isinstance(reward, str):
        return _resolve(reward)
    return preset_from_object(reward)


def score(
    completion: str,
    ground_truth: str,
    *,
    step: float = 1.0,
    progress: float | None = None,
    preset: Preset | None = None,
) -> HostScore:
    """Score one completion. Never raises on its text.

    `step` is the paper's STEP, the share of training after which the thresholds tighten (1: never). `progress` is the
    share done; where the host does not know it, the ground truth's own is taken. With preset `release`, a step below 1
    stands for its `--adaptive`; preset `vlm_r1` has no stages. `preset` takes the place of the ground truth's own.
    Raises DataError for a bad ground truth, and RecipeError if `step` needs a progress that nobody gave.
    """
    if progress is None:
        progress = _read(ground_truth).progress
    if progress is None and step not in (0, 1):
        raise RecipeError(
            f"step={step} needs to know how far training is, but this host does not say; pass progress=, or give each "
            "ground truth its own"
        )
    return _score(completion, ground_truth, step, progress or 0.0, preset)


def warn_stripped_tags(host: str, ground_truth: str) -> None:
    """Warn once if a host that decodes replies without special tokens hands over those of a dialect written in them.

    `host` is its name. Raises DataError for a bad ground truth.
    """
    _warn_stripped_tags(host, _read(ground_truth).dialect)


def part_of(score: HostScore, part: str) -> float:
    """Return one part of a score; RecipeError if its reward has no such part."""
    if part == TOTAL:
        return score.total
    if part not in score.parts:
        raise RecipeError(
            f"this ground truth's preset has the parts {', '.join(score.parts)}, but a reward for {part} is in use; "
            "use the preset's own parts"
        )
    return score.parts[part]


def parts_of(preset: Preset) -> tuple[str, ...]:
    """Return the parts whose sum is the total of `preset`; TOTAL alone where it is no sum of parts, each counting 1."""
    # Weights do not depend on the dialect, so any that the preset reads will do.
    dialect = next(iter(preset.dialects), "qwen25")
    weights = _make_reward(preset, dialect, False).weights
    if weights and set(weights.values()) == {1}:
        return tuple(weights)
    return (TOTAL,)


def trainer_progress(state: Any) -> float | None:
    """Return the share of training done, of a transformers TrainerState; None before its length is known."""
    if state is None or state.max_steps <= 0:
        return None
    return min(1.0, float(state.global_step / state.max_steps))


@lru_cache(maxsize=64)
def _resolve(name: str) -> Preset:
    return PRESETS.resolve(name)


@lru_cache(maxsize=64)
def _warn_stripped_tags(host: str, name: str) -> None:
    dialect = get_dialect(name)
    tokens = dialect.tokens if isinstance(dialect, HasTokens) else ()
    if not tokens:
        return
    _log.warning(
        "%s decodes replies without special tokens, and the tokens of dialect %s, such as %s, may be special in the "
        "model's tokenizer: boxes are read without tags, not without coordinates, but no such reply gets the format "
        "reward (docs/faq.md#tokens-of-a-dialect-in-another-framework)",
        *(host, name, tokens[0]),
    )


@lru_cache(maxsize=4096)
def _read(ground_truth: str) -> HostTruth:
    return from_json(ground_truth)


@lru_cache(maxsize=1024)
def _score(completion: str, ground_truth: str, step: float, progress: float, preset: Preset | None) -> HostScore:
    """Score, and remember it, because TRL and ms-swift ask for each part by itself."""
    host = _read(ground_truth)

    # Nothing is imported by a name that stands in a row.
    preset = preset or PRESETS.known(host.preset)
    reward = _make_reward(preset, host.dialect, step < 1)
    stage = FixedStages(step).at(progress)
    score = reward.score(completion, host.truth, stage)

    # The parts that are measured without a weight are left out.
    parts = {part: score.parts[part] for part in reward.weights or score.parts}
    return HostScore(score.total, parts, reward.maximum)


@lru_cache(maxsize=64)
def _make_reward(preset: Preset, dialect: str, has_stages: bool) -> Scorer:
    return preset.make({}, get_dialect(dialect), has_stages=has_stages)
