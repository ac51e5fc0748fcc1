"""What EasyR1's `worker.reward.reward_function=examples/easyr1/plugin.py:compute_score` loads."""

from visionr1.integrations.easyr1 import REWARD_NAME, REWARD_TYPE, compute_score

__all__ = ["REWARD_NAME", "REWARD_TYPE", "compute_score"]
