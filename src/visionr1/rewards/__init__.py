"""Rewards computed by rules from boxes: the paper's, by default.

`PRESETS` are the rewards by name; a new one is one file (docs/extending.md).
"""

from visionr1.registry import Registry
from visionr1.rewards.criteria import Pair
from visionr1.rewards.paper import PaperOptions, Reward
from visionr1.rewards.presets import Preset
from visionr1.rewards.score import Score, Scorer
from visionr1.rewards.stages import AdaptiveStages, FixedStages, Stage, Stages
from visionr1.rewards.user import preset_from_object

__all__ = [
    "PRESETS",
    "AdaptiveStages",
    "FixedStages",
    "Pair",
    "PaperOptions",
    "Preset",
    "Reward",
    "Score",
    "Scorer",
    "Stage",
    "Stages",
]

PRESETS: Registry[Preset] = Registry(
    "preset",
    packages=("visionr1.rewards", "visionr1.rewards.published"),
    attribute="PRESET",
    check=preset_from_object,
)
"""Every preset by its name."""
