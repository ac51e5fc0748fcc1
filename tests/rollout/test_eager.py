"""Sampling against transformers' generate, and its log-probabilities against the training pass."""

import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from support.eager_policy import GREEDY, LIMIT, SAMPLED, SEEDS, SIZES, EagerToEnd
from support.random_models import make_prompts, plain_inputs, sharpen
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.rows import make_groups
from visionr1.rollout import draw
from visionr1.rollout import eager as rollout
from visionr1.rollout.eager import generate
from visionr1.rollout.engine import Completion, Sampling, Seeds


@cache
def load_eager(folder: Path) -> Policy:
    return EagerToEnd(sharpen(load_policy(folder)))


@pytest.fixture(params=["qwen3", "internvl"])
def policy(request: pytest.FixtureRequest) -> Policy:
    """One whose positions have three axes, and one whose positions have one."""
    return load_eager(request.getfixturevalue(f"{request.param}_folder"))


def sample(
    policy: Policy, seeds: Seeds = SEEDS, progress: Callable[[int, int], None] | None = None, **changed: Any
) -> list[list[Completion]]:
    """Replies drawn as `SAMPLED` says, but for what is changed."""
    return generate(policy, make_prompts(policy, SIZES), replace(SAMPLED, **changed), seeds, progress=progress)


def token_ids(groups: list[list[Completion]]) -> list[list[list[int]]]:
    return [[completion.token_ids.tolist() for completion in row] for row in groups]


def test_greedy_is_that_of_transformers(model_folder: Path) -> None:
    policy = sharpen(load_policy(model_folder))
    prompts = make_prompts(policy, SIZES)
    mine = generate(policy, prompts, GREEDY)
    for prompt, (completion,) in zip(prompts, mine, strict=True):
        expected = policy.model.generate(
            **plain_inputs(policy, prompt, prompt.input_ids[None]),
            max_new_tokens=LIMIT,
            do_sample=False,
            suppress_tokens=policy.suppressed_ids.tolist(),
        )[0, len(prompt.input_ids) :]
        assert completion.token_ids.tolist() == expected.tolist()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_p": 0.8, "temperature": 1.3},
    ],
    ids=str,
)
def test_logprobs_of_sampled_tokens_are_those_of_the_training_pass(policy: Policy, settings: dict[str, float]) -> None:
    check_logprobs(policy, settings)


def test_logprobs_of_every_family(model_folder: Path) -> None:
    check_logprobs(load_eager(model_folder), {"top_p": 0.9})


def check_logprobs(policy: Policy, settings: dict[str, float]) -> None:
    groups = sample(policy, **settings)
    lengths = {len(completion.token_ids) for row in groups for completion in row}
    assert len(lengths) > 1  # rows left the batch at different times
    rows = policy.path.pack(make_groups(make_prompts(policy, SIZES), [[c.token_ids for c in row] for row in groups]))
    scored = policy.token_logprobs(rows, temperature=settings.get("temperature", 1.0))
    torch.testing.assert_close(scored, torch.cat([c.logprobs for row in groups for c in row]), atol=1e-5, rtol=0)


def test_a_completion_ends_with_an_end_token_or_is_truncated(policy: Policy) -> None:
    completions = [completion for row in sample(policy) for completion in row]
    assert {completion.truncated for completion in completions} == {True, False}
    for completion in completions:
        ids = completion.token_ids.tolist()
        assert completion.truncated == (ids[-1] not in policy.eos_ids)
        assert not set(ids[:-1]) & set(policy.eos_ids)
        assert len(ids) == len(completion.logprobs) <= LIMIT
        assert (len(ids) == LIMIT) or not completion.truncated
        assert completion.text == policy.decode_reply(ids)


