"""What `swift rlhf --external_plugins` loads: the reward's parts, under the names that `--reward_funcs` takes.

`step` is the paper's STEP, the share of training after which the thresholds tighten: 0.5 for a strong base model,
1.0 (never) for a weak one such as Qwen2.5-VL.
"""

from visionr1.integrations.ms_swift import register

register(step=1.0)
