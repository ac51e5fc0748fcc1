"""The rollout engines that a recipe may name (`rollout.engine`): one file each.

A record is a function `open_engine(policy, model, rollout)`, of the policy and the recipe's sections `model` and
`rollout`, that returns a `rollout.engine.RolloutEngine`. An installed package adds one by the entry point
`visionr1.rollout_engine`, a user by `module:object` or `file.py:object`. Names are listed without importing torch.
"""

from collections.abc import Callable
from typing import Any

from visionr1.errors import RecipeError
from visionr1.registry import Registry

OpenEngine = Callable[..., Any]
"""(policy: Policy, model: ModelSection, rollout: RolloutSection) -> RolloutEngine; the types need torch."""
TRAINING_ALONE = ("vllm_server",)
"""Engines that need settings which a recipe alone has (`rollout.server`)."""
_READ_FOLDER: list[OpenEngine] = []


def reads_folder(opener: OpenEngine) -> OpenEngine:
    """Mark the opener of an engine that reads the model folder itself.

    To evaluate a folder, it gets a policy without weights (`models.loading.load_encoder`), so that the model is in
    memory once.
    """
    _READ_FOLDER.append(opener)
    return opener


def needs_weights(opener: OpenEngine) -> bool:
    """Return False if the engine reads the model folder itself, as `reads_folder` marks it."""
    return all(opener is not marked for marked in _READ_FOLDER)


def answering_engines() -> list[str]:
    """Return the names of the engines that answer from a model folder, for `eval`, `predict` and `vqa`."""
    return [name for name in ENGINES if name not in TRAINING_ALONE]


def _check_engine(named: Any) -> OpenEngine:
    """Return what a user's `module:object` names if it can be called."""
    if not callable(named):
        raise RecipeError(
            f"{named!r:.80} is no rollout engine: expected a function (policy, model, rollout) that returns one "
            "(see docs/extending.md)"
        )
    opener: OpenEngine = named
    return opener


ENGINES: Registry[OpenEngine] = Registry(
    "rollout engine",
    packages=("visionr1.rollout.engines",),
    attribute="open_engine",
    named_by_file=True,
    check=_check_engine,
)
