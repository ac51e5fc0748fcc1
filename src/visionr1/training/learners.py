"""What one step makes of its samples: `Supervised` (SFT) and `Reinforced` (GRPO, Vision-R1).

A learner has three parts, each a function of its arguments: `prepare` needs no model and may run in
a worker process; `collect` turns what was prepared into the step's work, split to fit into memory;
`loss` is the share of one part of that work in the step's loss, its gradients summed over parts.

Where a run has several processes, each does this with its share of the step's samples. Weights are those of the whole
batch and metrics are of all samples, so that neither depends on the split.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from visionr1.completions import CompletionRow
from visionr1.dialects import Dialect
from visionr1.errors import CheckpointError, DataError, TrainingError
from visionr1.models.adapters import adapters_off, base_checksum, has_adapters
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.rows import Group, Rows, make_groups, warn_over_budget
from visionr1.models.trainable import vision_trains
from visionr1.rewards import AdaptiveStages, FixedStages, Score, Scorer, Stage, Stages
from visionr1.rewards.hacking import Counts, count, measure
from visionr1.rollout.engine import Completion, RolloutEngine, Sampling, Seeds
from visionr1.rollout.engines import ENGINES
from visionr1.rollout.engines.builtin import generate
from visionr1.samples import GroundTruth, Sample
from visionr1.training import grpo, sft
from visionr1.training.distributed import Trained, equal_passes, gather
from visionr1.training.recipe import Recipe

Item = TypeVar("Item")
Metrics = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Collected:
    """A step's work and what is to be told of it."""

    work: list[Any]
    metrics: Metrics
    rollouts: list[Metrics] = field(default_factory=list)
    """One row per completion."""
    seconds: float = 0.0
    """Of rollout and reward."""


class Learner(ABC):
    """See the module's text."""

    updates = 1
    """Optimizer steps on one step's work."""
    group_size = 1
    """Completions of one sample; a part's rows number them through, sample by sample."""

    def __init__(self, policy: Policy, recipe: Recipe) -> None:
        self.policy = policy
        self.recipe = recipe

    def __getstate__(self) -> dict[str, Any]:
        """What `prepare` needs in a worker process."""
        return {"policy": self.policy, "recipe": self.recipe}

    @abstractmethod
    def prepare(self, samples: list[Sample]) -> Any:
        """Encoded prompts, and what is needed of the truth."""

    @abstractmethod
    def collect(self, prepared: Any, seeds: Seeds, progress: float) -> Collected:
        """The step's work, at least one part; `seeds` has one for each sample, `progress` is the share of training
        done."""

    @abstractmethod
    def loss(self, work: Any) -> tuple[Tensor, Metrics]:
        """Share of the loss, and of metrics that are sums over the step's parts."""

    def post_update_metrics(self, work: list[Any]) -> Metrics:
        """Return metrics that need the policy to have been updated on the step's work."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep."""
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
        """Packed rows of one completion each."""
        prompts = [encode(self.policy, sample) for sample in samples]
        pairs = zip(samples, prompts, strict=True)
        targets = [(sft.target(self.policy, sample, prompt, self.recipe.sft),) for sample, prompt in pairs]
        check_fit(self.policy, self.recipe, samples, prompts, [len(target) for (target,) in targets])
        path, budget = self.policy.path, self.recipe.optimizer.tokens_per_forward
        return [path.pack(part) for part in path.micro_batches(make_groups(prompts, targets), budget)]

    def collect(self, prepared: list[Rows], seeds: Seeds, progress: float) -> Collected:
        """The rows with their token weights."""
        parts = [rows.to(self.policy.device) for rows in prepared]
        weights = [self.token_weights[rows.targets] for rows in parts]
        total = sum(gather([float(torch.stack([part.sum() for part in weights]).sum())]))
        work = [SupervisedWork(rows, part / total) for rows, part in zip(parts, weights, strict=True)]
        return Collected(work, {"tokens": sum(gather([len(rows.targets) for rows in parts]))})

    def loss(self, work: SupervisedWork) -> tuple[Tensor, Metrics]:
        """Weighted negative log-likelihood of the truth."""
        logprobs = self.policy.token_logprobs(work.rows, suppress=False)
        return sft.loss(logprobs, work.weights), {}


