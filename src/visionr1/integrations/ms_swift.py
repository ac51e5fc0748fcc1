"""ms-swift: `--external_plugins plugin.py --reward_funcs visionr1_format visionr1_recall visionr1_precision`.

`plugin.py` calls `register()`. The data set needs a column `ground_truth` (see `ground_truth.to_json`). One reward
class per part, so that ms-swift logs each; their sum is the paper's reward (Eq. 7).
"""

from __future__ import annotations

from typing import Any

from swift.rewards import ORM, orms  # type: ignore[import-not-found]

from visionr1.integrations.core import find_preset, part_of, parts_of, score, trainer_progress
from visionr1.rewards import PRESETS, Preset


class VisionR1Part(ORM):  # type: ignore[misc]
    """The reward of one part; ms-swift makes it with its own arguments."""

    part: str
    step: float
    preset: Preset | None = None

    def __call__(
        self, completions: list[str], ground_truth: list[str], trainer_state: Any = None, **columns: Any
    ) -> list[float]:
        progress = trainer_progress(trainer_state)
        values = []
        for text, truth in zip(completions, ground_truth, strict=True):
            result = score(text, truth, step=self.step, progress=progress, preset=self.preset)
            values.append(part_of(result, self.part))
        return values


def register(*, step: float = 1.0, preset: str = "paper", reward: Any = None) -> None:
    """Make `visionr1_format`, `visionr1_recall` and `visionr1_precision` known; `step` is the paper's STEP.

    `preset` is that of the rows. `reward` takes its place: a preset's name, "module:object", "file.py:object" or a
    reward itself. A reward that is not the sum of parts known before gives one, `visionr1_total`.
    """
    chosen = find_preset(reward)
    for part in parts_of(chosen or PRESETS.known(preset)):
        attributes = {"part": part, "step": step, "preset": chosen}
        orms[f"visionr1_{part}"] = type(f"VisionR1{part.capitalize()}", (VisionR1Part,), attributes)
