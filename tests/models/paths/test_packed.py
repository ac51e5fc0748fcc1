"""Shared-prefix rows against transformers' own forward pass over one completion at a time."""

import logging
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import HashStore, destroy_process_group, init_process_group
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.parallel import DistributedDataParallel

from support.random_models import gradients, make_prompts, plain_logprobs, random_completions, sharpen
from visionr1.models.attention.block_sparse import compiling_long_rows
from visionr1.models.attention.tree import LONG_ROW
from visionr1.models.loading import load_policy
from visionr1.models.paths.packed import PAD_TO, PackedPath
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt, join_inputs
from visionr1.models.rows import Group, make_groups, warn_over_budget
from visionr1.models.trainable import checkpoint_layers
from visionr1.training.distributed import Trained

SIZES = [(120, 80), (80, 160), (120, 120)]  # width and height of each of three images
UNEQUAL = [[5, 0, 9, 1], [3, 12], [7, 7, 2]]  # tokens of each completion of each of three prompts


@cache
def load_once(folder: Path) -> Policy:
    return sharpen(load_policy(folder))


@pytest.fixture
def policy(model_folder: Path) -> Policy:
    return load_once(model_folder)


def compare(policy: Policy, prompts: list[Prompt], completions: list[list[Tensor]], budget: int = 10**6) -> None:
    """Log-probabilities to 1e-5 and gradients to 1e-5 relative, over all micro-batches."""
    pairs = [(p, c) for p, row in zip(prompts, completions, strict=True) for c in row if len(c)]
    plain = torch.cat([plain_logprobs(policy, prompt, completion) for prompt, completion in pairs])
    weights = torch.linspace(-1, 1, len(plain))
    plain_gradients = gradients(policy, (weights * plain).sum())

    places = torch.cat([torch.full((len(c),), i) for i, c in enumerate(c for row in completions for c in row)])
    shared, total = torch.full_like(plain, torch.nan), torch.zeros(())
    for part in policy.path.micro_batches(make_groups(prompts, completions), budget):
        rows = policy.path.pack(part)
        logprobs = policy.token_logprobs(rows)
        for index in rows.completion.unique():
            mine = logprobs[rows.completion == index]
            shared[places == index] = mine.detach()
            total = total + (weights[places == index] * mine).sum()
    shared_gradients = gradients(policy, total)

    assert (shared - plain.detach()).abs().max() < 1e-5
    assert (shared_gradients - plain_gradients).norm() < 1e-5 * plain_gradients.norm()


def test_positions_are_those_of_the_model(qwen_folder: Path) -> None:
    policy = load_once(qwen_folder)
    for prompt in make_prompts(policy, SIZES):
        expected, _ = policy.model.model.get_rope_index(
            prompt.input_ids[None],
            mm_token_type_ids=(prompt.input_ids == policy.config.image_token_id).int()[None],
            image_grid_thw=prompt.inputs["image_grid_thw"],
        )
        assert torch.equal(prompt.position_ids, expected[:, 0])


def test_unequal_and_empty_completions(policy: Policy) -> None:
    compare(policy, make_prompts(policy, SIZES), random_completions(policy, UNEQUAL))


def test_groups_of_two(policy: Policy) -> None:
    compare(policy, make_prompts(policy, SIZES)[:1], random_completions(policy, [[4, 6]]))


def test_one_completion_is_a_plain_row(policy: Policy) -> None:
    prompts, completions = make_prompts(policy, SIZES), random_completions(policy, [[4], [6], [1]])
    compare(policy, prompts, completions)


def test_groups_split_over_rows_and_micro_batches(policy: Policy) -> None:
    prompts = make_prompts(policy, SIZES)
    budget = max(len(prompt.input_ids) for prompt in prompts) + 12
    parts = policy.path.micro_batches(make_groups(prompts, random_completions(policy, UNEQUAL)), budget)
    assert len(parts) > len(prompts)
    assert all(sum(g.num_tokens for g in part) <= budget for part in parts)
    compare(policy, prompts, random_completions(policy, UNEQUAL), budget)


def test_short_groups_fill_the_rows_of_long_ones() -> None:
    nowhere = torch.zeros(3, 1)  # a prompt of one token, which a row does not hold
    prompt = Prompt(torch.zeros(1), nowhere, {}, (28, 28), "")
    groups = [Group(prompt, (torch.zeros(length),), (i,)) for i, length in enumerate([3, 6, 5, 4, 7, 4, 20])]
    lengths = [[part.num_tokens for part in batch] for batch in PackedPath.micro_batches(groups, 10)]
    assert lengths == [[20], [7, 3], [6, 4], [5, 4]]


def test_a_completion_that_is_longer_than_a_pass_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="visionr1"):
        for sample, prompt in (("fits", 77), ("first", 78), ("second", 99)):
            warn_over_budget(sample, prompt, 10, tokens_per_forward=87)
    (record,) = caplog.records
    assert "first: its prompt takes 78 tokens and its completion up to 10" in record.message
    assert "optimizer.tokens_per_forward = 87" in record.message


def test_image_at_the_start(policy: Policy) -> None:
    prompt = make_prompts(policy, SIZES)[1]
    first = int((prompt.input_ids == policy.config.image_token_id).nonzero()[0])
    input_ids = prompt.input_ids[first:]
    positions = policy.path.family.position_ids(policy.config, input_ids, prompt.inputs)
    start = replace(prompt, input_ids=input_ids, position_ids=positions)
    compare(policy, [start], random_completions(policy, [[5, 8, 3]]))


