"""Sampling, token by token: draw one for every row, note which rows end, go on with the others.

How a row gets its next logits is the affair of its `Branches`, one kind for each path of a model.
Axis letters: N rows, one for each completion, T tokens.
"""

from typing import Protocol

import torch
from torch import Tensor

from visionr1.models.policy import Policy
from visionr1.rollout.draw import step_numbers, uniform_numbers
from visionr1.rollout.engine import Completion, Progress, Sampling, Seeds, make_completions

KEEP_SHARE = 0.75
"""Ended rows are dropped once fewer than this share is still running: dropping copies the cache."""


class Branches(Protocol):
    """The completions of prompts, which have been through the model, while they are decoded side by side."""

    @property
    def num_rows(self) -> int:
        """N, of completions at the beginning."""

    @property
    def device(self) -> torch.device:
        """Where they are decoded."""

    def draw_first(self, sampling: Sampling, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the first token (N,) of each row, and its log-probability; `uniform` as in `draw_tokens`."""

    def choose_num_rows(self, num_running: int, num_rows: int) -> int:
        """Return how many of `num_rows` rows to keep, of which `num_running` must be."""

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone, in this order."""

    def decode(self, tokens: Tensor, step: int, sampling: Sampling, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the token after `tokens` (N,), which are those of `step`, and its log-probability, as `draw_first`."""

    def skip(self, steps: int) -> None:
        """Go on as if `steps` tokens, or some fewer, had been decoded: for plans, which need sizes and no content."""

    def cached(self) -> list[Tensor]:
        """Return what is kept of earlier tokens."""


def sample_rows(
    policy: Policy,
    branches: Branches,
    sampling: Sampling,
    seeds: Seeds,
    progress: Progress | None = None,
) -> list[list[Completion]]:
    """Return the completions of each prompt; `progress` is called after each token of all rows."""
    device = branches.device
    uniform = uniform_numbers(seeds, sampling)
    uniform = uniform if uniform is None else uniform.to(device)
    tokens, chosen = branches.draw_first(sampling, step_numbers(uniform, 0))

    end_ids = torch.tensor(policy.eos_ids, device=device)
    replies = _Replies(branches.num_rows, sampling.max_new_tokens, device)
    rows = torch.arange(branches.num_rows, device=device)  # the completion that each row of the batch is of
    running = torch.ones_like(rows, dtype=torch.bool)
    for step in range(sampling.max_new_tokens):
        # Record the tokens, and which rows they end.
        ended = running & torch.isin(tokens, end_ids)
        replies.record(step, rows, tokens, chosen, ended)
        running &= ~ended
        num_running = int(running.sum())
        if progress:
            progress(step + 1, sampling.max_new_tokens)
        if not num_running or step + 1 == sampling.max_new_tokens:
            break

        # Drop ended rows, if so many have ended that the copy of the cache is worth it.
        num_rows = branches.choose_num_rows(num_running, len(rows))
        if num_rows < len(rows):
            kept = running.argsort(descending=True, stable=True)[:num_rows]
            rows, running, tokens = rows[kept], running[kept], tokens[kept]
            branches.keep(kept)

        # Decode the next token of each row.
        tokens, chosen = branches.decode(tokens, step, sampling, step_numbers(uniform, step + 1, rows))

    return replies.completions(policy, rows[running], sampling.num_completions)


def choose_num_rows(num_running: int, num_rows: int) -> int:
    """Return the running rows once they are few enough for a copy of the cache, else all rows."""
    return num_running if num_running < KEEP_SHARE * num_rows else num_rows


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
