"""GRPO (Vision-R1): sample completions, score them by rule, learn from how they compare within their group."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from visionr1.dialects import Dialect
from visionr1.errors import CheckpointError, DataError, RecipeError, TrainingError
from visionr1.models.adapters import adapters_off, base_checksum, vision_modules
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.rows import Group, Rows, make_groups
from visionr1.models.trainable import vision_trains
from visionr1.rewards import AdaptiveStages, FixedStages, Score, Scorer, Stage, Stages
from visionr1.rewards.hacking import measure
from visionr1.rewards.user import describe_raised
from visionr1.rollout.engine import Completion, RolloutEngine, Sampling, Seeds, copies_weights
from visionr1.samples import Sample
from visionr1.training import grpo
from visionr1.training.distributed import equal_passes, gather
from visionr1.training.faults import is_lost_worker
from visionr1.training.learners.base import Collected, Learner, Metrics, check_fit, encode
from visionr1.training.outcomes import Outcome, OverlapWatch, Question, ZeroRewardWatch, make_outcomes, mean, means
from visionr1.training.recipe import Recipe

Item = TypeVar("Item")


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
        if copies_weights(engine) and recipe.rollout.batch_size:
            raise RecipeError(
                "rollout.batch_size: expected 0 for an engine with a copy of the weights, which gets them once a step, "
                f"found {recipe.rollout.batch_size}"
            )
        self.reference = reference
        self.engine: RolloutEngine = engine
        self.refer: Callable[..., Any] = _call
        """Runs a function in the forward pass of the reference, equally often on all ranks."""
        self.reference_loaded: Callable[[], AbstractContextManager[None]] = nullcontext
        """Has the reference's weights on the device inside its block."""
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
        self.overlap_watch = OverlapWatch(policy.dialect)

    def encode(self, sample: Sample) -> Question:
        """Encode the prompt of a sample, and pair it with its truth; DataError for a question, which has no boxes."""
        if sample.query.task == "question":
            (question,) = sample.query.categories
            raise DataError(
                f"sample {sample.id}: expected a query for boxes, found the question {question!r}; "
                'rewards compare boxes, so questions are for method = "sft"'
            )
        prompt = encode(self.policy, sample)
        check_fit(self.policy, self.recipe, sample, prompt, self.recipe.rollout.max_new_tokens)

        # Other engines may read the images again.
        if self.recipe.rollout.engine == "builtin":
            prompt = replace(prompt, image=None)
        truth = sample.ground_truth(prompt.input_size_wh)
        return Question(sample.id, sample.image_id, prompt, truth, sample.reward)

    def whole_modules(self) -> Iterable[nn.Module] | None:
        """Return what samples, and a frozen vision tower; an engine with a copy of the weights runs no layer here."""
        if not copies_weights(self.engine):
            return None
        return () if self.vision_trains else vision_modules(self.policy.model)

    def assemble(self, encoded: list[Question]) -> list[Question]:
        """Return the questions as they are: `collect` rolls them out."""
        return encoded

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
        self.overlap_watch.observe(prepared, groups)
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
                if is_lost_worker(error):
                    raise
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
            with torch.no_grad(), adapters_off(self.reference.model), self.reference_loaded():
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
