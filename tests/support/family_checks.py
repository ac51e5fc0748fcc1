"""Checks that a folder of any family does what training needs, each against transformers' own code.

A check returns a figure or raises; `families.py` of the benchmarks makes a table of them, the tests bound them.
"""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from support.random_models import gradients, make_prompts, plain_inputs, random_completions
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.rows import make_groups
from visionr1.models.saving import save_policy
from visionr1.rollout.engine import Completion, Sampling
from visionr1.rollout.engines.builtin import generate

SIZES = [(120, 80), (80, 160)]
LENGTHS = [[5, 0, 9, 1], [3, 12]]


def alone_inputs(policy: Policy, prompt: Prompt, input_ids: Tensor) -> dict[str, Tensor]:
    """Return what transformers' forward takes for one row (1, T) that begins with `prompt`."""
    inputs = plain_inputs(policy, prompt, input_ids)
    added = input_ids.shape[1] - len(prompt.input_ids)
    for name, tensor in prompt.inputs.items():
        # Kinds of tokens: those of a completion are text, which PaliGemma calls 1 and all others 0.
        if tensor.shape[:2] == (1, len(prompt.input_ids)) and tensor.ndim == 2:
            kind = 1 if policy.config.model_type == "paligemma" else 0
            inputs[name] = pad(tensor, (0, added), value=kind)
        # Mllama: later tokens see the images that the last one of the prompt sees.
        elif name == "cross_attention_mask":
            inputs[name] = torch.cat((tensor, tensor[:, -1:].expand(-1, added, -1, -1)), 1)
    return inputs


def call_inputs(policy: Policy, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return those of `inputs` that the model's forward pass has names for."""
    names = inspect.signature(policy.model.forward).parameters
    return {name: tensor for name, tensor in inputs.items() if name in names}


def logprobs_alone(policy: Policy, prompt: Prompt, completion: Tensor) -> Tensor:
    """Return log-probabilities (T,) by transformers' forward pass of this one row."""
    input_ids = torch.cat((prompt.input_ids, completion))[None]
    logits = policy.model(**alone_inputs(policy, prompt, input_ids)).logits[0, len(prompt.input_ids) - 1 : -1]
    logits = logits.index_fill(-1, policy.suppressed_ids, -torch.inf)
    return logits.log_softmax(-1).gather(-1, completion[:, None])[:, 0]


def score_errors(policy: Policy) -> tuple[float, float]:
    """Return the largest difference of a log-probability, and the gradients' relative one, to rows alone."""
    prompts, completions = make_prompts(policy, SIZES), random_completions(policy, LENGTHS)
    alone = []
    for prompt, row in zip(prompts, completions, strict=True):
        alone += [logprobs_alone(policy, prompt, ids) for ids in row if len(ids)]
    expected = gradients(policy, torch.cat(alone).square().sum())

    shared = score(policy, prompts, completions)
    gradient = gradients(policy, torch.cat(shared).square().sum())
    gap = max(float((one - other).detach().abs().max()) for one, other in zip(shared, alone, strict=True))
    return gap, float((gradient - expected).norm() / expected.norm())


def score(policy: Policy, prompts: list[Prompt], completions: list[list[Tensor]], **settings: float) -> list[Tensor]:
    """Return the log-probabilities of each completion that has tokens, in the order given."""
    by_index: dict[int, Tensor] = {}
    for part in policy.path.micro_batches(make_groups(prompts, completions), 10**6):
        rows = policy.path.pack(part)
        logprobs = policy.token_logprobs(rows, **settings)
        for index in rows.completion.unique().tolist():
            by_index[index] = logprobs[rows.completion == index]
    return [by_index[index] for index in sorted(by_index)]


def sample(policy: Policy, prompts: list[Prompt], **changed: Any) -> list[list[Completion]]:
    """Return three completions of up to 12 tokens a prompt; prompt n has the seed n + 1."""
    sampling = replace(Sampling(num_completions=3, max_new_tokens=12), **changed)
    return generate(policy, prompts, sampling, [(number + 1,) for number in range(len(prompts))])


def greedy_is_generate(policy: Policy) -> bool:
    """Return True if greedy replies are those of transformers' `generate`."""
    prompts = make_prompts(policy, SIZES)
    for prompt, (reply,) in zip(prompts, sample(policy, prompts, num_completions=1, temperature=0.0), strict=True):
        expected = policy.model.generate(
            **call_inputs(policy, plain_inputs(policy, prompt, prompt.input_ids[None])),
            max_new_tokens=12,
            do_sample=False,
            suppress_tokens=policy.suppressed_ids.tolist(),
        )[0, len(prompt.input_ids) :]
        if reply.token_ids.tolist() != expected.tolist():
            return False
    return True


def sampled_error(policy: Policy) -> float:
    """Return the largest difference between a token's log-probability when it is sampled and when it is scored."""
    prompts = make_prompts(policy, SIZES)
    groups = sample(policy, prompts, temperature=0.8)
    scored = score(policy, prompts, [[one.token_ids for one in row] for row in groups], temperature=0.8)
    flat = [one.logprobs for row in groups for one in row]
    return max(float((one.detach() - other).abs().max()) for one, other in zip(scored, flat, strict=True))


def together_is_alone(policy: Policy) -> bool:
    """Return True if prompts that are sampled together get the replies that each gets alone."""
    prompts = make_prompts(policy, SIZES)
    sampling = Sampling(num_completions=3, max_new_tokens=12)
    for number, row in enumerate(sample(policy, prompts)):
        (alone,) = generate(policy, prompts[number : number + 1], sampling, [(number + 1,)])
        if [one.token_ids.tolist() for one in row] != [one.token_ids.tolist() for one in alone]:
            return False
    return True


def reloads(policy: Policy, folder: Path) -> bool:
    """Return True if the policy, saved to `folder` and loaded, makes the same prompts and has the same weights."""
    save_policy(policy, folder)
    again = load_policy(folder)
    (prompt,), (other,) = make_prompts(policy, SIZES[:1]), make_prompts(again, SIZES[:1])
    inputs = all(torch.equal(tensor, other.inputs[name]) for name, tensor in prompt.inputs.items())
    weights = again.model.state_dict()
    same = all(torch.equal(tensor, weights[name]) for name, tensor in policy.model.state_dict().items())
    return inputs and same and torch.equal(prompt.input_ids, other.input_ids)
