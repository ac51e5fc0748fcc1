"""SFT: the truth of each sample, its boxes or its answer in words, as its one completion."""

from dataclasses import dataclass

import torch
from torch import Tensor

from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.rows import Rows, make_groups
from visionr1.rollout.engine import Seeds
from visionr1.samples import Sample
from visionr1.training import sft
from visionr1.training.distributed import gather
from visionr1.training.learners.base import Collected, Learner, Metrics, check_fit, encode
from visionr1.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Target:
    """A sample's prompt, the token ids (T,) of its truth as a reply, and what each of them weighs."""

    prompt: Prompt
    token_ids: Tensor
    weight: float


@dataclass(frozen=True, slots=True)
class SupervisedBatch:
    """The packed rows of a step's samples, and the weight (B,) of each sample's tokens."""

    parts: list[Rows]
    sample_weights: Tensor


@dataclass(frozen=True, slots=True)
class SupervisedWork:
    """Rows, and the weight (N,) of each completion token; weights sum to one over the step."""

    rows: Rows
    weights: Tensor


class Supervised(Learner):
    """SFT: each sample's one completion is its rendered truth, or its answer in words."""

    def __init__(self, policy: Policy, recipe: Recipe) -> None:
        super().__init__(policy, recipe)
        self.token_weights = sft.token_weights(policy, recipe.sft)

    def encode(self, sample: Sample) -> Target:
        """Return the prompt of a sample with its truth as a reply."""
        prompt = encode(self.policy, sample)
        token_ids = sft.target(self.policy, sample, prompt, self.recipe.sft)
        check_fit(self.policy, self.recipe, sample, prompt, len(token_ids))
        return Target(prompt, token_ids, sft.sample_weight(sample, self.recipe.sft))

    def assemble(self, encoded: list[Target]) -> SupervisedBatch:
        """Return packed rows, in which each prompt has one completion."""
        groups = make_groups([target.prompt for target in encoded], [(target.token_ids,) for target in encoded])
        parts = self.policy.path.micro_batches(groups, self.recipe.optimizer.tokens_per_forward)
        sample_weights = torch.tensor([target.weight for target in encoded])
        return SupervisedBatch([self.policy.path.pack(part) for part in parts], sample_weights)

    def collect(self, prepared: SupervisedBatch, seeds: Seeds, progress: float) -> Collected:
        """Return the rows with their token weights."""
        parts = [rows.to(self.policy.device) for rows in prepared.parts]
        weights = []
        for rows in parts:
            sample_weights = prepared.sample_weights[rows.completion].to(self.policy.device)
            weights.append(self.token_weights[rows.targets] * sample_weights)

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
