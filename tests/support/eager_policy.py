"""A policy that ends its completions at different lengths, and how it is sampled."""

import torch
from torch import Tensor

from visionr1.models.policy import Policy
from visionr1.rollout.engine import Sampling

LIMIT = 40
SIZES = [(120, 80), (80, 160), (120, 120)]
SEEDS = [(3, 0), (3, 1), (3, 2)]


SAMPLED = Sampling(num_completions=6, max_new_tokens=LIMIT)
GREEDY = Sampling(max_new_tokens=LIMIT, temperature=0.0)


class EagerToEnd(Policy):
    """A policy whose completions end at different lengths."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy.model, policy.tokenizer, policy.image_processor, policy.dialect, policy.path)

    def logits(self, hidden: Tensor, *, temperature: float = 1.0, suppress: bool = True) -> Tensor:
        logits = super().logits(hidden, temperature=temperature, suppress=suppress)
        return logits.index_add(-1, torch.tensor([self.eos_ids[0]]), logits.new_full((len(logits), 1), 3.0))