def test_several_images(policy: Policy) -> None:
    first, second, third = make_prompts(policy, SIZES)
    input_ids = torch.cat((first.input_ids, second.input_ids))
    inputs = join_inputs([first, second])
    positions = policy.path.family.position_ids(policy.config, input_ids, inputs)
    both = replace(first, input_ids=input_ids, position_ids=positions, inputs=inputs)
    compare(policy, [both, third], random_completions(policy, [[5, 8, 3], [2, 9]]))


def test_long_rows_attend_by_blocks_and_compute_the_same(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is hard in one row, as on a GPU; on a CPU torch has FlexAttention's backward pass, but refuses it."""
    first, second, third = make_prompts(policy, SIZES)
    start = int((first.input_ids == policy.config.image_token_id).nonzero()[0])
    input_ids = torch.cat((first.input_ids[start:], second.input_ids))
    inputs = join_inputs([first, second])
    positions = policy.path.family.position_ids(policy.config, input_ids, inputs)
    both = replace(first, input_ids=input_ids, position_ids=positions, inputs=inputs)
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *states: None)
    monkeypatch.setitem(LONG_ROW, "cpu", 0)
    monkeypatch.setattr("visionr1.models.attention.tree._stacked_attention", None)  # not to be called
    compare(policy, [both, third, first], random_completions(policy, [[5, 0, 9, 1], [3, 12], [7]]))


@pytest.mark.parametrize(("autocast", "bound"), [(False, 1e-6), (True, 1e-2)])
def test_blocks_have_the_gradient_under_checkpointing_and_ddp(
    qwen25_folder: Path, monkeypatch: pytest.MonkeyPatch, autocast: bool, bound: float
) -> None:
    """Compiled as on a GPU, but for the last step."""
    kernel = torch.compile(flex_attention, fullgraph=True, dynamic=False, backend="aot_eager")
    monkeypatch.setattr("visionr1.models.attention.block_sparse._kernel", lambda kind: kernel)
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *states: None)
    first = load_policy(qwen25_folder)
    rows = first.path.pack(make_groups(make_prompts(first, SIZES), random_completions(first, UNEQUAL)))

    def gradient(start: int, shelled: bool) -> Tensor:
        monkeypatch.setitem(LONG_ROW, "cpu", start)
        policy = load_policy(qwen25_folder)
        trained: nn.Module = Trained(policy.model)
        if shelled:
            checkpoint_layers(policy.model)
            trained = DistributedDataParallel(trained)

        def total() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                return policy.token_logprobs(replace(rows, tree=replace(rows.tree))).sum()

        with compiling_long_rows():
            trained(total).backward()
        return torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])

    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        stacked = gradient(10**9, False)
        for shelled in (False, True):
            assert (gradient(0, shelled) - stacked).norm() < bound * stacked.norm()
    finally:
        destroy_process_group()


def test_earlier_calls_leave_nothing_behind(policy: Policy) -> None:
    prompts, completions = make_prompts(policy, SIZES), random_completions(policy, UNEQUAL)
    rows = policy.path.pack(make_groups(prompts, completions))
    before = policy.token_logprobs(rows)
    plain_logprobs(policy, prompts[0], completions[0][0])  # leaves its `rope_deltas` in the model
    assert torch.equal(before, policy.token_logprobs(rows))


def test_scoring_in_chunks_changes_nothing(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, completions = make_prompts(policy, SIZES), random_completions(policy, UNEQUAL)
    rows = policy.path.pack(make_groups(prompts, completions))
    whole = policy.token_logprobs(rows)
    whole_gradients = gradients(policy, whole.sum())
    monkeypatch.setattr("visionr1.models.paths.scoring.LOGITS_PER_CHUNK", 7 * len(policy.tokenizer))
    chunked = policy.token_logprobs(rows)
    torch.testing.assert_close(chunked, whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(gradients(policy, chunked.sum()), whole_gradients, atol=1e-4, rtol=1e-5)


def test_a_row_holds_the_prompt_once(policy: Policy) -> None:
    prompt, completions = make_prompts(policy, SIZES)[0], random_completions(policy, [[5, 9]])
    (whole,) = make_groups([prompt], completions)
    assert whole == Group(prompt, tuple(completions[0]), (0, 1))
    assert whole.num_tokens == len(prompt.input_ids) - 1 + 5 + 9
    rows, image_token = policy.path.pack([whole]), policy.config.image_token_id
    assert int((rows.input_ids == image_token).sum()) == int((prompt.input_ids == image_token).sum())
    assert torch.equal(rows.inputs["pixel_values"], prompt.inputs["pixel_values"])


def test_samples_follow_each_other_without_padding_between_them(policy: Policy) -> None:
    groups = make_groups(make_prompts(policy, SIZES), random_completions(policy, UNEQUAL))
    rows = policy.path.pack(groups)
    num_tokens = sum(g.num_tokens for g in groups)
    assert rows.input_ids.shape == (1, -(-num_tokens // PAD_TO) * PAD_TO)
    # Padding repeats the last token, which is text: in some models token 0 is that of images.
    assert set(rows.input_ids[0, num_tokens:].tolist()) <= {int(rows.input_ids[0, num_tokens - 1])}
    assert rows.place.tolist() == sorted(set(rows.place.tolist()))
    assert int(rows.place[-1]) == num_tokens - 1
