"""Learners turn a step's samples into a loss: `Supervised` (SFT) and `Reinforced` (GRPO, Vision-R1).

A learner has three parts, each a function of its arguments: `prepare` needs no model and may run in a worker process;
`collect` turns what was prepared into the step's work, split to fit into memory; `loss` is the share of one part of
that work in the step's loss, its gradients summed over parts.

Each rank does this with its share of the step's samples. Weights are those of the whole batch and metrics are of all
samples, so that neither depends on the split.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from visionr1.dialects import Dialect
from visionr1.errors import CheckpointError, DataError, TrainingError
from visionr1.models.adapters import adapters_off, base_checksum, has_adapters
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.rows import Group, Rows, make_groups, warn_over_budget
from visionr1.models.trainable import vision_trains
from visionr1.registry import ImportedFiles
from visionr1.rewards import AdaptiveStages, FixedStages, Score, Scorer, Stage, Stages
from visionr1.rewards.hacking import measure
from visionr1.rewards.user import describe_raised
from visionr1.rollout.engine import Completion, RolloutEngine, Sampling, Seeds
from visionr1.rollout.engines import ENGINES
from visionr1.samples import Sample
from visionr1.training import grpo, sft
from visionr1.training.distributed import Trained, equal_passes, gather
from visionr1.training.outcomes import (
    Outcome,
    Question,
    RolloutRow,
    ZeroRewardWatch,
    make_outcomes,
    mean,
    means,
)
from visionr1.training.recipe import Recipe

Item = TypeVar("Item")
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
    def prepare(self, samples: list[Sample]) -> Any:
        """Encode the prompts of samples, with what is needed of their truth."""

    @abstractmethod
    def collect(self, prepared: Any, seeds: Seeds, progress: float) -> Collected:
        """Return the step's work, in at least one part.

        `seeds` has one seed for each sample; `progress` is the share of training done.
        """

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


@dataclass(frozen=True, slots=True)
class SupervisedWork:
    """Rows, and the weight (N,) of each completion token; weights sum to one over the step."""

    rows: Rows
    weights: Tensor


class Supervised(Learner):
    """SFT: each sample's one completion is its rendered truth."""

    def __init__(self, policy: Policy, recipe: Recipe) -> None:
        super().__init__(policy, recipe)
        self.token_weights = sft.token_weights(policy, recipe.sft)

    def prepare(self, samples: list[Sample]) -> list[Rows]:
        """Return packed rows, in which each prompt has one completion."""
        prompts = [encode(self.policy, sample) for sample in samples]
        targets = []
        for sample, prompt in zip(samples, prompts, strict=True):
            targets.append(sft.target(self.policy, sample, prompt, self.recipe.sft))
        check_fit(self.policy, self.recipe, samples, prompts, [len(target) for target in targets])

        groups = make_groups(prompts, [(target,) for target in targets])
        parts = self.policy.path.micro_batches(groups, self.recipe.optimizer.tokens_per_forward)
        return [self.policy.path.pack(part) for part in parts]

    def collect(self, prepared: list[Rows], seeds: Seeds, progress: float) -> Collected:
        """Return the rows with their token weights."""
        parts = [rows.to(self.policy.device) for rows in prepared]
        weights = [self.token_weights[rows.targets] for rows in parts]

        # Weights sum to one over the parts of all ranks, so that the split changes no gradient.
        weight_of_rank = torch.stack([part_weights.sum() for part_weights in weights]).sum()
        total_weight = sum(gather([float(weight_of_rank)]))
        work = []
        for rows, part_weights in zip(parts, weights, strict=True):
            work.append(SupervisedWork(rows, part_weights / total_weight))

        num_tokens = sum(gather([len(rows.targets) for rows in parts]))
        return Collected(work, {"tokens": num_tokens})

    def loss(self, work: SupervisedWork) -> tuple[Tensor, Metrics]:
        """Return the weighted negative log-likelihood of the truth."""
        logprobs = self.policy.token_logprobs(work.rows, suppress=False)
        return sft.loss(logprobs, work.weights), {}


