"""What all learners share: their three parts, and the encoding of a sample's prompt."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from visionr1.errors import DataError
from visionr1.evaluation.model.read_ahead import describe_refused
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.rows import warn_over_budget
from visionr1.registry import ImportedFiles
from visionr1.rollout.engine import RolloutEngine, Seeds
from visionr1.samples import Sample
from visionr1.training.outcomes import RolloutRow
from visionr1.training.recipe import Recipe

Metrics = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Collected:
    """A step's work, with its metrics and the rows of its rollouts."""

    work: list[Any]
    metrics: Metrics
    rollouts: list[RolloutRow] = field(default_factory=list)
    """One row per completion."""
    seconds: float = 0.0
    """Time that rollout and reward took."""


class Learner(ABC):
    """Prepare samples, collect a step's work from them and compute its loss (see above)."""

    updates = 1
    """Optimizer steps on one step's work."""
    engine: RolloutEngine | None = None
    """What samples completions, if the method samples any."""
    group_size = 1
    """Completions of one sample; a part's rows number them through, sample by sample."""

    def __init__(self, policy: Policy, recipe: Recipe) -> None:
        self.policy = policy
        self.recipe = recipe

    def __getstate__(self) -> dict[str, Any]:
        """Pickle what `prepare` needs in a worker process: the reference and the engine stay behind."""
        # The policy's dialect may be of a user's file, which a worker that is not forked has to import first.
        return {"files": ImportedFiles(), "policy": self.policy, "recipe": self.recipe}

    @abstractmethod
    def encode(self, sample: Sample) -> Any:
        """Encode the prompt of a sample, with what is needed of its truth.

        Raises DataError, which names the sample, if its image cannot be read or fed to the model.
        """

    @abstractmethod
    def assemble(self, encoded: list[Any]) -> Any:
        """Put what `encode` returned of a step's samples together."""

    def prepare(self, samples: Sequence[Sample]) -> Any:
        """Encode and assemble the samples of a step."""
        return self.assemble([self.encode(sample) for sample in samples])

    @abstractmethod
    def collect(self, prepared: Any, seeds: Seeds, progress: float) -> Collected:
        """Return the step's work, in at least one part.

        `seeds` has one seed for each sample; `progress` is the share of training done.
        """

    def whole_modules(self) -> Iterable[nn.Module] | None:
        """Return the modules that `collect` runs unequally often on the ranks, so that each must hold them whole.

        None is all of the model.
        """
        return ()

    @abstractmethod
    def loss(self, work: Any) -> tuple[Tensor, Metrics]:
        """Return this part's share of the loss, and of metrics that are sums over the step's parts."""

    def post_update_metrics(self, work: list[Any]) -> Metrics:
        """Return metrics that need the policy to have been updated on the step's work."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Go on from what a checkpoint kept."""


def encode(policy: Policy, sample: Sample) -> Prompt:
    """Encode a sample's prompt; a DataError names the sample."""
    try:
        return policy.encode(sample.load_image(), sample.query)
    except DataError as error:
        raise DataError(describe_refused(sample, error)) from error


def check_fit(
    policy: Policy,
    recipe: Recipe,
    sample: Sample,
    prompt: Prompt,
    num_new: int,
) -> None:
    """Raise DataError if a prompt and its `num_new` tokens are more than the model's context.

    Warn where they are more than a pass is to take.
    """
    if len(prompt.input_ids) + num_new > policy.context:
        raise DataError(
            f"sample {sample.id}: its prompt takes {len(prompt.input_ids)} tokens and its completion "
            f"up to {num_new}, but the model's context holds {policy.context}; "
            "use smaller images or lower rollout.max_new_tokens"
        )
    warn_over_budget(sample.id, len(prompt.input_ids), num_new, recipe.optimizer.tokens_per_forward)
