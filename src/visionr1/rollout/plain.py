"""Sampling on the plain path: transformers' own `generate`, one sample at a time, with this package's draw of tokens.

Axis letters: G completions of one prompt, T tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from visionr1.models.plain import repeat_inputs
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.rollout.draw import draw_tokens, step_numbers, uniform_numbers
from visionr1.rollout.engine import Completion, Progress, Sampling, Seeds, make_completions


@torch.no_grad()
def generate(
    policy: Policy,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seeds: Seeds = (),
    *,
    progress: Progress | None = None,
) -> list[list[Completion]]:
    """Sample as `RolloutEngine`; `progress` is called after each prompt."""
    if not sampling.temperature:
        seeds = [()] * len(prompts)
    groups = []
    for prompt, seed in zip(prompts, seeds, strict=True):
        groups.append(_generate_group(policy, prompt, sampling, seed))
        if progress:
            progress(len(groups) * sampling.max_new_tokens // len(prompts), sampling.max_new_tokens)
    return groups


class _DrawTokens(LogitsProcessor):  # type: ignore[misc]
    """Draws the tokens of transformers' `generate`: it makes all impossible but the one drawn."""

    def __init__(self, policy: Policy, sampling: Sampling, uniform: Tensor | None) -> None:
        """`uniform` (G, T) as in `draw_tokens`, for all steps."""
        self.policy = policy
        self.sampling = sampling
        self.uniform = uniform
        self.tokens: list[Tensor] = []
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (G, V) of 0 for the token drawn and minus infinity for all others."""
        logits = self.policy.restrict(scores, temperature=self.sampling.temperature or 1.0)
        uniform = step_numbers(self.uniform, len(self.tokens))
        tokens, logprobs = draw_tokens(logits, self.sampling, uniform)
        self.tokens.append(tokens)
        self.logprobs.append(logprobs)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)


def _generate_group(policy: Policy, prompt: Prompt, sampling: Sampling, seed: Sequence[int]) -> list[Completion]:
    """Return the completions of one prompt."""
    device, length, num_completions = policy.device, len(prompt.input_ids), sampling.num_completions
    uniform = uniform_numbers([seed], sampling)
    draw = _DrawTokens(policy, sampling, uniform if uniform is None else uniform.to(device))
    inputs = repeat_inputs(prompt.inputs, num_completions, length, length)
    with _generation_settings(policy, sampling):
        policy.model.generate(
            input_ids=prompt.input_ids.expand(num_completions, -1).to(device),
            attention_mask=torch.ones((num_completions, length), dtype=torch.long, device=device),
            logits_processor=LogitsProcessorList([draw]),
            **{name: tensor.to(device) for name, tensor in inputs.items()},
        )

    # Rows go on until all have ended: cut each at its first end token.
    token_ids = torch.stack(draw.tokens, dim=1).cpu()
    ends = torch.isin(token_ids, torch.tensor(policy.eos_ids))
    truncated = ~ends.any(dim=1)
    lengths = torch.where(truncated, token_ids.shape[1], ends.int().argmax(dim=1) + 1)
    logprobs = torch.stack(draw.logprobs, dim=1)
    (completions,) = make_completions(policy, token_ids, logprobs, lengths, truncated, num_completions)
    return completions


@contextmanager
def _generation_settings(policy: Policy, sampling: Sampling) -> Iterator[None]:
    """Inside this block, replace the model's generation settings: a penalty or a beam of its folder would change what
    is sampled."""
    model: Any = policy.model
    settings_of_folder = model.generation_config
    model.generation_config = GenerationConfig(
        eos_token_id=list(policy.eos_ids),
        pad_token_id=policy.eos_ids[0],
        max_new_tokens=sampling.max_new_tokens,
    )
    try:
        yield
    finally:
        model.generation_config = settings_of_folder
