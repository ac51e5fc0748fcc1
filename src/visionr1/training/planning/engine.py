"""A rollout engine that draws nothing: it makes the passes of a rollout, all completions as long as they may get.

The pass over the prompts, the first token and the last, for which the cache is longest, are made by the built-in
engine's own code; a token between them costs what is between these two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from visionr1.models.paths.generic import GenericPath
from visionr1.models.paths.shared_cache import can_join
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.rollout.draw import step_numbers, uniform_numbers
from visionr1.rollout.eager import Decoder, PackedBranches
from visionr1.rollout.engine import Completion, Sampling, Seeds
from visionr1.rollout.generic import CachedBranches
from visionr1.rollout.loop import Branches
from visionr1.training.planning.meter import Meter, Work

CACHE = "KV cache"
"""The part that holds what the model keeps of earlier tokens while sampling."""


@dataclass(slots=True)
class PlannedEngine:
    """Samples as `RolloutEngine`, by passes over tensors without content, and notes what they cost."""

    meter: Meter
    copies_weights: bool = False
    """True in place of an engine that has a copy of the weights, as `rollout.engine.copies_weights` says."""
    first: Work = field(default_factory=Work)
    """Decoding the first token of all rows, of all calls together."""
    last: Work = field(default_factory=Work)
    """Decoding the last one."""
    decoded: Work = field(default_factory=Work)
    """What was run of both, and of guesses."""
    spans: list[tuple[int, int]] = field(default_factory=list)
    """The events of the meter that are a rollout's, from and to."""

    def __call__(
        self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, seeds: Seeds = ()
    ) -> list[list[Completion]]:
        """Return G completions of each prompt, of `max_new_tokens` tokens that mean nothing."""
        num_new = sampling.max_new_tokens
        uniform = uniform_numbers(seeds, sampling)
        begin = len(self.meter.events)

        # The prompts.
        branches: Branches
        repeated = 1
        if isinstance(policy.path, GenericPath):
            prefills = [policy.path.prefill(policy, prompt) for prompt in prompts]
            if not all(can_join(prefill.layers) for prefill in prefills):
                repeated = len(prefills)  # they are sampled one after the other, all prefills held
            branches = CachedBranches(policy, prefills[:1] if repeated > 1 else prefills, sampling)
        else:
            branches = PackedBranches(policy, prompts, sampling, Decoder())
        self.meter.relabel(branches.cached(), CACHE)

        # The first token.
        numbers = uniform if uniform is None else uniform[: branches.num_rows]
        branches.draw_first(sampling, step_numbers(numbers, 0))
        tokens = torch.zeros(branches.num_rows, dtype=torch.long)
        self.first += self._decode(branches, tokens, 0, sampling, numbers) * repeated
        self.spans.append((begin, len(self.meter.events)))

        # The last ones: with the first of them the cache grows, as it does for few others. A pass with guesses takes
        # more memory; what it spares of time depends on the replies.
        branches.skip(max(0, num_new - 3))
        self.meter.relabel(branches.cached(), CACHE)
        begin = len(self.meter.events)
        self._decode(branches, tokens, max(0, num_new - 2), sampling, numbers)
        self.last += self._decode(branches, tokens, max(0, num_new - 2), sampling, numbers) * repeated
        if isinstance(branches, PackedBranches):
            self._decode_guesses(branches, sampling, uniform)
        self.spans.append((begin, len(self.meter.events)))

        completion = Completion(torch.zeros(num_new, dtype=torch.long), "", torch.zeros(num_new), truncated=True)
        return [[completion] * sampling.num_completions for _ in prompts]

    def _decode_guesses(self, branches: PackedBranches, sampling: Sampling, uniform: torch.Tensor | None) -> None:
        """Decode with as many guesses of every row as a pass may take."""
        fed = 1 + max(0, min(Decoder.most_guesses, sampling.max_new_tokens - 2))
        rows = torch.arange(branches.num_rows).repeat_interleave(fed)
        places = (max(0, sampling.max_new_tokens - 1 - fed) + torch.arange(fed)).repeat(branches.num_rows)
        numbers = None if uniform is None else uniform[rows, (places + 1).clamp(max=uniform.shape[1] - 1)]
        with self.meter.measured() as works:
            branches.decode_many(torch.zeros_like(rows), rows, places, sampling, numbers)
        self.decoded += sum(works.values(), Work())

    def _decode(
        self, branches: Branches, tokens: torch.Tensor, step: int, sampling: Sampling, numbers: torch.Tensor | None
    ) -> Work:
        """Decode one token of all rows; return what it cost."""
        with self.meter.measured() as works:
            branches.decode(tokens, step, sampling, step_numbers(numbers, step))
        self.meter.relabel(branches.cached(), CACHE)
        work = sum(works.values(), Work())
        self.decoded += work
        return work
