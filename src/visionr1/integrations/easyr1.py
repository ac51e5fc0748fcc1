"""EasyR1: `worker.reward.reward_function=plugin.py:compute_score`, where `plugin.py` imports this module's names.

The ground truth (see `ground_truth.to_json`) stands in the data set's answer column. Settings go through
`worker.reward.reward_function_kwargs`.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from visionr1.integrations.core import find_preset, score, warn_stripped_tags

REWARD_NAME = "visionr1"
REWARD_TYPE = "batch"
_calls = count()  # of this process


def compute_score(
    reward_inputs: list[dict[str, Any]],
    *,
    step: float = 1.0,
    progress: float | None = None,
    total_calls: int | None = None,
    reward: Any = None,
) -> list[dict[str, float]]:
    """Return the total under `overall`, and each part, which EasyR1 logs.

    EasyR1 tells a reward no step, but asks once per training step (more often with online filtering or ReMax): with
    `total_calls` given, progress is the share of calls made. It begins anew when training is resumed, and validation,
    which has a process of its own, counts by itself. `reward` takes the place of the rows' preset: another preset's
    name, "module:object" or "file.py:object".
    """
    preset = find_preset(reward)
    if progress is None and total_calls:
        progress = min(1.0, next(_calls) / total_calls)

    results = []
    for entry in reward_inputs:
        warn_stripped_tags("EasyR1 (unless worker.reward.skip_special_tokens=false)", entry["ground_truth"])
        result = score(entry["response"], entry["ground_truth"], step=step, progress=progress, preset=preset)
        results.append({"overall": result.total, **result.parts})
    return results
