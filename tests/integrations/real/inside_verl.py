"""verl's own reward path, in verl's environment: its configuration with the settings of examples/verl/train.sh, its Ray
workers, its naive reward manager."""

import sys
from pathlib import Path

import numpy as np
import ray
import torch
import verl
from hydra import compose, initialize_config_module
from verl import DataProto
from verl.experimental.reward_loop.reward_loop import RewardLoopManager
from verl.utils import hf_tokenizer

from cases import check, load_cases, settings_of

MODEL, RECIPE = sys.argv[1:]
REWARD = "reward.custom_reward_function"


def config(**kwargs):
    """The PPO trainer's configuration, as the recipe sets it; a key that verl does not know is an error."""
    overrides = [
        *settings_of(RECIPE, MODEL=MODEL),
        *(f"+{REWARD}.reward_kwargs.{name}={value}" for name, value in kwargs.items()),
        "reward.num_workers=1",
    ]
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=overrides)


def batch(cases, version):
    """What the rollout leaves for the reward: prompt and response tokens, right-padded, and the row's columns."""
    tokenizer = hf_tokenizer(MODEL)
    responses = [tokenizer.encode(case["completion"], add_special_tokens=False) or [0] for case in cases]
    longest = max(map(len, responses))
    padded = torch.tensor([ids + [tokenizer.pad_token_id] * (longest - len(ids)) for ids in responses])
    mask = torch.tensor([[1] * (1 + len(ids)) + [0] * (longest - len(ids)) for ids in responses])
    columns = {
        "data_source": ["visionr1"] * len(cases),
        "reward_model": [{"style": "rule", "ground_truth": case["ground_truth"]} for case in cases],
        "extra_info": [{"index": index} for index in range(len(cases))],
        "tool_extra_fields": [{"global_steps": version, "max_global_steps": version}] * len(cases),
    }
    return DataProto.from_dict(
        tensors={"prompts": torch.ones(len(cases), 1, dtype=torch.long), "responses": padded, "attention_mask": mask},
        non_tensors={name: np.array(values, dtype=object) for name, values in columns.items()},
    )


def main():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    for stage, version in (("beginner", 4), ("advanced", 5)):
        cases = load_cases(stage)
        manager = RewardLoopManager(config(step=0.5, total_steps=10))
        scored = manager.compute_rm_score(batch(cases, version))
        totals = scored.batch["rm_scores"].sum(dim=1).tolist()
        logged = {key: scored.non_tensor_batch[key].tolist() for key in scored.meta_info["reward_extra_keys"]}
        check(cases, totals, {part: logged[part] for part in ("format", "recall", "precision")})
        print(f"verl {verl.__version__}: RewardLoopManager, {stage} stage: rm_scores {totals}, logged {sorted(logged)}")
        for worker in manager.reward_loop_workers:
            ray.kill(worker)
    ray.shutdown()


if __name__ == "__main__":
    assert Path(MODEL).is_dir()
    main()
