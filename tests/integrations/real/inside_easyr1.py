"""EasyR1's own loader and reward manager, from its source, with the settings of examples/easyr1/train.sh.

The environment holds what these import: the whole of EasyR1 needs vLLM and flash-attn.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from transformers import PreTrainedTokenizerFast

from cases import check, load_cases, settings_of

MODEL, SOURCE, RECIPE = sys.argv[1:]
sys.path.insert(0, SOURCE)

import verl  # noqa: E402  (EasyR1 calls its package verl too)
from verl.protocol import DataProto  # noqa: E402
from verl.workers.reward import AutoRewardManager, RewardConfig  # noqa: E402


def manager(tokenizer, **kwargs):
    """The reward manager of the recipe; a key that EasyR1's example configuration does not have is an error."""
    settings = [line for line in settings_of(RECIPE, MODEL=MODEL, EASYR1=SOURCE) if not line.startswith("config=")]
    config = OmegaConf.load(Path(SOURCE) / "examples/config.yaml")
    OmegaConf.set_struct(config, True)
    config.merge_with_dotlist(settings)
    reward = RewardConfig(**config.worker.reward, reward_function_kwargs=kwargs)
    reward.post_init()
    return AutoRewardManager(reward, tokenizer)


def batch(cases, tokenizer):
    """What the rollout leaves: right-padded response tokens, and the answer column."""
    responses = [[*tokenizer.encode(case["completion"], add_special_tokens=False), 2] for case in cases]
    longest = max(map(len, responses))
    return DataProto.from_dict(
        tensors={
            "responses": torch.tensor([ids + [0] * (longest - len(ids)) for ids in responses]),
            "response_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in responses]),
        },
        non_tensors={"ground_truth": np.array([case["ground_truth"] for case in cases], dtype=object)},
    )


def main():
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(Path(MODEL) / "tokenizer.json"))
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
    counting = manager(tokenizer, step=0.5, total_calls=2)
    for stage in ("beginner", "advanced"):  # the first and the second of two calls
        cases = load_cases(stage)
        rewards, logged = counting.compute_reward(batch(cases, tokenizer))
        totals = rewards.sum(dim=1).tolist()
        check(cases, totals, {part: logged[part] for part in ("format", "recall", "precision")})
        print(f"EasyR1 {verl.__version__}: AutoRewardManager, {stage} stage: {totals}, logged {sorted(logged)}")


if __name__ == "__main__":
    main()
