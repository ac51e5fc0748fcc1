"""Replies of one token to one sample of each batch, for what depends on the lengths of others."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from visionr1.models.prompts import Prompt
from visionr1.rollout.engine import Completion, Seeds
from visionr1.training.learners import Reinforced


@contextmanager
def one_token_replies(place: int) -> Iterator[None]:
    """Cut the replies to the sample at this `place` of each batch to their first token inside this block."""
    roll_out = Reinforced.roll_out

    def cut(self: Reinforced, prompts: Sequence[Prompt], seeds: Seeds) -> list[list[Completion]]:
        groups = roll_out(self, prompts, seeds)
        for number, seed in enumerate(seeds):
            if seed[-1] == place:
                groups[number] = [first_token(self, completion) for completion in groups[number]]
        return groups

    def first_token(self: Reinforced, completion: Completion) -> Completion:
        ids = completion.token_ids[:1]
        text = self.policy.decode_reply(ids.tolist())
        return replace(completion, token_ids=ids, text=text, logprobs=completion.logprobs[:1], truncated=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reinforced, "roll_out", cut)
        yield