def test_dropping_ended_rows_changes_nothing(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visionr1.rollout.loop.KEEP_SHARE", 0.0)
    kept = generate(policy, make_prompts(policy, SIZES), GREEDY)
    monkeypatch.setattr("visionr1.rollout.loop.KEEP_SHARE", 1.1)
    dropped = generate(policy, make_prompts(policy, SIZES), GREEDY)
    assert [[c.text for c in row] for row in kept] == [[c.text for c in row] for row in dropped]


def test_a_full_cache_grows(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sample(policy, temperature=0.0)
    monkeypatch.setattr(rollout.Decoder, "block", 3)
    assert token_ids(sample(policy, temperature=0.0)) == token_ids(before)


def test_prompts_keys_are_held_once(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[DynamicCache]] = []

    class Noted(DynamicCache):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            made.append(weakref.ref(self))

    monkeypatch.setattr(rollout, "DynamicCache", Noted)
    alive: list[bool] = []

    def look(done: int, total: int) -> None:
        alive.append(made[0]() is not None)

    generate(policy, make_prompts(policy, SIZES), SAMPLED, SEEDS, progress=look)
    assert alive and not any(alive)


def test_the_seed_decides(policy: Policy) -> None:
    texts = [[c.text for c in row] for row in sample(policy)]
    assert texts == [[c.text for c in row] for row in sample(policy)]
    other = sample(policy, seeds=[(4, 0), (4, 1), (4, 2)])
    assert texts != [[c.text for c in row] for row in other]


def test_replies_do_not_depend_on_the_rest_of_the_batch(policy: Policy) -> None:
    together = token_ids(sample(policy))
    for place, prompt in enumerate(make_prompts(policy, SIZES)):
        alone = generate(policy, [prompt], SAMPLED, SEEDS[place : place + 1])
        assert token_ids(alone) == together[place : place + 1]


def test_tokens_are_drawn_by_their_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.0, 0.2, 0.3, 0.0])
    uniform = draw.uniform_numbers([(0,)], Sampling(num_completions=20_000, max_new_tokens=1))[:, 0]
    tokens, logprobs = draw.draw_tokens(probabilities.log().expand(len(uniform), -1), SAMPLED, uniform)
    shares = torch.bincount(tokens, minlength=5) / len(uniform)
    torch.testing.assert_close(shares, probabilities, atol=0.01, rtol=0)
    assert shares[1] == shares[4] == 0
    torch.testing.assert_close(logprobs, probabilities.log()[tokens])


def test_image_and_special_tokens_are_never_sampled(policy: Policy) -> None:
    forbidden = set(policy.suppressed_ids.tolist())
    assert policy.config.image_token_id in forbidden
    with torch.no_grad():  # the image token is what the model would like best
        policy.model.lm_head.weight[policy.config.image_token_id] *= 100
    sampled = {token for row in sample(policy) for c in row for token in c.token_ids.tolist()}
    assert not sampled & forbidden


def test_the_most_probable_token_alone_is_greedy(policy: Policy) -> None:
    greedy = token_ids(sample(policy, temperature=0.0))
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}):
        assert token_ids(sample(policy, **narrow)) == greedy


def test_top_p_and_top_k_restrict_as_they_should() -> None:
    logprobs = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = {
        (1.0, 0): 4,
        (1.0, 2): 2,
        (0.49, 0): 1,  # the first holds the mass by itself
        (0.51, 0): 2,
        (0.79, 0): 2,
        (0.96, 0): 4,
        (0.6, 2): 1,  # .5 of .8 is .625 after top-k
    }
    for (top_p, top_k), expected in kept.items():
        sampling = replace(SAMPLED, top_p=top_p, top_k=top_k)
        assert int(draw.truncate(logprobs, sampling).isfinite().sum()) == expected


@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 0), (0.7, 0), (1.0, 3), (0.6, 3)])
def test_tokens_are_drawn_as_often_as_they_are_probable(top_p: float, top_k: int) -> None:
    sampling = replace(SAMPLED, top_p=top_p, top_k=top_k)
    logits = torch.tensor([0.4, -torch.inf, 0.1, 0.3, 0.15, 0.05]).log()  # one token is suppressed
    logits[1] = -torch.inf
    logprobs, draws = logits.log_softmax(-1), 4000
    uniform = (torch.arange(draws) + 1) / draws
    tokens, chosen = draw.draw_tokens(logits.expand(draws, -1), sampling, uniform)
    expected = draw.truncate(logprobs[None], sampling).softmax(-1)[0]
    frequencies = torch.bincount(tokens, minlength=len(logits)) / draws
    torch.testing.assert_close(frequencies, expected, atol=2 / draws, rtol=0)
    assert torch.equal(chosen, logprobs[tokens])  # of the whole policy, before top-p and top-k


def test_progress_counts_tokens(policy: Policy) -> None:
    calls: list[tuple[int, int]] = []
    sample(policy, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i + 1, LIMIT) for i in range(len(calls))]
    assert calls
