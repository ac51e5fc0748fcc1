"""From last hidden states to log-probabilities, with logits held for a chunk of tokens at a time.

Axis letters: N completion tokens, T tokens of a row, R rows, D width, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from visionr1.models.policy import target_logprobs

LOGITS_PER_CHUNK = 1 << 26
"""Logits held at once when tokens are scored; beyond it they are recomputed for the gradient."""


def score_in_chunks(
    logits_after: Callable[[Tensor], Tensor], states: Tensor, targets: Tensor, vocabulary: int
) -> Tensor:
    """Return the log-probabilities (N,) of `targets` (N,) after hidden `states` (N, D).

    `logits_after` makes the policy's logits (N, V) of states. Those of a long row would fill memory, so beyond
    LOGITS_PER_CHUNK they are made anew for the gradient.
    """

    def score(states: Tensor, targets: Tensor) -> Tensor:
        return target_logprobs(logits_after(states), targets)

    chunk = max(1, LOGITS_PER_CHUNK // vocabulary)
    if len(targets) <= chunk:
        return score(states, targets)
    chunks = zip(states.split(chunk), targets.split(chunk), strict=True)
    return torch.cat([checkpoint(score, *part, use_reentrant=False) for part in chunks])


def last_hidden_states(model: Any, **inputs: Any) -> Tensor:
    """Return the states (R, T, D) that the output layer of a transformers `model` is given for `inputs`.

    The output layer itself is called with no token: logits of all tokens are many times larger than their states.
    """
    states: list[Tensor] = []

    def take(_: Any, arguments: tuple[Tensor]) -> Tensor:
        states.append(arguments[0])
        return arguments[0][:, :0]

    hook = model.get_output_embeddings().register_forward_pre_hook(take)
    try:
        model(**inputs)
    finally:
        hook.remove()
    return states[0]


def model_logits(model: Any, states: Tensor) -> Tensor:
    """Return the model's logits (N, V) after last hidden `states` (N, D), as its own forward pass makes them.

    Models cap or scale what their output layer returns, each in its own way, so the code of their `forward` runs, on
    states that are there instead of those of its body.
    """
    output = type(model).forward(
        _WithStates(model, states[None]), input_ids=states.new_zeros((1, len(states)), dtype=torch.long)
    )
    logits: Tensor = output.logits[0]
    return logits


class _WithStates:
    """A model whose body returns given last hidden states (1, N, D), whatever it is called with."""

    def __init__(self, model: Any, states: Tensor) -> None:
        self._model = model
        self._output = _BodyOutput(states)

    def model(self, *_: Any, **__: Any) -> "_BodyOutput":
        """Take the place of the body."""
        return self._output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _BodyOutput:
    """What a model's body returns: last hidden states, and nothing else that a body may return besides."""

    def __init__(self, states: Tensor) -> None:
        self.last_hidden_state = states

    def __getitem__(self, number: int) -> Tensor:
        return (self.last_hidden_state,)[number]

    def __getattr__(self, name: str) -> None:
        return None
