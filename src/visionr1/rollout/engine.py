"""The protocol of rollout engines: prompts in, sampled completions out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from visionr1.errors import CheckpointError
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt

Seeds = Sequence[Sequence[int]]
"""One seed, of several numbers, for each prompt. They change with every call, so they are no part of `Sampling`."""
Progress = Callable[[int, int], None]
"""Called with the number of tokens sampled so far and the most that there may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How replies are drawn."""

    max_new_tokens: int
    """C; a completion that reaches it without an end is truncated."""
    num_completions: int = 1
    """G, of each prompt."""
    temperature: float = 1.0
    """0 is greedy: the most probable token of the untempered policy, whatever the seeds."""
    top_p: float = 1.0
    """Draw from the most probable tokens that hold this mass; 1 is all."""
    top_k: int = 0
    """Draw from so many most probable tokens; 0 is all."""


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """One sampled reply."""

    token_ids: Tensor
    """(T,), its end token included unless truncated."""
    text: str
    logprobs: Tensor
    """(T,) of each token under the tempered policy, before top-p and top-k; vLLM's are after them."""
    truncated: bool
    """True if it reached the token limit without an end."""


class RolloutEngine(Protocol):
    """A function, or an object that is called like one, that samples."""

    def __call__(
        self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, seeds: Seeds = ()
    ) -> list[list[Completion]]:
        """Return G completions of each prompt, sampled with the policy's weights as they are now.

        A prompt's completions depend on its own seed alone, not on the other prompts; greedy ones need no seeds.
        """


@runtime_checkable
class StreamingEngine(RolloutEngine, Protocol):
    """An engine that takes new prompts while it samples others, of which it uses the text and the image alone."""

    @property
    def label(self) -> str:
        """Name and version, as stored results give them."""

    @property
    def dtype(self) -> str:
        """Precision of the engine's weights, such as "bfloat16"."""

    def load(self, policy: Policy) -> None:
        """Take the policy's weights as they are now; one without weights changes nothing."""

    def answer(
        self, policy: Policy, prompts: Iterable[Prompt], *, max_new_tokens: int, at_once: int
    ) -> Iterator[tuple[int, Completion]]:
        """Yield the greedy completion of each prompt, with the prompt's place, in the order in which they end.

        At most `at_once` prompts are under way, and no more than those are read. The policy's weights are those that it
        has at the beginning.
        """


def copies_weights(engine: RolloutEngine) -> bool:
    """Return True if an engine samples from a copy of the policy's weights, and runs none of the policy's layers.

    It says so by an attribute `copies_weights`, and takes the weights by `models.adapters.gathered_weights`, so that
    under FSDP2 no rank ever holds all of them. All ranks must call such an engine equally often.
    """
    return bool(getattr(engine, "copies_weights", False))


def make_completions(
    policy: Policy, token_ids: Tensor, logprobs: Tensor, lengths: Tensor, truncated: Tensor, num_completions: int
) -> list[list[Completion]]:
    """Cut sampled tokens (N, T) and their log-probabilities to `lengths` (N,), and group them by prompt.

    `truncated` (N,) says which rows have no end token. Raises CheckpointError if a log-probability is not finite: then
    the model's logits were not.
    """
    token_ids, logprobs = token_ids.cpu(), logprobs.cpu()
    check_logprobs(logprobs)
    replies = []
    for row, (length, cut_off) in enumerate(zip(lengths.tolist(), truncated.tolist(), strict=True)):
        ids = token_ids[row, :length]
        text_ids = ids if cut_off else ids[:-1]
        text = policy.decode_reply(text_ids.tolist())
        replies.append(Completion(ids, text, logprobs[row, :length], cut_off))
    return [replies[start : start + num_completions] for start in range(0, len(replies), num_completions)]


def check_logprobs(logprobs: Tensor) -> None:
    """Raise CheckpointError if a log-probability of sampled tokens is not finite: then the model's logits were not."""
    if not torch.isfinite(logprobs).all():
        raise CheckpointError(
            "the model's logits are not finite (NaN or infinite), so nothing can be sampled from it: its weights are "
            "spoiled, or too large for the precision that it runs in (docs/faq.md#weights-are-not-finite)"
        )
