"""The supervised baseline: the rendered truth as the one completion, on the rows that GRPO uses.

The loss is the weighted mean negative log-likelihood of the completion tokens of a step; prompt
tokens never count. Weights let the digits of coordinates count more than the text around them.
"""

import torch
from torch import Tensor

from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.samples import Boxes, Sample
from visionr1.training.recipe import SFTSection


def target(policy: Policy, sample: Sample, prompt: Prompt, recipe: SFTSection) -> Tensor:
    """Token ids (T,) of the reply that names the sample's true boxes, its end token included."""
    boxes = _sorted(sample.truth, recipe.box_order)
    return policy.encode_reply(policy.dialect.render(boxes, size_wh=sample.size_wh, input_size_wh=prompt.input_size_wh))


def token_weights(policy: Policy, recipe: SFTSection) -> Tensor:
    """Weight (V,) of each token of the vocabulary: `coordinate_weight` for numbers, else 1."""
    vocabulary = range(policy.config.get_text_config().vocab_size)
    is_number = torch.tensor([policy.tokenizer.decode([i]).strip().isdigit() for i in vocabulary])
    return torch.where(is_number, recipe.coordinate_weight, 1.0).to(policy.device)


def loss(logprobs: Tensor, weights: Tensor) -> Tensor:
    """This part's share of the step's loss: log-probabilities (N,) and weights (N,) that sum to one
    over the step."""
    return -(weights * logprobs).sum()


def _sorted(boxes: Boxes, order: str) -> Boxes:
    if order == "given":
        return boxes
    corner = boxes.xyxy[:, :2] if order == "columns" else boxes.xyxy[:, 1::-1]
    places = sorted(range(len(boxes)), key=lambda i: tuple(corner[i]))
    return Boxes(boxes.xyxy[places], tuple(boxes.labels[i] for i in places))
