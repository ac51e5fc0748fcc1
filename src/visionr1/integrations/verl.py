"""verl: `reward.custom_reward_function.path=pkg://visionr1.integrations.verl`, and its `.name=compute_score`.

The ground truth (see `ground_truth.to_json`) stands in the row's `reward_model.ground_truth`. Settings go through
`reward.custom_reward_function.reward_kwargs`: `step` (the paper's STEP), and with it `total_steps` or `progress`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visionr1.integrations.core import find_preset, score, warn_stripped_tags


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    *,
    step: float = 1.0,
    progress: float | None = None,
    total_steps: int | None = None,
    reward: Any = None,
    **router: Any,
) -> dict[str, float]:
    """Return the total under `score`, and each part, which verl logs.

    verl tells a reward no step. Its rollout servers write into `extra_info["max_global_steps"]` with which version of
    the policy a completion was sampled; with `total_steps` given, progress is taken from it. `reward` takes the place
    of the rows' preset: another preset's name, "module:object" or "file.py:object".
    """
    version = (extra_info or {}).get("max_global_steps")
    if progress is None and total_steps and version is not None:
        progress = min(1.0, version / total_steps)

    warn_stripped_tags("verl", ground_truth)
    result = score(solution_str, ground_truth, step=step, progress=progress, preset=find_preset(reward))
    return {"score": result.total, **result.parts}
