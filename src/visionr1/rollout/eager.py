"""Sampling on the shared-prefix path: one prefill per sample, then G branches decoded side by side.

Every image and prompt goes through the model once; its keys and values are then expanded to the G
completions. Rows that have ended leave the batch. Image and special tokens are never sampled, and
position ids are passed, so nothing of one call leaks into the next.
Axis letters: A axes of position ids, B samples, G completions of one sample, N = B x G rows, T tokens, D width of a
head.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from visionr1.models.policy import Policy
from visionr1.models.prefix import SharedPrefixPath, rotary_positions
from visionr1.models.prompts import Prompt, join_features, join_inputs
from visionr1.rollout.cache import BranchCache
from visionr1.rollout.draw import draw_tokens, step_numbers, uniform_numbers
from visionr1.rollout.engine import Completion, Progress, Sampling, Seeds, make_completions

KEEP_SHARE = 0.75
"""Ended rows are dropped once fewer than this share is still running: dropping copies the cache."""


def decode(
    policy: Policy,
    cache: BranchCache,
    tokens: Tensor,
    rotation: tuple[Tensor, Tensor],
    sampling: Sampling,
    uniform: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Decode one step: return the next token (N,) of each row after `tokens` (N,), and its log-probability.

    `rotation` is cosine and sine (N, 1, D) of the positions of `tokens`; `uniform` as in `draw_tokens`.
    """
    states = policy.decoder.embed_tokens(tokens)[:, None]
    for layer in policy.decoder.layers:
        # `forward`, not a call: the weights are whole while sampling, and FSDP2's hooks would only cost time.
        states = layer.forward(states, position_embeddings=rotation, attention_mask=cache.mask, past_key_values=cache)
    return _draw(policy, policy.decoder.norm(states)[:, 0], sampling, uniform)


class Decoder:
    """How `generate` goes from one token to the next: operation by operation, with few rows and columns to spare.

    `compiled` has another, which takes fewer shapes and compiles them.
    """

    block = 64
    """Columns by which the cache grows when it is full."""
    step = staticmethod(decode)

    def num_rows(self, num_running: int, num_rows: int) -> int:
        """Return how many of `num_rows` rows to keep, of which `num_running` must be."""
        return num_running if num_running < KEEP_SHARE * num_rows else num_rows

    def memory(self, number: int, shape: tuple[int, ...], most_columns: int, like: Tensor) -> Tensor:
        """Return memory for a part of the cache, as `cache.Allocate`."""
        return like.new_empty(shape)


@torch.no_grad()
def generate(
    policy: Policy,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seeds: Seeds = (),
    *,
    progress: Progress | None = None,
    decoder: Decoder | None = None,
) -> list[list[Completion]]:
    """Sample as `RolloutEngine`; `progress` is called after each token of all rows."""
    decoder = decoder or Decoder()
    max_new_tokens = sampling.max_new_tokens

    # Prefill, and draw the first token of every completion from its last hidden state.
    hidden, cache = _prefill_branches(policy, prompts, sampling, decoder)
    cosine, sine = _rotations(policy.decoder, prompts, sampling, hidden)
    uniform = uniform_numbers(seeds, sampling)
    uniform = uniform if uniform is None else uniform.to(hidden.device)
    tokens, chosen = _draw(policy, hidden, sampling, step_numbers(uniform, 0))

    end_ids = torch.tensor(policy.eos_ids, device=hidden.device)
    replies = _Replies(len(hidden), max_new_tokens, hidden.device)
    rows = torch.arange(len(hidden), device=hidden.device)  # the completion that each row of the batch is of
    running = torch.ones_like(rows, dtype=torch.bool)
    for step in range(max_new_tokens):
        # Record the tokens, and which rows they end.
        ended = running & torch.isin(tokens, end_ids)
        replies.record(step, rows, tokens, chosen, ended)
        running &= ~ended
        num_running = int(running.sum())
        if progress:
            progress(step + 1, max_new_tokens)
        if not num_running or step + 1 == max_new_tokens:
            break

        # Drop ended rows, if so many have ended that the copy of the cache is worth it.
        num_rows = decoder.num_rows(num_running, len(rows))
        if num_rows < len(rows):
            kept = running.argsort(descending=True, stable=True)[:num_rows]
            rows, running, tokens = rows[kept], running[kept], tokens[kept]
            cosine, sine = cosine[kept], sine[kept]
            cache.keep(kept)

        # Decode the next token of each row.
        cache.open_column()
        rotation = cosine[:, step : step + 1], sine[:, step : step + 1]
        tokens, chosen = decoder.step(policy, cache, tokens, rotation, sampling, step_numbers(uniform, step + 1, rows))

    return replies.completions(policy, rows[running], sampling.num_completions)


