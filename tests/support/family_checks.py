"""Checks that a folder of any family does what training needs, each against transformers' own code.

A check returns a figure or raises; `families.py` of the benchmarks makes a table of them, the tests bound them.
"""

import copy
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from support.random_models import gradients, make_prompts, plain_inputs, random_completions
from visionr1.dialects import get_dialect
from visionr1.errors import CheckpointError, RecipeError
from visionr1.models.adapters import vision_modules
from visionr1.models.image_bounds import check_bound_acts, count_pixels, limit_pixels
from visionr1.models.loading import DIALECT_FILE, load_policy
from visionr1.models.paths.generic import GenericPath
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt, holds_pixels
from visionr1.models.rows import make_groups
from visionr1.models.saving import save_policy
from visionr1.models.supported import TOLERANCE
from visionr1.models.trainable import checkpoint_layers
from visionr1.rollout.engine import Completion, Sampling
from visionr1.rollout.engines.builtin import generate

SIZES = [(120, 80), (80, 160)]
LARGE = [(700, 500), (600, 600), (300, 900)]
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


def checkpointed_error(policy: Policy) -> float:
    """Return the largest difference that gradient checkpointing makes; it stays on."""
    prompts, completions = make_prompts(policy, SIZES), random_completions(policy, LENGTHS)
    before = torch.cat(score(policy, prompts, completions))
    expected = gradients(policy, before.square().sum())

    checkpoint_layers(policy.model)
    after = torch.cat(score(policy, prompts, completions))
    gradient = gradients(policy, after.square().sum())
    gap = float((after - before).detach().abs().max())
    return max(gap, float((gradient - expected).norm() / expected.norm()))


def vision_share(policy: Policy) -> float:
    """Return the share of the vision tower's weights that have a gradient; 0 if another image changes nothing."""
    (prompt,), ((completion,),) = make_prompts(policy, SIZES[:1]), random_completions(policy, [[5]])
    changed = {}
    for name, tensor in prompt.inputs.items():
        changed[name] = torch.rand_like(tensor) if holds_pixels(name, tensor) else tensor
    logprobs = logprobs_alone(policy, prompt, completion)
    with torch.no_grad():
        others = logprobs_alone(policy, replace(prompt, inputs=changed), completion)
    if (logprobs - others).abs().max() < 1e-4:
        return 0.0

    policy.model.zero_grad()
    logprobs.sum().backward()
    have_gradient = []
    for module in vision_modules(policy.model):
        for parameter in module.parameters(recurse=False):
            have_gradient.append(parameter.grad is not None and bool(parameter.grad.any()))
    return sum(have_gradient) / len(have_gradient)


def features_error(policy: Policy) -> float:
    """Return the largest difference of a log-probability if images go through the tower beforehand."""
    prompts, completions = make_prompts(policy, SIZES), random_completions(policy, LENGTHS)
    encoded = policy.encode_images(prompts)
    for prompt in encoded:
        if prompt.features is not None:
            assert not any(holds_pixels(name, tensor) for name, tensor in prompt.inputs.items())
    with torch.no_grad():
        pairs = zip(score(policy, prompts, completions), score(policy, encoded, completions), strict=True)
        return max(float((one - other).abs().max()) for one, other in pairs)


def tells_input_size(policy: Policy) -> bool:
    """Return True if prompts have the size in pixels at which the model sees an image, as `qwen25` needs it."""
    if isinstance(policy.path, GenericPath):
        try:
            policy.path.check_dialect(get_dialect("qwen25"), Path("model"))
        except CheckpointError:
            return False
    for size_wh, prompt in zip(SIZES, make_prompts(policy, SIZES), strict=True):
        # Tiles of an image have a thumbnail beside them, and patches are as many as the size says.
        width, height = prompt.input_size_wh
        if "image_grid_thw" in prompt.inputs:
            assert width * height == count_pixels(policy, size_wh)
    return True


def bounded_settings(policy: Policy, folder: Path) -> list[str] | None:
    """Return which settings of the image processor `model.max_pixels` changes.

    Returns none for a processor that feeds all images at one size, and None if nothing bounds its images. Checks that
    the bounded model is exact, and that the files of one that is saved to `folder` keep the bound by themselves.
    """
    most = max(count_pixels(policy, size_wh) for size_wh in LARGE)
    try:
        check_bound_acts(policy, most)
    except RecipeError:
        return []
    before = copy.deepcopy(vars(policy.image_processor))
    try:
        limit_pixels(policy, most * 7 // 10)
    except RecipeError:
        return None
    now = vars(policy.image_processor)
    settings = sorted(name for name, value in now.items() if value != before.get(name))

    assert max(score_errors(policy)) < TOLERANCE
    save_policy(policy, folder)
    (folder / DIALECT_FILE).write_text('{"dialect": "qwen3"}', encoding="utf-8")
    again = load_policy(folder)
    assert not again.max_pixels
    for size_wh in LARGE:
        assert count_pixels(again, size_wh) == count_pixels(policy, size_wh) <= most * 7 // 10
    return settings


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
