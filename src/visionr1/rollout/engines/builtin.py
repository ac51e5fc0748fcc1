"""The built-in engine: one pass over each image and prompt, then all completions side by side."""

from collections.abc import Sequence

from visionr1.errors import RecipeError
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.settings import ModelSection
from visionr1.rollout import eager, generic
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
    sample = eager.generate if policy.path.packs_rows else generic.generate
    return sample(policy, prompts, sampling, seeds, progress=progress)


def open_engine(policy: Policy, model: ModelSection, rollout: RolloutSection) -> RolloutEngine:
    """Return `generate`, or the compiled decoder if the recipe asks for it.

    Raises RecipeError if the policy takes the generic path, which cannot be compiled.
    """
    if not rollout.compile:
        return generate
    if not policy.path.packs_rows:
        raise RecipeError(
            f"rollout.compile: expected false for models of type {policy.config.model_type!r}, which take the "
            "generic path and decode with transformers' own layers"
        )
    return CompiledDecoder(policy)