@dataclass(frozen=True, slots=True)
class Question:
    """A sample as GRPO needs it."""

    id: str
    image_id: int | str
    prompt: Prompt
    truth: GroundTruth
    reward: str
    """The reward of its data source, as in `Sample`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What metrics and logs need of one completion: small, for it is gathered from all processes."""

    row: Metrics
    """Its row of rollouts.jsonl."""
    numbers: dict[str, float | None]
    """Their means over the step's completions are its metrics; None is left out."""
    watched: Counts
    plain: tuple[float, float] | None
    """Recall and precision before f; None where the reward does not tell them."""

    @classmethod
    def from_score(
        cls, question: Question, index: int, completion: Completion, score: Score, advantage: float, no_spread: bool
    ) -> "Outcome":
        """Return the outcome of completion `index` of a question, whose group may have `no_spread`."""
        written = CompletionRow(
            text=completion.text,
            truth=question.truth,
            sample_id=question.id,
            image_id=question.image_id,
            index=index,
            truncated=completion.truncated,
        )
        row = {
            **written.to_json(),
            "total": score.total,
            **score.parts,
            "advantage": advantage,
            "num_tokens": len(completion.token_ids),
        }
        numbers: dict[str, float | None] = {
            "groups_without_spread": no_spread,
            "true_boxes": len(question.truth.boxes),
            "reward/total": score.total,
            **{f"reward/{name}": part for name, part in score.parts.items()},
            "completion_length": len(completion.token_ids),
            "truncated_share": completion.truncated,
        }

        # What not every reward tells.
        if score.num_predicted is not None:
            numbers["boxes_per_completion"] = score.num_predicted
        if score.pairs is not None:
            numbers["label_accuracy"] = score.label_accuracy
        plain = None
        if score.plain_recall is not None and score.plain_precision is not None:
            plain = (score.plain_recall, score.plain_precision)
        return cls(row, numbers, count(score, question.truth), plain)


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
        self, policy: Policy, recipe: Recipe, reference: Policy | None, engine: RolloutEngine = generate
    ) -> None:
        """`reference` may be `policy` itself, whose adapters are then off for it."""
        super().__init__(policy, recipe)
        self.reference = reference
        self.engine = engine
        self.refer: Callable[..., Any] = _call
        """Runs a function in the forward pass of the reference, as often on all processes."""
        self.reference_sum = 0 if reference is None else base_checksum(reference.model)
        self.vision_trains = vision_trains(policy)
        self.updates = recipe.grpo.updates_per_rollout
        self.group_size = recipe.rollout.group_size
        self.rewards = make_rewards(recipe, policy.dialect)
        self.stages: Stages = AdaptiveStages() if recipe.reward.adaptive else FixedStages(recipe.reward.stage_step)

    def prepare(self, samples: list[Sample]) -> list[Question]:
        """Encoded prompts with their truths."""
        prompts = [encode(self.policy, sample) for sample in samples]
        check_fit(self.policy, self.recipe, samples, prompts, [self.recipe.rollout.max_new_tokens] * len(samples))
        if self.recipe.rollout.engine == "builtin":  # other engines may read the images again
            prompts = [replace(prompt, image=None) for prompt in prompts]
        return [
            Question(sample.id, sample.image_id, prompt, sample.ground_truth(prompt.input_size_wh), sample.reward)
            for sample, prompt in zip(samples, prompts, strict=True)
        ]

    def collect(self, prepared: list[Question], seeds: Seeds, progress: float) -> Collected:
        """Roll out, score, and compare within each group."""
        began = time.perf_counter()
        prompts, groups = self.roll_out_all([question.prompt for question in prepared], seeds)
        rolled_out = time.perf_counter()

        stage = self.stages.at(progress)
        scores = [self.score(question, group_, stage) for question, group_ in zip(prepared, groups, strict=True)]
        rewards = torch.tensor([[score.total for score in group_] for group_ in scores])  # (B, G)
        advantages, no_spread = grpo.advantages(rewards)

        # Metrics, logs and stages are of the whole batch, on every rank.
        outcomes = gather(make_outcomes(prepared, groups, scores, advantages, no_spread))
        self.observe(outcomes)
        scored = time.perf_counter()

        total = len(outcomes)
        if self.recipe.grpo.mean_over == "batch":
            total = sum(outcome.row["num_tokens"] for outcome in outcomes)
        work = self.make_work(prompts, groups, advantages, total)

        metrics = {
            "stage": [stage.xi0, stage.xi1, stage.xi2],
            "shared_prefix": self.policy.path.shares_prefix,
            **means([outcome.numbers for outcome in outcomes]),
            **measure([outcome.watched for outcome in outcomes]),
            "seconds/rollout": rolled_out - began,
            "seconds/reward": scored - rolled_out,
        }
        return Collected(work, metrics, [outcome.row for outcome in outcomes], seconds=scored - began)

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Tell the stages the step's mean recall and precision before f, where the reward tells them."""
        plain = [outcome.plain for outcome in outcomes if outcome.plain is not None]
        if plain:
            recalls, precisions = zip(*plain, strict=True)
            self.stages.observe(_mean(recalls), _mean(precisions))
        elif self.recipe.reward.adaptive:
            raise TrainingError(
                f"reward.adaptive needs recall and precision before f, but the scores of {self.recipe.reward.preset} "
                "have no plain_recall and plain_precision; set reward.adaptive to false"
            )

    def score(self, question: Question, completions: Sequence[Completion], stage: Stage) -> list[Score]:
        """Score a question's completions; TrainingError names sample and completion where the reward raises."""
        reward = self.rewards[question.reward]
        scores = []
        for index, completion in enumerate(completions):
            try:
                scores.append(reward.score(completion.text, question.truth, stage))
            except Exception as error:  # a user's reward may raise anything
                raise TrainingError(
                    f"the reward raised {error!r} at sample {question.id}, completion {index}: {completion.text!r}"
                ) from error
        return scores

    def roll_out_all(self, prompts: Sequence[Prompt], seeds: Seeds) -> tuple[Sequence[Prompt], list[list[Completion]]]:
        """Return G completions of each prompt, and the prompts, with their images encoded where vision is frozen.

        Samples of one rollout.batch_size are sampled together; each has its own seed, so the split changes no reply.
        """
        size = self.recipe.rollout.batch_size or len(prompts)
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
        """G completions of each prompt."""
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
        """Rows with advantages and reference log-probabilities; `total` is as in `grpo.token_weights`.

        Without a reference, a group whose advantages are all 0 has no gradient and is left out.
        """
        flat = [completion for group_ in completions for completion in group_]
        groups = make_groups(prompts, [[c.token_ids for c in group_] for group_ in completions])
        lengths = torch.tensor([len(c.token_ids) for c in flat])
        if self.reference is None:
            groups = [g for g, a in zip(groups, advantages, strict=True) if a.any()] or groups[:1]
        parts = self.policy.path.micro_batches(groups, self.recipe.optimizer.tokens_per_forward)
        work = [
            self._make_part(
                part,
                advantages.flatten(),
                lengths,
                total,
                torch.cat([flat[i].logprobs for group_ in part for i in group_.indices]),
            )
            for part in parts
        ]
        if self.reference is not None:
            with torch.no_grad(), adapters_off(self.reference.model):
                for own, _ in equal_passes(work):
                    own.reference = self.refer(self._logprobs, self.reference, own.rows)
        return work

    def _make_part(
        self, part: Sequence[Group], advantages: Tensor, lengths: Tensor, total: int, sampled: Tensor
    ) -> GroupWork:
        rows, device = self.policy.path.pack(part), self.policy.device
        weights = grpo.token_weights(rows.completion, lengths, total, self.recipe.grpo.mean_over).to(device)
        per_token = advantages[rows.completion].to(device)
        return GroupWork(rows.to(device), per_token, weights, sampled)

    def loss(self, work: GroupWork) -> tuple[Tensor, Metrics]:
        """GRPO's loss and KL."""
        logprobs = self._logprobs(self.policy, work.rows)
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
        return loss, {"kl": (work.weights * grpo.kl(logprobs.detach(), work.reference)).sum()}

    def post_update_metrics(self, work: list[GroupWork]) -> Metrics:
        """Return how far the engine's log-probabilities are from those of the policy that it sampled for.

        The gaps are the mean and the largest difference; with the built-in engine both are rounding, before top-p and
        top-k.
        """
        gaps = torch.cat([(part.old.cpu() - part.sampled).abs() for part in work if part.old is not None])
        per_rank = gather([(float(gaps.sum()), float(gaps.max()), len(gaps))])
        sums, maxima, counts = zip(*per_rank, strict=True)
        return {"sampling/gap": sum(sums) / sum(counts), "sampling/largest_gap": max(maxima)}

    def _logprobs(self, policy: Policy, rows: Rows) -> Tensor:
        return policy.token_logprobs(rows, temperature=self.recipe.rollout.temperature)

    def state_dict(self) -> dict[str, Any]:
        """The stage's state, and which reference this is."""
        return {"stages": self.stages.state_dict(), "reference": self.reference_sum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Back to the stage of the checkpoint; CheckpointError if the reference is another model."""
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


def make_outcomes(
    questions: Sequence[Question],
    groups: Sequence[Sequence[Completion]],
    scores: Sequence[Sequence[Score]],
    advantages: Tensor,
    no_spread: Tensor,
) -> list[Outcome]:
    """Return the outcome of every completion of this rank; `advantages` are (B, G), `no_spread` (B,)."""
    outcomes = []
    for row, question in enumerate(questions):
        columns = zip(groups[row], scores[row], advantages[row].tolist(), strict=True)
        for index, (completion, score, advantage) in enumerate(columns):
            alone = bool(no_spread[row])
            outcomes.append(Outcome.from_score(question, index, completion, score, advantage, alone))
    return outcomes


def encode(policy: Policy, sample: Sample) -> Prompt:
    """The sample's prompt; a DataError names the sample."""
    try:
        return policy.encode(sample.load_image(), sample.query)
    except DataError as error:
        raise DataError(f"sample {sample.id}: {error}") from error


def check_fit(
    policy: Policy, recipe: Recipe, samples: Sequence[Sample], prompts: Sequence[Prompt], num_new: Sequence[int]
) -> None:
    """Raise DataError if a prompt and its `num_new` tokens are more than the model's context; say where they are more
    than a pass is to take."""
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
    """The learner that the recipe's method names; `load_initial` loads the reference model, and `freeze`, as
    `distributed.wrap_frozen`, leaves of it what this process holds.

    A policy with adapters is its own reference: without them it is the model it started from.
    """
    if recipe.method == "sft":
        return Supervised(policy, recipe)
    engine = ENGINES.resolve(recipe.rollout.engine)(policy, recipe.model, recipe.rollout)
    if not recipe.grpo.beta:
        return Reinforced(policy, recipe, None, engine)
    if has_adapters(policy.model):
        return Reinforced(policy, recipe, policy, engine)
    reference = load_initial()
    reference.model.requires_grad_(False)
    learner = Reinforced(policy, recipe, reference, engine)
    learner.refer = freeze(reference.model)
    return learner


def _call(function: Callable[..., Item], *arguments: Any) -> Item:
    return function(*arguments)


def means(rows: Sequence[Mapping[str, float | None]]) -> Metrics:
    """Return the mean of each number over the rows that have it; None where it is None in all."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, [])
            if value is not None:
                values[name].append(value)
    return {name: _mean(numbers) if numbers else None for name, numbers in values.items()}


def batched(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """`items` in parts of `size`, the last of what is left."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
