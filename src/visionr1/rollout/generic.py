"""Sampling on the generic path: every prompt goes through the model once, its cache is forked to its G completions,
and the completions of all prompts are decoded side by side.

Prompts differ in length, so their caches are padded on the left, under a mask. Where a model has a kind of cache that
cannot be padded, its prompts are sampled one after the other.
Axis letters: B prompts, G completions of one prompt, N = B x G rows, T columns of the cache, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from visionr1.models.paths.generic import FIRST_POSITIONS, GenericPath, Prefill
from visionr1.models.paths.scoring import model_logits
from visionr1.models.paths.shared_cache import (
    DecodeCache,
    can_join,
    join_rows,
    lengthen,
    select_rows,
    state_tensors,
)
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.rollout.draw import draw_tokens
from visionr1.rollout.engine import Completion, Progress, Sampling, Seeds
from visionr1.rollout.loop import choose_num_rows, sample_rows


@torch.no_grad()
def generate(
    policy: Policy,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seeds: Seeds = (),
    *,
    progress: Progress | None = None,
) -> list[list[Completion]]:
    """Sample as `RolloutEngine`; `progress` is called after each token of all rows, or after each prompt."""
    assert isinstance(policy.path, GenericPath)
    prefills = [policy.path.prefill(policy, prompt.to(policy.device)) for prompt in prompts]
    if all(can_join(prefill.layers) for prefill in prefills):
        return sample_rows(policy, CachedBranches(policy, prefills, sampling), sampling, seeds, progress)

    groups = []
    for index, prefill in enumerate(prefills):
        groups += sample_rows(policy, CachedBranches(policy, [prefill], sampling), sampling, seeds[index : index + 1])
        if progress:
            progress(len(groups) * sampling.max_new_tokens // len(prompts), sampling.max_new_tokens)
    return groups


def count_axes(config: Any) -> int:
    """Return the axes that a position has in a model whose images take fewer positions than tokens: three for most."""
    rope = config.get_text_config().rope_parameters
    sections = rope.get("mrope_section") if isinstance(rope, dict) else None
    return len(sections) if sections else 3


class CachedBranches:
    """`loop.Branches` over transformers' cache."""

    choose_num_rows = staticmethod(choose_num_rows)

    def __init__(self, policy: Policy, prefills: Sequence[Prefill], sampling: Sampling) -> None:
        self.policy = policy
        self.device = policy.device
        self.num_rows = len(prefills) * sampling.num_completions
        prompt_of_row = torch.arange(len(prefills), device=self.device).repeat_interleave(sampling.num_completions)

        lengths = torch.tensor([prefill.length for prefill in prefills], device=self.device)
        states = torch.cat([prefill.states for prefill in prefills])
        self._first_logits = model_logits(policy.model, states)[prompt_of_row]
        self._lengths = lengths[prompt_of_row]
        self._first_position = FIRST_POSITIONS.get(policy.config.model_type, 0)
        deltas = [prefill.rope_delta for prefill in prefills if prefill.rope_delta is not None]
        self._deltas = torch.cat(deltas)[prompt_of_row] if deltas else None
        self._num_axes = count_axes(policy.config)

        joined = join_rows([prefill.layers for prefill in prefills]) if len(prefills) > 1 else prefills[0].layers
        text_config = policy.config.get_text_config(decoder=True)
        self._cache = DecodeCache(text_config, select_rows(joined, prompt_of_row))

        # Prompts end at one column; what lies before the shorter ones is hidden.
        longest = int(lengths.max())
        columns = torch.arange(longest, device=self.device)
        self._mask = columns >= longest - self._lengths[:, None]
        self._is_padded = bool((lengths != longest).any())

    def draw_first(self, sampling: Sampling, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
        """As in `Branches`."""
        return self._draw(self._first_logits, sampling, uniform)

    def keep(self, rows: Tensor) -> None:
        """As in `Branches`."""
        self._cache.layers = select_rows(self._cache.layers, rows)
        self._lengths = self._lengths[rows]
        self._mask = self._mask[rows]
        if self._deltas is not None:
            self._deltas = self._deltas[rows]

    def decode(self, tokens: Tensor, step: int, sampling: Sampling, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
        """As in `Branches`."""
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=True)

        # Where images take fewer positions than tokens, a position has several axes, equal for text.
        positions = self._lengths[:, None] + step + self._first_position
        if self._deltas is not None:
            positions = (positions + self._deltas).expand(self._num_axes, -1, -1)
        output = self.policy.model(
            input_ids=tokens[:, None],
            position_ids=positions,
            attention_mask=self._mask.long() if self._is_padded else None,
            past_key_values=self._cache,
            use_cache=True,
        )
        return self._draw(output.logits[:, -1], sampling, uniform)

    def skip(self, steps: int) -> None:
        """As in `Branches`."""
        self._mask = torch.nn.functional.pad(self._mask, (0, steps), value=True)
        text_config = self.policy.config.get_text_config(decoder=True)
        self._cache = DecodeCache(text_config, lengthen(self._cache.layers, steps))

    def cached(self) -> list[Tensor]:
        """As in `Branches`."""
        return state_tensors(self._cache.layers)

    def _draw(self, logits: Tensor, sampling: Sampling, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
        """Draw a token after each row's logits (N, V)."""
        restricted = self.policy.restrict(logits, temperature=sampling.temperature or 1.0)
        return draw_tokens(restricted, sampling, uniform)
