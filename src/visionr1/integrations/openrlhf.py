"""OpenRLHF: `--reward.remote_url plugin.py`, where `plugin.py` imports `reward_func` from here.

The ground truth (see `ground_truth.to_json`) stands in the data set's label column. OpenRLHF swallows what a reward
raises (it logs at INFO and goes on without a reward), so a bad ground truth is logged as an error here before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from visionr1.errors import DataError, VisionR1Error
from visionr1.integrations.core import find_preset, score

END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<end_of_turn>", "<|eot_id|>", "<turn|>", "</s>", "<eos>", "<pad>")
MARK_CHARS = 24
"""Characters at the end of the prompt by which its end is found in a query."""
logger = logging.getLogger(__name__)


def make_reward_func(
    *,
    step: float = 1.0,
    progress: float | None = None,
    end_tokens: Sequence[str] = END_TOKENS,
    reward: Any = None,
) -> Callable[[list[str], list[str], list[str]], dict[str, Any]]:
    """Return the function that OpenRLHF calls with one query, its prompt and its label.

    `step` is the paper's STEP; as OpenRLHF tells a reward no step, `progress` or the ground truth's own goes with it.
    `reward` takes the place of the rows' preset: a preset's name, "module:object", "file.py:object" or a reward itself.
    """
    preset = find_preset(reward)

    def reward_func(queries: list[str], prompts: list[str], labels: list[str], **_: Any) -> dict[str, Any]:
        (query,) = queries
        (prompt,) = prompts
        (label,) = labels
        try:
            completion = completion_of(query, prompt, end_tokens)
            result = score(completion, label, step=step, progress=progress, preset=preset)
        except VisionR1Error:
            logger.exception("no reward for this completion")
            raise

        # Scores are in [0, 1] where the maximum is known: dynamic filtering compares them with bounds.
        share = result.total
        if result.maximum:
            share = result.total / result.maximum
        return {"rewards": result.total, "scores": share, "extra_logs": dict(result.parts)}

    return reward_func


def completion_of(query: str, prompt: str, end_tokens: Sequence[str] = END_TOKENS) -> str:
    """Return what the model wrote: `query` after the prompt, without the tokens that end a turn.

    `query` is decoded from the tokens, so the image placeholders that `prompt` has once are there many times. Its end
    is the same: the completion begins where the prompt's last characters occur as often as in the prompt.
    """
    mark = prompt[-MARK_CHARS:]
    parts = []
    if mark:
        parts = query.split(mark, prompt.count(mark))
    if len(parts) != prompt.count(mark) + 1:
        raise DataError(f"query: expected it to hold the end of the prompt, {mark!r}, found {query[:200]!r}")

    # Padding may follow the end of the turn, so end tokens are removed until none is left.
    completion = parts[-1].rstrip()
    while ending := _find_ending(completion, end_tokens):
        completion = completion.removesuffix(ending).rstrip()
    return completion


def _find_ending(text: str, end_tokens: Sequence[str]) -> str:
    for token in end_tokens:
        if text.endswith(token):
            return token
    return ""


reward_func = make_reward_func()
