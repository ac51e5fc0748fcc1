"""GRPO's equations on numbers worked out by hand."""

import math

import pytest
import torch

from visionr1.training import grpo


def test_advantages_of_a_group() -> None:
    # mean 2, deviations -1 0 1, sample standard deviation 1
    advantages, no_spread = grpo.advantages(torch.tensor([[1.0, 2.0, 3.0]]))
    torch.testing.assert_close(advantages, torch.tensor([[-1.0, 0.0, 1.0]]) / (1 + 1e-4))
    assert no_spread.tolist() == [False]


def test_a_group_without_spread_tells_nothing_and_is_counted() -> None:
    # 0.1 + 0.2 in float32 must not turn rounding into an advantage
    rewards = torch.tensor([[0.3, 0.3, 0.3], [0.0, 1.0, 2.0]])
    advantages, no_spread = grpo.advantages(rewards)
    assert advantages[0].tolist() == [0.0, 0.0, 0.0]
    assert advantages[1].any()
    assert no_spread.tolist() == [True, False]


@pytest.mark.parametrize("shape", [(3, 1), (3,), (2, 0)])
def test_one_completion_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="2 or more"):
        grpo.advantages(torch.zeros(shape))


@pytest.mark.parametrize(
    ("mean_over", "total", "expected"),
    [
        ("completion", 2, [0.5, 0.125, 0.125, 0.125, 0.125]),  # over tokens, then completions
        ("completion", 4, [0.25, 0.0625, 0.0625, 0.0625, 0.0625]),  # two more are another process's
        ("batch", 5, [0.2] * 5),  # over all tokens alike
        ("batch", 10, [0.1] * 5),
    ],
)
def test_weights_average_over_completions_or_tokens(
    mean_over: grpo.MeanOver, total: int, expected: list[float]
) -> None:
    lengths = torch.tensor([1, 4])
    completion = torch.tensor([0, 1, 1, 1, 1])
    assert grpo.token_weights(completion, lengths, total, mean_over).tolist() == pytest.approx(expected)


def test_on_policy_gradient_is_the_advantage_times_that_of_log_pi() -> None:
    logprobs = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    advantages = torch.tensor([2.0, -1.0, -1.0])
    weights = torch.tensor([0.5, 0.25, 0.25])
    loss = grpo.loss(logprobs, logprobs.detach(), None, advantages, weights, beta=0.2, clip=0.2)
    assert loss.item() == pytest.approx(-(0.5 * 2 - 0.25 - 0.25))
    loss.backward()
    torch.testing.assert_close(logprobs.grad, -weights * advantages)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "moves"),
    [
        (1.1, 1.0, 1.1, True),
        (1.5, 1.0, 1.2, False),  # a good token has been raised enough
        (0.5, 1.0, 0.5, True),  # a good token that fell is still raised
        (0.5, -1.0, -0.8, False),  # a bad token has been lowered enough
        (1.5, -1.0, -1.5, True),  # a bad token that rose is still lowered
    ],
)
def test_the_clip(ratio: float, advantage: float, expected: float, moves: bool) -> None:
    old = torch.tensor([-1.0])
    new = (old + math.log(ratio)).requires_grad_()
    gain = grpo.surrogate(new, old, torch.tensor([advantage]), clip=0.2)
    assert gain.item() == pytest.approx(expected, rel=1e-5)
    gain.sum().backward()
    assert bool(new.grad.any()) == moves


def test_k3_is_zero_at_the_reference_and_positive_elsewhere() -> None:
    logprobs = torch.tensor([-1.0, -1.0, -1.0])
    reference = torch.tensor([-1.0, -1.0 + math.log(2), -1.0 - math.log(2)])
    expected = torch.tensor([0.0, 2 - math.log(2) - 1, 0.5 + math.log(2) - 1])
    torch.testing.assert_close(grpo.kl(logprobs, reference), expected)


def test_k3_averages_to_the_kl() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    exact = (p * (p / q).log()).sum()
    torch.testing.assert_close((p * grpo.kl(p.log(), q.log())).sum(), exact)


def test_the_whole_loss() -> None:
    logprobs = torch.tensor([-1.0, -2.0])
    old = logprobs - math.log(1.1)
    reference = logprobs + math.log(2)
    advantages, weights = torch.tensor([1.0, -1.0]), torch.tensor([0.5, 0.5])
    loss = grpo.loss(logprobs, old, reference, advantages, weights, beta=0.2, clip=0.2)
    penalty = 0.2 * (2 - math.log(2) - 1)
    assert loss.item() == pytest.approx(-(0.5 * (1.1 - penalty) + 0.5 * (-1.1 - penalty)), rel=1e-5)


def test_parts_of_a_batch_add_up() -> None:
    generator = torch.Generator().manual_seed(0)
    logprobs, old, reference, advantages, weights = torch.rand((5, 8), generator=generator)
    arguments = (logprobs, old, reference, advantages, weights)
    whole = grpo.loss(*arguments, beta=0.1, clip=0.2)
    parts = [grpo.loss(*(a[part] for a in arguments), beta=0.1, clip=0.2) for part in (slice(3), slice(3, 8))]
    assert whole.item() == pytest.approx(sum(part.item() for part in parts), rel=1e-5)
