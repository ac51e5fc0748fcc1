"""The built-in engine: this package's decoding where completions share a prefix, else transformers' `generate`."""

from collections.abc import Sequence

from visionr1.errors import RecipeError
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.settings import ModelSection
from visionr1.rollout import eager, plain
from visionr1.rollout.compiled import CompiledDecoder
from visionr1.rollout.engine import Completion, Progress, RolloutEngine, Sampling, Seeds
from visionr1.rollout.settings import RolloutSection


def generate(
    policy: Policy,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seeds: Seeds = (),
    *,
    progress: Progress | None = None,
) -> list[list[Completion]]:
    """Sample as `RolloutEngine`, on the policy's path."""
    sample = eager.generate if policy.path.shares_prefix else plain.generate
    return sample(policy, prompts, sampling, seeds, progress=progress)


def open_engine(policy: Policy, model: ModelSection, rollout: RolloutSection) -> RolloutEngine:
    """Return `generate`, or the compiled decoder if the recipe asks for it.

    Raises RecipeError if the policy takes the plain path, which cannot be compiled.
    """
    if not rollout.compile:
        return generate
    if not policy.path.shares_prefix:
        raise RecipeError(
            f"rollout.compile: expected false for models of type {policy.config.model_type!r}, which take the "
            "plain path and decode by transformers' own generate"
        )
    return CompiledDecoder(policy)
