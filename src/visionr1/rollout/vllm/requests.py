"""Requests as vLLM takes them, in this process or by a server, and its replies as completions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from visionr1.errors import RecipeError, TrainingError
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.rollout.engine import Completion, Sampling, check_logprobs

NEVER = -1e9
"""The bias of a logit whose token is never sampled."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One of a request's replies, in vLLM's terms."""

    token_ids: Sequence[int]
    """With its end token, unless `truncated`."""
    logprobs: Sequence[float]
    """Of each token, after temperature, top-p and top-k."""
    truncated: bool


def sampling_settings(policy: Policy, sampling: Sampling) -> dict[str, Any]:
    """Return the arguments of vLLM's `SamplingParams` but the seed."""
    return {
        # Greedy completions of one prompt are the same; vLLM refuses to make more than one.
        "n": sampling.num_completions if sampling.temperature else 1,
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "logprobs": 0,  # of the sampled tokens alone
        "logit_bias": dict.fromkeys(policy.suppressed_ids.tolist(), NEVER),
        "stop_token_ids": list(policy.eos_ids),
        "detokenize": False,
    }


def request_token_ids(policy: Policy, prompt: Prompt) -> list[int]:
    """Return a prompt's tokens as vLLM takes them: with one placeholder for the image, which vLLM expands."""
    token_ids: list[int] = policy.tokenizer.encode(prompt.text, add_special_tokens=False)
    return token_ids


def check_room(prompts: Sequence[Prompt], sampling: Sampling, max_model_len: int, advice: str) -> None:
    """Raise RecipeError if a prompt and its reply are longer than vLLM reads at once.

    vLLM in this process would cut the reply off before its limit; a server ends.
    """
    longest = max(len(prompt.input_ids) for prompt in prompts)
    if longest + sampling.max_new_tokens > max_model_len:
        raise RecipeError(
            f"rollout.max_new_tokens: expected {max_model_len - longest} or less beside a prompt of {longest} tokens, "
            f"found {sampling.max_new_tokens}: vLLM reads {max_model_len} tokens at once; {advice}"
        )


def single_seed(seed: Sequence[int]) -> int:
    """Return one number made of the numbers of a sample's seed."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def make_group(
    policy: Policy, prompt: Prompt, prompt_token_ids: Sequence[int], replies: Sequence[Reply]
) -> list[Completion]:
    """Return a request's replies as completions; TrainingError if vLLM made other tokens of the prompt."""
    _check_prompt(policy, prompt, list(prompt_token_ids))
    completions = []
    for reply in replies:
        ids = list(reply.token_ids)
        logprobs = torch.tensor(reply.logprobs)
        check_logprobs(logprobs)
        text = policy.decode_reply(ids if reply.truncated else ids[:-1])
        completions.append(Completion(torch.tensor(ids), text, logprobs, reply.truncated))
    return completions


def _check_prompt(policy: Policy, prompt: Prompt, token_ids: list[int]) -> None:
    """Raise TrainingError if vLLM made other tokens of the prompt than the policy did."""
    if token_ids != prompt.input_ids.tolist():
        image = policy.config.image_token_id
        ours, theirs = int((prompt.input_ids == image).sum()), token_ids.count(image)
        advice = "the model folder's preprocessor_config.json must be the one that vLLM reads"
        if policy.max_pixels:
            advice += ", with the bound of model.max_pixels in it (docs/models.md#fewer-tokens-an-image)"
        raise TrainingError(
            f"vLLM and the policy do not see the same prompt: {len(token_ids)} tokens, {theirs} of them "
            f"of the image, against {len(prompt.input_ids)} and {ours}; {advice}"
        )