@dataclass(slots=True)
class GroupWork:
    """Rows of groups; all tensors are (N,), per completion token."""

    rows: Rows
    advantages: Tensor
    weights: Tensor
    sampled: Tensor
    """Log-probabilities that the rollout engine said it drew the tokens with, on the CPU."""
    reference: Tensor | None = None
    old: Tensor | None = None
    """Log-probabilities at the first update, which later ones are compared with."""


class Reinforced(Learner):
    """Vision-R1: sample G completions of each sample, score them by rule, learn by GRPO."""

    def __init__(
        self,
        policy: Policy,
        recipe: Recipe,
        reference: Policy | None,
        engine: RolloutEngine,
    ) -> None:
        """Make the rewards and stages of the recipe.

        `reference` may be `policy` itself, whose adapters are then off for it. None: the loss has no KL.
        """
        super().__init__(policy, recipe)
        self.reference = reference
        self.engine = engine
        self.refer: Callable[..., Any] = _call
        """Runs a function in the forward pass of the reference, equally often on all ranks."""
        self.reference_sum = 0
        if reference is not None:
            self.reference_sum = base_checksum(reference.model)
        self.vision_trains = vision_trains(policy)
        self.updates = recipe.grpo.updates_per_rollout
        self.group_size = recipe.rollout.group_size
        self.rewards = make_rewards(recipe, policy.dialect)
        self.stages: Stages = FixedStages(recipe.reward.stage_step)
        if recipe.reward.adaptive:
            self.stages = AdaptiveStages()
        self.zero_reward_watch = ZeroRewardWatch()

    def prepare(self, samples: list[Sample]) -> list[Question]:
        """Encode prompts, and pair them with their truths."""
        prompts = [encode(self.policy, sample) for sample in samples]
        check_fit(self.policy, self.recipe, samples, prompts, [self.recipe.rollout.max_new_tokens] * len(samples))

        # Other engines may read the images again.
        if self.recipe.rollout.engine == "builtin":
            prompts = [replace(prompt, image=None) for prompt in prompts]

        questions = []
        for sample, prompt in zip(samples, prompts, strict=True):
            truth = sample.ground_truth(prompt.input_size_wh)
            questions.append(Question(sample.id, sample.image_id, prompt, truth, sample.reward))
        return questions

    def collect(self, prepared: list[Question], seeds: Seeds, progress: float) -> Collected:
        """Roll out, score, and compare within each group."""
        began = time.perf_counter()
        prompts, groups = self.roll_out_all([question.prompt for question in prepared], seeds)
        rolled_out = time.perf_counter()

        stage = self.stages.at(progress)
        scores = []
        totals = []
        for question, completions in zip(prepared, groups, strict=True):
            group_scores = self.score(question, completions, stage)
            scores.append(group_scores)
            totals.append([score.total for score in group_scores])
        advantages, no_spread = grpo.advantages(torch.tensor(totals))  # (B, G), (B,)

        # Metrics, logs and stages are of the whole batch, on every rank.
        outcomes = gather(make_outcomes(prepared, groups, scores, advantages, no_spread))
        self.observe(outcomes)
        self.zero_reward_watch.observe(outcomes, scores)
        scored = time.perf_counter()

        # The loss is a mean over completions, or over tokens, of the whole batch.
        total = len(outcomes)
        if self.recipe.grpo.mean_over == "batch":
            total = sum(outcome.row["num_tokens"] for outcome in outcomes)
        work = self.make_work(prompts, groups, advantages, total)

        metrics = {
            "stage": [stage.xi0, stage.xi1, stage.xi2],
            **means([outcome.numbers for outcome in outcomes]),
            **measure([outcome.watched for outcome in outcomes]),
            "seconds/rollout": rolled_out - began,
            "seconds/reward": scored - rolled_out,
        }
        return Collected(work, metrics, [outcome.row for outcome in outcomes], seconds=scored - began)

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Tell the stages the step's mean recall and precision before f, of the samples whose reward tells them."""
        plain = [outcome.plain for outcome in outcomes if outcome.plain is not None]
        if plain:
            recalls, precisions = zip(*plain, strict=True)
            self.stages.observe(mean(recalls), mean(precisions))

    def score(self, question: Question, completions: Sequence[Completion], stage: Stage) -> list[Score]:
        """Score a question's completions; TrainingError names sample and completion where the reward raises."""
        reward = self.rewards[question.reward]
        scores = []
        for index, completion in enumerate(completions):
            try:
                scores.append(reward.score(completion.text, question.truth, stage))
            except (Exception, SystemExit) as error:  # a user's reward may raise anything
                raise TrainingError(
                    f"the reward raised {describe_raised(error)} at sample {question.id}, "
                    f"completion {index}: {completion.text!r}"
                ) from error

        # A data source's own reward may tell none: the stages then go by the samples of the others.
        if self.recipe.reward.adaptive and not question.reward and scores[0].plain_recall is None:
            raise TrainingError(
                f"reward.adaptive needs recall and precision before f, but the scores of {self.recipe.reward.preset} "
                "have no plain_recall and plain_precision; set reward.adaptive to false"
            )
        return scores

    def roll_out_all(self, prompts: Sequence[Prompt], seeds: Seeds) -> tuple[Sequence[Prompt], list[list[Completion]]]:
        """Return G completions of each prompt, and the prompts, with their images encoded where vision is frozen.

        Samples of one rollout.batch_size are sampled together; each has its own seed, so the split changes no reply.
        """
        size = self.recipe.rollout.batch_size or len(prompts)

        # A frozen vision tower sees each image once, for rollout and loss alike.
        if not self.vision_trains:
            encoded: list[Prompt] = []
            for part in batched(prompts, size):
                encoded.extend(self.policy.encode_images(part))
            prompts = encoded

        groups: list[list[Completion]] = []
        for part, part_seeds in zip(batched(prompts, size), batched(seeds, size), strict=True):
            groups.extend(self.roll_out(part, part_seeds))
        return prompts, groups

    def roll_out(self, prompts: Sequence[Prompt], seeds: Seeds) -> list[list[Completion]]:
        """Return G completions of each prompt."""
        settings = self.recipe.rollout
        sampling = Sampling(
            max_new_tokens=settings.max_new_tokens,
            num_completions=settings.group_size,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
        )
        return self.engine(self.policy, prompts, sampling, seeds)

    def make_work(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Sequence[Completion]],
        advantages: Tensor,
        total: int,
    ) -> list[GroupWork]:
        """Return rows with advantages and reference log-probabilities; `total` is as in `grpo.token_weights`.

        Without a reference, a group whose advantages are all 0 has no gradient and is left out.
        """
        flat: list[Completion] = []
        token_ids = []
        for group_completions in completions:
            flat.extend(group_completions)
            token_ids.append([completion.token_ids for completion in group_completions])
        lengths = torch.tensor([len(completion.token_ids) for completion in flat])

        groups = make_groups(prompts, token_ids)
        if self.reference is None:
            groups = _groups_with_gradient(groups, advantages)

        work = []
        for part in self.policy.path.micro_batches(groups, self.recipe.optimizer.tokens_per_forward):
            sampled = [flat[index].logprobs for group_ in part for index in group_.indices]
            work.append(self._make_part(part, advantages.flatten(), lengths, total, torch.cat(sampled)))

        # The reference may be sharded, so all ranks take equally many passes.
        if self.reference is not None:
            with torch.no_grad(), adapters_off(self.reference.model):
                for group_work, _ in equal_passes(work):
                    group_work.reference = self.refer(self._logprobs, self.reference, group_work.rows)
        return work

    def _make_part(
        self,
        part: Sequence[Group],
        advantages: Tensor,
        lengths: Tensor,
        total: int,
        sampled: Tensor,
    ) -> GroupWork:
        rows = self.policy.path.pack(part)
        device = self.policy.device
        weights = grpo.token_weights(rows.completion, lengths, total, self.recipe.grpo.mean_over)
        per_token = advantages[rows.completion]
        return GroupWork(rows.to(device), per_token.to(device), weights.to(device), sampled)

    def loss(self, work: GroupWork) -> tuple[Tensor, Metrics]:
        """Return GRPO's loss and KL."""
        logprobs = self._logprobs(self.policy, work.rows)

        # The policy of the first update is the one that the later ones are compared with.
        if work.old is None:
            work.old = logprobs.detach()

        settings = self.recipe.grpo
        loss = grpo.loss(
            logprobs,
            work.old,
            work.reference,
            work.advantages,
            work.weights,
            beta=settings.beta,
            clip=settings.clip,
        )
        if work.reference is None:
            return loss, {}
        kl = grpo.kl(logprobs.detach(), work.reference)
        return loss, {"kl": (work.weights * kl).sum()}

    def post_update_metrics(self, work: list[GroupWork]) -> Metrics:
        """Return how far the engine's log-probabilities are from those of the policy that it sampled for.

        The gaps are the mean and the largest difference; with the built-in engine both are rounding, before top-p and
        top-k.
        """
        gaps_of_parts = []
        for part in work:
            if part.old is not None:
                gaps_of_parts.append((part.old.cpu() - part.sampled).abs())
        gaps = torch.cat(gaps_of_parts)

        per_rank = gather([(float(gaps.sum()), float(gaps.max()), len(gaps))])
        sums, maxima, counts = zip(*per_rank, strict=True)
        return {"sampling/gap": sum(sums) / sum(counts), "sampling/largest_gap": max(maxima)}

    def _logprobs(self, policy: Policy, rows: Rows) -> Tensor:
        return policy.token_logprobs(rows, temperature=self.recipe.rollout.temperature)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the stages, and the checksum of the reference."""
        return {"stages": self.stages.state_dict(), "reference": self.reference_sum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to the stage of the checkpoint; CheckpointError if the reference is another model."""
        if state["reference"] != self.reference_sum:
            raise CheckpointError(
                f"the model in {self.recipe.model.path} is not the one that this run started from, "
                "which it needs as its reference; put that model back or start a new run"
            )
        self.stages.load_state_dict(state["stages"])


