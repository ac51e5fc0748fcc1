"""Sampling with drafts: a pass takes a row's last token and guesses of the next ones, and settles those that are right.

The replies are those of sampling token by token (`loop`): after each token that is settled the next one is drawn from
the model's logits by the row's own number for that place. Where it is the guess, the logits after the guess are those
that hold next; at the first other token the rest of the guesses is forgotten. Rows are of different lengths then, so
each has its own column in the cache.
Axis letters: N rows, S tokens of one pass, T tokens of a reply.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from visionr1.models.policy import Policy
from visionr1.rollout.drafts import Drafter
from visionr1.rollout.draw import uniform_numbers
from visionr1.rollout.engine import Completion, Progress, Sampling, Seeds, make_completions
from visionr1.rollout.loop import Branches


class DraftedBranches(Branches, Protocol):
    """Branches whose rows can go on by different numbers of tokens."""

    def decode_many(
        self, tokens: Tensor, rows: Tensor, places: Tensor, sampling: Sampling, uniform: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the token after each of `tokens` (S,), and its log-probability, as `decode`.

        They are of `rows` (S,), at `places` (S,) of the replies; these three are on a CPU.
        """


@dataclass(slots=True)
class _Reply:
    """A reply while it is sampled."""

    number: int
    """Of the N."""
    token_ids: list[int]
    logprobs: list[float]
    guesses: list[int] = field(default_factory=list)
    """Of the tokens after the last one."""


def sample_with_drafts(
    policy: Policy,
    branches: DraftedBranches,
    sampling: Sampling,
    seeds: Seeds,
    *,
    most_guesses: int,
    progress: Progress | None = None,
) -> list[list[Completion]]:
    """Return the completions of each prompt, as `loop.sample_rows`; `most_guesses` is of one row in one pass."""
    uniform = uniform_numbers(seeds, sampling)
    first_uniform = None if uniform is None else uniform[:, 0].to(branches.device)
    first_tokens, first_logprobs = branches.draw_first(sampling, first_uniform)

    replies = []
    for number, (token, logprob) in enumerate(zip(first_tokens.tolist(), first_logprobs.tolist(), strict=True)):
        replies.append(_Reply(number, [token], [logprob]))
    drafter = Drafter()
    limit = sampling.max_new_tokens
    running = [reply for reply in replies if not _is_done(reply, policy.eos_ids, limit)]
    in_cache = replies  # the reply of each row of the cache
    while running:
        if progress:
            progress(max(len(reply.token_ids) for reply in running), limit)

        # Drop rows that have ended, if there are so many that the copy of the cache is worth it.
        if branches.choose_num_rows(len(running), len(in_cache)) < len(in_cache):
            row_of = {reply.number: row for row, reply in enumerate(in_cache)}
            branches.keep(torch.tensor([row_of[reply.number] for reply in running], device=branches.device))
            in_cache = running

        # A reply that may have one more token needs no guess of it.
        for reply in running:
            reply.guesses = drafter.guess(reply.token_ids, min(most_guesses, limit - len(reply.token_ids) - 1))
        tokens, logprobs = _decode(branches, running, in_cache, sampling, uniform)

        start = 0
        for reply in running:
            end = start + 1 + len(reply.guesses)
            length = len(reply.token_ids)
            _settle(reply, tokens[start:end], logprobs[start:end], policy.eos_ids)
            drafter.learn(reply.token_ids, length)
            start = end
        running = [reply for reply in running if not _is_done(reply, policy.eos_ids, limit)]
    return _completions(policy, replies, sampling)


def _decode(
    branches: DraftedBranches,
    running: Sequence[_Reply],
    in_cache: Sequence[_Reply],
    sampling: Sampling,
    uniform: Tensor | None,
) -> tuple[list[int], list[float]]:
    """Return what follows the last token of each running reply, and each of its guesses, one reply after the other."""
    row_of = {reply.number: row for row, reply in enumerate(in_cache)}
    tokens: list[int] = []
    rows: list[int] = []
    places: list[int] = []
    numbers: list[int] = []
    for reply in running:
        fed = [reply.token_ids[-1], *reply.guesses]
        last = len(reply.token_ids) - 1
        tokens += fed
        rows += [row_of[reply.number]] * len(fed)
        places += range(last, last + len(fed))
        numbers += [reply.number] * len(fed)

    place = torch.tensor(places)
    chosen = None if uniform is None else uniform[torch.tensor(numbers), place + 1].to(branches.device)
    next_tokens, logprobs = branches.decode_many(torch.tensor(tokens), torch.tensor(rows), place, sampling, chosen)
    return next_tokens.tolist(), logprobs.tolist()


def _settle(reply: _Reply, drawn: list[int], logprobs: list[float], eos_ids: Sequence[int]) -> None:
    """Add the drawn tokens to a reply, up to its end or the first that was not guessed."""
    for token, logprob, guess in zip(drawn, logprobs, [*reply.guesses, None], strict=True):
        reply.token_ids.append(token)
        reply.logprobs.append(logprob)
        if token in eos_ids or token != guess:
            break


def _is_done(reply: _Reply, eos_ids: Sequence[int], limit: int) -> bool:
    """Return True if a reply has ended or is as long as it may be."""
    return reply.token_ids[-1] in eos_ids or len(reply.token_ids) >= limit


def _completions(policy: Policy, replies: Sequence[_Reply], sampling: Sampling) -> list[list[Completion]]:
    """Return the completions of each prompt."""
    token_ids = torch.zeros((len(replies), sampling.max_new_tokens), dtype=torch.long)
    logprobs = torch.zeros((len(replies), sampling.max_new_tokens))
    lengths = torch.tensor([len(reply.token_ids) for reply in replies])
    truncated = torch.tensor([reply.token_ids[-1] not in policy.eos_ids for reply in replies])
    for reply in replies:
        token_ids[reply.number, : len(reply.token_ids)] = torch.tensor(reply.token_ids)
        logprobs[reply.number, : len(reply.logprobs)] = torch.tensor(reply.logprobs)
    return make_completions(policy, token_ids, logprobs, lengths, truncated, sampling.num_completions)
