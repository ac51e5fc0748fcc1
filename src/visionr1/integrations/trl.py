"""TRL (`GRPOTrainer(reward_funcs=reward_functions())`): one reward function per part, so that TRL logs each.

The data set needs a column `ground_truth` (see `ground_truth.to_json`) and `prompt` as messages or as text. Their sum,
with the default `reward_weights`, is the paper's reward (Eq. 7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from visionr1.integrations.core import find_preset, part_of, parts_of, score, trainer_progress, warn_stripped_tags
from visionr1.rewards import PRESETS, Preset

RewardFunction = Callable[..., list[float]]
Completion = str | list[dict[str, str]]
"""Text where the row's prompt is text, else messages, of which the last is the model's."""


def reward_functions(*, step: float = 1.0, preset: str = "paper", reward: Any = None) -> list[RewardFunction]:
    """Return `visionr1_format`, `visionr1_recall` and `visionr1_precision`; TRL logs their means under these names.

    `step` is the paper's STEP; progress is the trainer's global step over its maximum. `preset` is that of the rows.
    `reward` takes its place: a preset's name, "module:object", "file.py:object" or a reward itself. A reward that is
    not the sum of parts known before gives one function, `visionr1_total`.
    """
    chosen = find_preset(reward)
    return [_part(part, step, chosen) for part in parts_of(chosen or PRESETS.known(preset))]


def _part(part: str, step: float, preset: Preset | None) -> RewardFunction:
    """Return the reward function of one part; scores are remembered, so each completion is scored once."""

    def reward(
        completions: list[Completion], ground_truth: list[str], trainer_state: Any = None, **columns: Any
    ) -> list[float]:
        progress = trainer_progress(trainer_state)
        values = []
        for completion, truth in zip(completions, ground_truth, strict=True):
            warn_stripped_tags("TRL", truth)
            result = score(_text(completion), truth, step=step, progress=progress, preset=preset)
            values.append(part_of(result, part))
        return values

    reward.__name__ = f"visionr1_{part}"  # by which TRL logs it
    return reward


def _text(completion: Completion) -> str:
    if isinstance(completion, str):
        return completion
    return completion[-1]["content"]
