"""The supervised baseline: the rendered truth as the one completion, on the rows that GRPO uses.

The loss is the weighted mean negative log-likelihood of the completion tokens of a step; prompt
tokens never count. Weights let the digits of coordinates count more than the text around them, and the few tokens of
an answer to a question more than the many of a list of boxes.
"""

import torch
from torch import Tensor

from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.samples import Boxes, Sample
from visionr1.training.recipe import SFTSection


def target(policy: Policy, sample: Sample, prompt: Prompt, recipe: SFTSection) -> Tensor:
    """Return token ids (T,) of the reply that names the sample's true boxes, or of its answer, and of the end."""
    if sample.query.task == "question":
        return policy.encode_reply(sample.answer)
    boxes = _sort_boxes(sample.truth, recipe.box_order)
    reply = policy.dialect.render(boxes, size_wh=sample.size_wh, input_size_wh=prompt.input_size_wh)
    return policy.encode_reply(reply)


def token_weights(policy: Policy, recipe: SFTSection) -> Tensor:
    """Return the weight (V,) of each token of the vocabulary: `coordinate_weight` for numbers, else 1."""
    is_number = []
    for token in range(policy.config.get_text_config().vocab_size):
        text = policy.tokenizer.decode([token])
        is_number.append(text.strip().isdigit())
    return torch.where(torch.tensor(is_number), recipe.coordinate_weight, 1.0).to(policy.device)


def sample_weight(sample: Sample, recipe: SFTSection) -> float:
    """Return the weight of the tokens of a sample's reply: `answer_weight` for an answer in words, else 1."""
    return recipe.answer_weight if sample.query.task == "question" else 1.0


def loss(logprobs: Tensor, weights: Tensor) -> Tensor:
    """Return this part's share of the step's loss.

    Takes log-probabilities (N,) and weights (N,); the weights of all parts of the step sum to one.
    """
    return -(weights * logprobs).sum()


def _sort_boxes(boxes: Boxes, order: str) -> Boxes:
    """Sort boxes by their upper left corner; `order` is one of `SFTSection.box_order`."""
    if order == "given":
        return boxes

    # Sort keys (N, 2): y then x in reading order, x then y by columns.
    corners = boxes.xyxy[:, 1::-1]
    if order == "columns":
        corners = boxes.xyxy[:, :2]
    places = sorted(range(len(boxes)), key=lambda place: tuple(corners[place]))
    labels = tuple(boxes.labels[place] for place in places)
    return Boxes(boxes.xyxy[places], labels)