class _Replies:
    """Tokens (N, T) sampled so far, with their log-probabilities; `lengths` (N,) of those that have ended."""

    def __init__(self, num_rows: int, max_new_tokens: int, device: torch.device) -> None:
        self.token_ids = torch.zeros((num_rows, max_new_tokens), dtype=torch.long, device=device)
        self.logprobs = torch.zeros((num_rows, max_new_tokens), device=device)
        self.lengths = torch.full((num_rows,), max_new_tokens, device=device)

    def record(self, step: int, rows: Tensor, tokens: Tensor, logprobs: Tensor, ended: Tensor) -> None:
        """Write the tokens of `rows` at `step`, which end those where `ended`."""
        self.token_ids[rows, step] = tokens
        self.logprobs[rows, step] = logprobs
        self.lengths[rows[ended]] = step + 1

    def completions(self, policy: Policy, running: Tensor, num_completions: int) -> list[list[Completion]]:
        """Return the completions; those still `running` (their numbers) are truncated."""
        truncated = torch.zeros_like(self.lengths, dtype=torch.bool)
        truncated[running] = True
        return make_completions(policy, self.token_ids, self.logprobs, self.lengths, truncated, num_completions)


def _prefill_branches(
    policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, decoder: Decoder
) -> tuple[Tensor, BranchCache]:
    """Return the last hidden state (N, D) of each completion's prompt, and the cache of all N rows.

    Images and prompts go through the model once; what the pass leaves is then copied to the G rows of each prompt.
    """
    hidden, prefill, is_prompt = _prefill(policy, prompts)
    cache = BranchCache(
        prefill,
        is_prompt,
        num_completions=sampling.num_completions,
        max_new_tokens=sampling.max_new_tokens,
        block=decoder.block,
        allocate=decoder.memory,
    )
    return hidden.repeat_interleave(sampling.num_completions, dim=0), cache


def _prefill(policy: Policy, prompts: Sequence[Prompt]) -> tuple[Tensor, DynamicCache, Tensor]:
    """Return the last hidden state (B, D) of each prompt, its keys and values, and where prompts are (B, T).

    Prompts are padded on the right, where causal attention never looks back from.
    """
    assert isinstance(policy.path, SharedPrefixPath)
    lengths = [len(prompt.input_ids) for prompt in prompts]
    shape = (len(prompts), max(lengths))
    input_ids = torch.zeros(shape, dtype=torch.long)
    position_ids = torch.zeros((len(prompts[0].position_ids), *shape), dtype=torch.long)
    is_prompt = torch.zeros(shape, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        input_ids[row, : lengths[row]] = prompt.input_ids
        position_ids[:, row, : lengths[row]] = prompt.position_ids
        is_prompt[row, : lengths[row]] = True

    cache = DynamicCache()
    hidden = policy.path.hidden_states(
        policy,
        input_ids=input_ids.to(policy.device),
        position_ids=position_ids.to(policy.device),
        tree=None,
        inputs={name: tensor.to(policy.device) for name, tensor in join_inputs(prompts).items()},
        features=join_features(prompts),
        cache=cache,
    )
    last = torch.tensor(lengths, device=policy.device) - 1
    return hidden[torch.arange(len(prompts), device=policy.device), last], cache, is_prompt.to(policy.device)


def _rotations(decoder: Any, prompts: Sequence[Prompt], sampling: Sampling, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine (N, T, D) of the rotary embedding for the tokens to come."""
    starts = torch.tensor([int(prompt.position_ids.max()) + 1 for prompt in prompts])
    starts = starts.repeat_interleave(sampling.num_completions)
    positions = starts[:, None] + torch.arange(sampling.max_new_tokens)  # (N, T), the same on all axes
    position_ids = positions.expand(len(prompts[0].position_ids), -1, -1).to(like.device)
    cosine, sine = decoder.rotary_emb(like, rotary_positions(position_ids))
    return cosine, sine


def _draw(policy: Policy, hidden: Tensor, sampling: Sampling, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
    """Draw a token (N,) after each hidden state (N, D), and return its log-probability too."""
    logits = policy.logits(hidden, temperature=sampling.temperature or 1.0)
    return draw_tokens(logits, sampling, uniform)
