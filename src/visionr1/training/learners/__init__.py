"""Learners turn a step's samples into a loss: `Supervised` (SFT) and `Reinforced` (GRPO, Vision-R1).

A learner has three parts, each a function of its arguments: `prepare` needs no model and may run in a worker process
(`encode` each sample, `assemble` those of a step); `collect` turns what was prepared into the step's work, split to fit
into memory; `loss` is the share of one part of that work in the step's loss, its gradients summed over parts.

Each rank does this with its share of the step's samples. Weights are those of the whole batch and metrics are of all
samples, so that neither depends on the split.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from visionr1.models.adapters import has_adapters
from visionr1.models.memory.offload import OffloadedWeights
from visionr1.models.policy import Policy
from visionr1.rollout.engines import ENGINES
from visionr1.training.distributed import Trained
from visionr1.training.learners.base import Collected, Learner, Metrics, check_fit, encode
from visionr1.training.learners.reinforced import GroupWork, Reinforced, make_rewards
from visionr1.training.learners.supervised import Supervised, SupervisedWork
from visionr1.training.recipe import Recipe

__all__ = [
    "Collected",
    "GroupWork",
    "Learner",
    "Metrics",
    "Reinforced",
    "Supervised",
    "SupervisedWork",
    "check_fit",
    "encode",
    "make_learner",
    "make_rewards",
]


def make_learner(
    policy: Policy,
    recipe: Recipe,
    load_initial: Callable[[], Policy],
    freeze: Callable[[nn.Module], Callable[..., Any]] = Trained,
) -> Learner:
    """Make the learner that the recipe's method names.

    `load_initial` loads the reference model; `freeze`, as `distributed.wrap_frozen`, leaves of it what this rank holds.
    A policy with adapters is its own reference: without them it is the model it started from.
    """
    if recipe.method == "sft":
        return Supervised(policy, recipe)
    engine = ENGINES.resolve(recipe.rollout.engine)(policy, recipe.model, recipe.rollout)

    # The loss without KL needs no reference; a policy with adapters is its own.
    if not recipe.grpo.beta:
        return Reinforced(policy, recipe, None, engine)
    if has_adapters(policy.model):
        return Reinforced(policy, recipe, policy, engine)

    reference = load_initial()
    reference.model.requires_grad_(False)
    learner = Reinforced(policy, recipe, reference, engine)
    learner.refer = freeze(reference.model)
    if recipe.model.offload_reference:
        learner.reference_loaded = OffloadedWeights(reference.model).loaded
    return learner