def make_rewards(recipe: Recipe, dialect: Dialect) -> dict[str, Scorer]:
    """Return the recipe's reward under "", and those of its data sources under their keys."""
    has_stages = recipe.reward.has_stages
    rewards = {"": recipe.reward.make(dialect, has_stages=has_stages)}
    for phase in recipe.phases:
        for source in phase.data:
            if source.reward is not None:
                rewards[source.reward.key] = source.reward.make(dialect, has_stages=has_stages)
    return rewards


def encode(policy: Policy, sample: Sample) -> Prompt:
    """Encode a sample's prompt; a DataError names the sample."""
    try:
        return policy.encode(sample.load_image(), sample.query)
    except DataError as error:
        raise DataError(f"sample {sample.id}: {error}") from error


def check_fit(
    policy: Policy,
    recipe: Recipe,
    samples: Sequence[Sample],
    prompts: Sequence[Prompt],
    num_new: Sequence[int],
) -> None:
    """Raise DataError if a prompt and its `num_new` tokens are more than the model's context.

    Warn where they are more than a pass is to take.
    """
    for sample, prompt, new in zip(samples, prompts, num_new, strict=True):
        if len(prompt.input_ids) + new > policy.context:
            raise DataError(
                f"sample {sample.id}: its prompt takes {len(prompt.input_ids)} tokens and its completion "
                f"up to {new}, but the model's context holds {policy.context}; "
                "use smaller images or lower rollout.max_new_tokens"
            )
        warn_over_budget(sample.id, len(prompt.input_ids), new, recipe.optimizer.tokens_per_forward)


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
    return learner


def _groups_with_gradient(groups: Sequence[Group], advantages: Tensor) -> list[Group]:
    """Return the groups with any advantage (B, G) but 0; the first if there is none, for each rank needs a part."""
    kept = []
    for group_, group_advantages in zip(groups, advantages, strict=True):
        if group_advantages.any():
            kept.append(group_)
    return kept or list(groups[:1])


def _call(function: Callable[..., Item], *arguments: Any) -> Item:
    return function(*arguments)


def batched(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Split `items` into parts of `size`, the last of what is left."""
    return [items[start : start + size] for start in range(0, len(items), size)]
