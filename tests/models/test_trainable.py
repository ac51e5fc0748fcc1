"""What does not train is not computed twice, and what is computed twice gives the same gradient."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from support.random_models import gradients, make_prompts, random_completions, sharpen
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.rows import Rows, make_groups
from visionr1.models.settings import LoRASection, ModelSection
from visionr1.models.trainable import make_trainable, vision_trains
from visionr1.rollout.eager import generate
from visionr1.rollout.engine import Sampling

SIZES = [(120, 80), (80, 120)]


def load(folder: Path, **model: object) -> Policy:
    """The policy in `folder` as a recipe with this model table trains it."""
    policy = sharpen(load_policy(folder))
    make_trainable(policy, ModelSection(**model), LoRASection())  # type: ignore[arg-type]
    return policy


def rows(policy: Policy, *, encoded: bool = False) -> Rows:
    prompts = make_prompts(policy, SIZES)
    return policy.path.pack(
        make_groups(policy.encode_images(prompts) if encoded else prompts, random_completions(policy, [[9, 5], [6, 7]]))
    )


def test_features_made_beforehand_change_nothing(model_folder: Path) -> None:
    policy = load(model_folder, freeze_vision=True)
    assert not vision_trains(policy)
    plain = policy.token_logprobs(rows(policy))
    before = gradients(policy, plain.sum())
    encoded = policy.token_logprobs(rows(policy, encoded=True))
    torch.testing.assert_close(encoded, plain, atol=1e-5, rtol=0)
    assert (gradients(policy, encoded.sum()) - before).norm() < 1e-5 * before.norm()


def test_only_the_language_model_trains_where_vision_is_frozen(model_folder: Path) -> None:
    policy = load(model_folder, freeze_vision=True)
    language = {*map(id, policy.decoder.parameters()), *map(id, policy.model.lm_head.parameters())}
    assert all(parameter.requires_grad == (id(parameter) in language) for parameter in policy.model.parameters())
    assert vision_trains(load(model_folder))


@contextmanager
def kept_bytes() -> Iterator[dict[int, int]]:
    """Bytes of each storage that is kept for the gradient of what is computed inside this block."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def test_checkpointing_keeps_less_for_the_same_gradient(qwen_folder: Path) -> None:
    plain, checkpointed = load(qwen_folder), load(qwen_folder, gradient_checkpointing=True)
    weights = {tensor.untyped_storage().data_ptr() for p in (plain, checkpointed) for tensor in p.model.parameters()}
    sizes, values, parts = [], [], []
    for policy in (plain, checkpointed):
        with kept_bytes() as kept:
            values.append(policy.token_logprobs(rows(policy)))
        sizes.append(sum(size for storage, size in kept.items() if storage not in weights))
        parts.append(gradients(policy, values[-1].sum()))
    assert torch.equal(*values)
    torch.testing.assert_close(*parts, atol=1e-6, rtol=1e-5)
    assert sizes[1] < 0.6 * sizes[0]  # of two layers; logits and features are kept in both


def test_checkpointing_leaves_sampling_alone(qwen25_folder: Path) -> None:
    replies = []
    for checkpointing in (False, True):
        policy = load(qwen25_folder, gradient_checkpointing=checkpointing)
        policy.model.train()
        groups = generate(policy, make_prompts(policy, SIZES), Sampling(max_new_tokens=12, temperature=0.0))
        replies.append([completion.token_ids.tolist() for (completion,) in groups])
    assert replies[0] == replies[1]


def test_adapters_under_checkpointing_have_the_same_gradient(qwen25_folder: Path) -> None:
    parts = []
    for checkpointing in (False, True):
        policy = sharpen(load_policy(qwen25_folder))
        model = {"gradient_checkpointing": checkpointing}
        make_trainable(policy, ModelSection(**model), LoRASection(rank=2))
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter += 0.1 * parameter.requires_grad
        parts.append(gradients(policy, policy.token_logprobs(rows(policy)).sum()))
    assert parts[0].norm() > 0
    torch.testing.assert_close(*parts, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("vision", [False, True])
def test_adapters_freeze_the_vision_tower_unless_it_has_its_own(qwen25_folder: Path, vision: bool) -> None:
    policy = load_policy(qwen25_folder)
    make_trainable(policy, ModelSection(), LoRASection(rank=2, vision=vision))
    assert vision_trains(policy) == vision
