"""ms-swift: `--external_plugins plugin.py --reward_funcs visionr1_format visionr1_recall visionr1_precision`.

`plugin.py` calls `register()`. The data set needs a column `ground_truth` (see `ground_truth.to_json`). One reward
class per part, so that ms-swift logs each; their sum is the paper's reward (Eq. 7).
"""

from __future__ import annotations

from typing import Any

from swift.rewards import ORM, orms  # type: ignore[import-not-found]

from visionr1.integrations.core import part_of, parts_of, score, trainer_progress


class VisionR1Part(ORM):  # type: ignore[misc]
    """The reward of one part; ms-swift makes it with its own arguments."""

    part: str
    step: float

    def __call__(
        self, completions: list[str], ground_truth: list[str], trainer_state: Any = None, **columns: Any
    ) -> list[float]:
        progress = trainer_progress(trainer_state)
        return [
            part_of(score(text, truth, step=self.step, progress=progress), self.part)
            for text, truth in zip(completions, ground_truth, strict=True)
        ]


def register(*, step: float = 1.0, preset: str = "paper") -> None:
    """Make `visionr1_format`, `visionr1_recall` and `visionr1_precision` known; `step` is the paper's STEP.

    `preset` is that of the rows.
    """
    for part in parts_of(preset):
        name = f"VisionR1{part.capitalize()}"
        orms[f"visionr1_{part}"] = type(name, (VisionR1Part,), {"part": part, "step": step})
