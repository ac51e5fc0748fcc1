"""Prompts with their completions, and the micro-batches in which they go through the model.

Axis letters: T tokens, N completion tokens in all.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visionr1.models.prompts import Prompt

_log = logging.getLogger("visionr1")
_warned_budgets: set[int] = set()


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt and the completions (each (T,) token ids) that follow it."""

    prompt: Prompt
    completions: tuple[Tensor, ...]
    indices: tuple[int, ...]
    """Number of each completion in the batch: the caller counts through all prompts."""

    @property
    def num_tokens(self) -> int:
        """Its length in a row that holds the prompt once."""
        return len(self.prompt.input_ids) - 1 + sum(map(len, self.completions))

    def part(self, places: Sequence[int]) -> "Group":
        """Return the group with those of its completions alone that stand at `places`."""
        completions = tuple(self.completions[place] for place in places)
        indices = tuple(self.indices[place] for place in places)
        return Group(self.prompt, completions, indices)


@dataclass(frozen=True, slots=True)
class Rows:
    """One micro-batch, packed by a path: the tokens that are scored.

    Each path adds what it needs to pass them through the model: see `packed.PackedRow` and `generic.BranchRows`.
    """

    targets: Tensor
    """(N,) token id of each completion token."""
    completion: Tensor
    """(N,) number of the completion that each token belongs to, on the CPU."""

    def to(self, device: torch.device) -> "Rows":
        """Return these rows on `device`."""
        raise NotImplementedError


def make_groups(prompts: Sequence[Prompt], completions: Sequence[Sequence[Tensor]]) -> list[Group]:
    """Return one group per prompt; completions are numbered through, prompt by prompt."""
    groups = []
    count = 0
    for prompt, replies in zip(prompts, completions, strict=True):
        indices = tuple(range(count, count + len(replies)))
        groups.append(Group(prompt, tuple(replies), indices))
        count += len(replies)
    return groups


def warn_over_budget(sample: str, prompt: int, completion: int, tokens_per_forward: int) -> None:
    """Warn, once for each budget, where one completion of so many tokens and its prompt exceed `tokens_per_forward`."""
    if prompt + completion > tokens_per_forward and tokens_per_forward not in _warned_budgets:
        _warned_budgets.add(tokens_per_forward)
        _log.warning(
            "sample %s: its prompt takes %d tokens and its completion up to %d, which is more than "
            "optimizer.tokens_per_forward = %d; a completion is never cut, so such a one gets a pass of its own: if "
            "memory runs out, use smaller images or lower rollout.max_new_tokens (said once)",
            *(sample, prompt, completion, tokens_per_forward),
        )
