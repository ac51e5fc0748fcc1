"""GRPO, as the paper uses it (Vision-R1, arXiv 2503.18013, section 3.1; DeepSeekMath, 2402.03300).

It knows tensors, not boxes. For each sample the policy writes G completions; a rule scores each.

Eq. 1  A_i = (r_i - mean(r)) / std(r)                    within the group r_1 ... r_G
Eq. 2  maximise  mean_i [ pi(o_i) / pi_old(o_i) * A_i  -  beta * KL(pi || pi_ref) ]

Where this departs from the equations as printed, it does what GRPO's own paper and code do:
- Eq. 1 has no 1e-4 beside the standard deviation; the deviation is the sample's (ddof 1).
- Eq. 2 has one ratio for the whole completion and no clip. Here each token has its ratio, which is
  clipped where a rollout is used more than once; the tokens' terms are averaged over a completion,
  then over completions (`token_weights` says what else there is, and why).
- KL is estimated per token by k3 = exp(ref - log) - (ref - log) - 1: unbiased and never negative.
- pi_old is the policy at the rollout, scored anew by the code that computes the gradient, not the log-probabilities
  that the rollout engine drew with. How far those are from it is in every step's metrics (`sampling/gap`); there is no
  correction for it, nor for what top-p and top-k leave out.
- A group whose completions all scored the same tells nothing: its advantages are 0, and it is
  counted.

Axis letters: B samples, G completions of one sample, N completion tokens in all.
"""

from typing import Literal

import torch
from torch import Tensor

EPSILON = 1e-4
MeanOver = Literal["completion", "batch"]


def advantages(rewards: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 1: advantages (B, G) of rewards (B, G), and which groups (B,) had no spread.

    Raises ValueError where G is below 2: one completion has nothing to be compared with.
    """
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(f"rewards must be (B, G) with G of 2 or more, found {tuple(rewards.shape)}")
    mean = rewards.mean(dim=1, keepdim=True)
    deviation = rewards.std(dim=1, keepdim=True, correction=1)
    no_spread = rewards.amax(dim=1) == rewards.amin(dim=1)
    scaled = (rewards - mean) / (deviation + EPSILON)
    return scaled.masked_fill(no_spread[:, None], 0.0), no_spread


def token_weights(completion: Tensor, lengths: Tensor, total: int, mean_over: MeanOver = "completion") -> Tensor:
    """Weights (N,) of the tokens' terms; over all tokens of a step they sum to 1, on however many processes.

    `completion` (N,) says which completion a token belongs to, `lengths` how many tokens each has, `total` how many
    completions or tokens, whichever the mean is over, the whole step has. Over the "completion" it is the mean of a
    completion's tokens, then of completions: GRPO's own form, in which a token of a long completion counts less, so
    that a long bad reply is punished less than a short one. Over the "batch" every token counts alike: Eq. 2 as
    printed, up to a factor, for the gradient of a completion's ratio is the sum over its tokens.
    """
    if mean_over == "batch":
        return torch.full(completion.shape, 1.0 / total)
    return 1.0 / (lengths[completion] * total)


def surrogate(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """The ratio's term of Eq. 2 per token (N,), clipped as in PPO; all arguments are (N,).

    Where `old_logprobs` are the same numbers as `logprobs` (one update per rollout), the ratio is 1,
    the clip does nothing, and the gradient is A_i times that of log pi.
    """
    ratio = torch.exp(logprobs - old_logprobs)
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return torch.minimum(ratio * advantages, clipped * advantages)


def kl(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The KL's term of Eq. 2 per token (N,): k3, the estimate of KL(pi || pi_ref)."""
    difference = reference_logprobs - logprobs
    return torch.exp(difference) - difference - 1


def loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    reference_logprobs: Tensor | None,
    advantages: Tensor,
    weights: Tensor,
    *,
    beta: float,
    clip: float,
) -> Tensor:
    """Eq. 2, negated to be minimised. All tensors are (N,); `weights` come from `token_weights`.

    Summed over micro-batches it is the loss of the whole step.
    """
    gain = surrogate(logprobs, old_logprobs, advantages, clip)
    if reference_logprobs is not None:
        gain = gain - beta * kl(logprobs, reference_logprobs)
    return -(weights * gain).sum()
