"""What OpenRLHF's `--reward.remote_url examples/openrlhf/plugin.py` loads.

OpenRLHF tells a reward no training step. For the advanced stage, start a second run from the first one's checkpoint
with `make_reward_func(step=0.5, progress=1.0)`.
"""

from visionr1.integrations.openrlhf import make_reward_func

reward_func = make_reward_func()
