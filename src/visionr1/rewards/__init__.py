"""Rewards computed by rules from boxes: the paper's, by default."""

from visionr1.rewards.criteria import Pair
from visionr1.rewards.score import Reward, RewardOptions, Score
from visionr1.rewards.stages import AdaptiveStages, FixedStages, Stage, Stages

__all__ = ["AdaptiveStages", "FixedStages", "Pair", "Reward", "RewardOptions", "Score", "Stage", "Stages"]
