"""A rollout engine with a copy of the weights, as vLLM has one: it samples by the built-in engine from that copy.

So a run by it is the same as one by the built-in engine, on any number of processes. It refuses weights that come in
shards, twice or not at all, and more of them in memory at once than two.
"""

import weakref
from collections.abc import Sequence
from typing import Any

from torch.distributed.tensor import DTensor

from visionr1.models.adapters import gathered_weights
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.rollout.engine import Completion, Sampling, Seeds
from visionr1.rollout.engines.builtin import generate

MOST_ALIVE = 2
"""The weight that is being gathered, and the one before it, which the loop still holds."""


class CopyingEngine:
    """The built-in engine on a copy of the policy."""

    copies_weights = True

    def __init__(self, policy: Policy) -> None:
        self.copy = load_policy(policy.model.name_or_path)
        self.shards = is_sharded(policy)

    def __call__(
        self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, seeds: Seeds = ()
    ) -> list[list[Completion]]:
        assert is_sharded(policy) == self.shards, "the policy was put together for an engine that has its own weights"
        self.load(policy)
        assert is_sharded(policy) == self.shards
        return generate(self.copy, prompts, sampling, seeds)

    def load(self, policy: Policy) -> None:
        """Copy the weights one by one, and count those that are alive."""
        parameters = dict(self.copy.model.named_parameters())
        alive: weakref.WeakSet[Any] = weakref.WeakSet()
        shared = {parameter.data_ptr() for parameter in policy.model.parameters() if not isinstance(parameter, DTensor)}
        for name, weight in gathered_weights(policy.model):
            assert not isinstance(weight, DTensor)
            if weight.data_ptr() not in shared:  # gathered or merged: memory of its own
                alive.add(weight)
            assert len(alive) <= MOST_ALIVE, f"{len(alive)} whole weights at once"
            parameters.pop(name).data.copy_(weight)
        assert not parameters, f"weights that never came: {sorted(parameters)}"


def is_sharded(policy: Policy) -> bool:
    """Return True if this rank holds shards of every decoder layer."""
    return all(isinstance(weight, DTensor) for weight in policy.decoder.layers.parameters())


def open_engine(policy: Policy, model: object, rollout: object) -> CopyingEngine:
    return CopyingEngine(policy)
