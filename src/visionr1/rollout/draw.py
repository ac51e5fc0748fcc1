"""Drawing a token from logits, by numbers that come from seeds: the same draw in every engine of this package.

Axis letters: G completions of one prompt, N rows, T tokens, V vocabulary.
"""

import numpy as np
import torch
from torch import Tensor

from visionr1.rollout.engine import Sampling, Seeds


def uniform_numbers(seeds: Seeds, sampling: Sampling) -> Tensor | None:
    """Return numbers (N, T) above 0 and at most 1, the G rows of each prompt from its seed; None if greedy."""
    if not sampling.temperature:
        return None
    shape = (sampling.num_completions, sampling.max_new_tokens)
    drawn = [1 - np.random.default_rng(seed).random(shape) for seed in seeds]
    return torch.from_numpy(np.concatenate(drawn)).float()


def step_numbers(uniform: Tensor | None, step: int, rows: Tensor | slice = slice(None)) -> Tensor | None:
    """Return the numbers of `rows` for one step, out of `uniform` (N, T); None if greedy."""
    return None if uniform is None else uniform[rows, step]


def draw_tokens(logits: Tensor, sampling: Sampling, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
    """Draw a token (N,) from each row of `logits` (N, V); return it and its log-probability before top-p and top-k.

    Inverse transform sampling: the first token at which the cumulative probability reaches the share `uniform` (N,) of
    the whole. Without `uniform`, the most probable token.
    """
    logprobs = logits.log_softmax(dim=-1)
    if uniform is None:
        tokens = logprobs.argmax(dim=-1)
    else:
        probabilities = truncate(logprobs, sampling).exp()
        mass = probabilities.cumsum(dim=-1)
        tokens = torch.searchsorted(mass, uniform[:, None] * mass[:, -1:])[:, 0]
        tokens = tokens.clamp(max=logits.shape[-1] - 1)  # beyond it where logits are not finite, as a caller finds out

        # A parallel cumulative sum may fall by a rounding error; a CPU adds in order.
        if logits.device.type != "cpu":
            possible = probabilities.gather(-1, tokens[:, None])[:, 0] > 0
            tokens = torch.where(possible, tokens, logprobs.argmax(dim=-1))
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


def truncate(logprobs: Tensor, sampling: Sampling) -> Tensor:
    """Set log-probabilities (N, V) outside top-k, then outside top-p of the rest, to minus infinity."""
    if sampling.top_k and sampling.top_k < logprobs.shape[-1]:
        least = logprobs.topk(sampling.top_k).values[:, -1:]
        logprobs = logprobs.masked_fill(logprobs < least, -torch.inf).log_softmax(dim=-1)
    if sampling.top_p < 1:
        ordered, order = logprobs.sort(descending=True)
        mass = ordered.exp()
        beyond = mass.cumsum(dim=-1) - mass >= sampling.top_p
        logprobs = logprobs.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
    return logprobs
