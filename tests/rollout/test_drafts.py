"""Drafts: what is guessed, and that guesses change no reply."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.eager_policy import GREEDY, SAMPLED, SEEDS, SIZES
from support.random_models import make_prompts, sharpen
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.rollout.drafts import Drafter
from visionr1.rollout.eager import Decoder, generate
from visionr1.rollout.engine import Completion, Sampling


@pytest.mark.parametrize(
    ("seen", "tokens", "guesses"),
    [
        ([[1, 2, 3, 4]], [1], []),  # once is not enough to tell
        ([[1, 2, 3, 4], [1, 2, 3, 4]], [1], [2, 3, 4]),
        ([[1, 2, 3, 4], [1, 2, 3, 4]], [9, 1, 2], [3, 4]),  # a longer context never came, a shorter one did
        ([[1, 2], [1, 3], [1, 2], [1, 3]], [1], []),  # two tokens as likely
        ([[1, 2]] * 4 + [[1, 3]], [1], [2]),  # four times in five
        ([[5, 1, 2], [6, 1, 3]] * 2, [5, 1], [2]),  # the longest context decides
        ([[7] * 9], [7], [7] * 6),  # a loop is guessed as far as may be
        ([], [1, 2, 3], []),
    ],
)
def test_what_followed_before_is_guessed(seen: list[list[int]], tokens: list[int], guesses: list[int]) -> None:
    drafter = Drafter()
    for reply in seen:
        drafter.learn(reply, 0)
    assert drafter.guess(tokens, 6) == guesses
    assert drafter.guess(tokens, 1) == guesses[:1]
    assert drafter.guess(tokens, 0) == []


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 30))
def test_a_reply_may_be_learnt_in_parts(reply: list[int], cut: int) -> None:
    whole, parts = Drafter(), Drafter()
    whole.learn(reply, 0)
    parts.learn(reply[:cut], 0)
    parts.learn(reply, len(reply[:cut]))
    assert whole.guess(reply, 8) == parts.guess(reply, 8)


class NoGuesses(Decoder):
    most_guesses = 0


class Noting(Decoder):
    """Note how many tokens each pass takes."""

    def __init__(self) -> None:
        self.widths: list[int] = []

    def step(self, policy, cache, tokens, *rest):  # type: ignore[no-untyped-def,override]
        self.widths.append(len(tokens))
        return Decoder.step(policy, cache, tokens, *rest)


class Repeating(Policy):
    """A policy whose replies are as fixed text mostly is: a token is nearly always followed by the same one."""

    def logits(self, hidden, *, temperature=1.0, suppress=True):  # type: ignore[no-untyped-def,override]
        logits = super().logits(hidden, temperature=temperature, suppress=suppress)
        return torch.where(torch.arange(logits.shape[-1]) % 16 == 0, logits, logits - 4)


def flat(groups: list[list[Completion]]) -> list[Completion]:
    return [one for group in groups for one in group]


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        SAMPLED,
        replace(SAMPLED, temperature=0.3),
        replace(SAMPLED, top_p=0.8, top_k=6),
        replace(SAMPLED, max_new_tokens=1),
        replace(SAMPLED, max_new_tokens=2),
    ],
    ids=str,
)
def test_guesses_change_no_reply(model_folder: Path, sampling: Sampling) -> None:
    loaded = sharpen(load_policy(model_folder))
    policy = Repeating(loaded.model, loaded.tokenizer, loaded.image_processor, loaded.dialect, loaded.path)
    prompts = make_prompts(policy, SIZES)
    decoder = Noting()
    drafted = flat(generate(policy, prompts, sampling, SEEDS, decoder=decoder))
    plain = flat(generate(policy, prompts, sampling, SEEDS, decoder=NoGuesses()))
    assert [one.token_ids.tolist() for one in drafted] == [one.token_ids.tolist() for one in plain]
    assert [one.truncated for one in drafted] == [one.truncated for one in plain]
    assert [one.text for one in drafted] == [one.text for one in plain]
    for one, other in zip(drafted, plain, strict=True):
        torch.testing.assert_close(one.logprobs, other.logprobs, atol=2e-5, rtol=0)

    # Greedy replies of a small model go in circles, so that guesses are right: fewer passes than tokens.
    longest = max(len(one.token_ids) for one in drafted)
    assert len(decoder.widths) <= longest - 1
    if not sampling.temperature:
        assert len(decoder.widths) < longest - 1
