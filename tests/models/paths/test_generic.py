"""The generic path, with families that have no file: LLaVA; Gemma 3, whose images see themselves whole, whose layers
partly see a window, and whose logits are capped; Qwen2-VL with positions of three axes; a mixture of experts; Qwen3.5,
most of whose layers are recurrences."""

import inspect
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from transformers import AutoConfig

from support.more_shapes import build_by_name
from support.random_models import gradients, make_prompts, random_completions, sharpen
from visionr1.errors import CheckpointError, DataError, MissingDependency
from visionr1.models.loading import DEFAULT_DIALECTS, find_family, load_policy
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.rows import make_groups
from visionr1.models.saving import save_policy
from visionr1.models.trainable import checkpoint_layers
from visionr1.rollout.engine import Completion, Sampling
from visionr1.rollout.engines.builtin import generate
from visionr1.samples import Query

SIZES = [(120, 80), (80, 160)]
UNEQUAL = [[5, 0, 9, 1], [3, 12]]
QWEN_LIKE = ("qwen2_vl", "qwen3_vl_moe", "qwen3_5")


@pytest.fixture(scope="module", params=["llava", "gemma3", *QWEN_LIKE])
def folder(request: pytest.FixtureRequest, qwen3_folder: Path) -> Path:
    place = qwen3_folder.parent / f"generic_{request.param}"
    return build_by_name(place, qwen3_folder, request.param)


@cache
def load_once(folder: Path) -> Policy:
    return sharpen(load_policy(folder))


@pytest.fixture
def policy(folder: Path) -> Policy:
    return load_once(folder)


def logprobs_alone(policy: Policy, prompt: Prompt, completion: Tensor) -> Tensor:
    """Log-probabilities (T,) by transformers' forward pass of this one row."""
    inputs = {}
    for name, tensor in prompt.inputs.items():
        # Kinds of tokens: those of the completion are text.
        per_token = tensor.shape == (1, len(prompt.input_ids))
        inputs[name] = pad(tensor, (0, len(completion))) if per_token else tensor
    input_ids = torch.cat((prompt.input_ids, completion))[None]
    logits = policy.model(input_ids=input_ids, **inputs).logits[0, len(prompt.input_ids) - 1 : -1]
    logits = logits.index_fill(-1, policy.suppressed_ids, -torch.inf)
    return logits.log_softmax(-1).gather(-1, completion[:, None])[:, 0]


@pytest.mark.parametrize("budget", [10**6, 50])
def test_scores_and_gradients_are_those_of_rows_alone(policy: Policy, budget: int) -> None:
    prompts, completions = make_prompts(policy, SIZES), random_completions(policy, UNEQUAL)
    pairs = [(p, c) for p, row in zip(prompts, completions, strict=True) for c in row]
    alone = [logprobs_alone(policy, prompt, ids) for prompt, ids in pairs if len(ids)]
    expected = gradients(policy, torch.stack([part.square().sum() for part in alone]).sum())

    parts = policy.path.micro_batches(make_groups(prompts, completions), budget)
    assert (len(parts) > len(prompts)) == (budget == 50)
    found: dict[int, Tensor] = {}
    total = torch.zeros(())
    for part in parts:
        rows = policy.path.pack(part)
        assert rows.input_ids.numel() <= max(budget - len(part[0].prompt.input_ids), rows.input_ids.shape[1])
        logprobs = policy.token_logprobs(rows)
        total = total + logprobs.square().sum()
        found |= {int(i): logprobs[rows.completion == i].detach() for i in rows.completion.unique()}
    torch.testing.assert_close(torch.cat([found[i] for i in sorted(found)]), torch.cat(alone), atol=1e-5, rtol=0)
    assert (gradients(policy, total) - expected).norm() < 1e-5 * expected.norm()


def sample(policy: Policy, prompts: list[Prompt], **changed: Any) -> list[list[Completion]]:
    sampling = replace(Sampling(num_completions=3, max_new_tokens=12), **changed)
    return generate(policy, prompts, sampling, [(1,), (2,)])


def test_greedy_is_that_of_transformers_whatever_the_folder_would_sample_with(policy: Policy) -> None:
    prompts = make_prompts(policy, SIZES)
    policy.model.generation_config.repetition_penalty = 1.0
    for prompt, (completion,) in zip(prompts, sample(policy, prompts, num_completions=1, temperature=0.0), strict=True):
        expected = policy.model.generate(
            input_ids=prompt.input_ids[None],
            **prompt.inputs,
            max_new_tokens=12,
            do_sample=False,
            suppress_tokens=policy.suppressed_ids.tolist(),
        )[0, len(prompt.input_ids) :]
        assert completion.token_ids.tolist() == expected.tolist()
    policy.model.generation_config.repetition_penalty = 3.0
    (again,) = sample(policy, prompts[1:], num_completions=1, temperature=0.0)[0]
    assert again.token_ids.tolist() == completion.token_ids.tolist()
    assert policy.model.generation_config.repetition_penalty == 3.0


def test_logprobs_of_sampled_tokens_are_those_of_the_training_pass(policy: Policy) -> None:
    prompts = make_prompts(policy, SIZES)
    groups = sample(policy, prompts, temperature=0.8, top_p=0.9)
    flat = [completion for row in groups for completion in row]
    assert len({tuple(c.token_ids.tolist()) for c in flat}) > 2
    for part in policy.path.micro_batches(make_groups(prompts, [[c.token_ids for c in row] for row in groups]), 10**6):
        rows = policy.path.pack(part)
        logprobs = policy.token_logprobs(rows, temperature=0.8).detach()
        for i in rows.completion.unique().tolist():
            torch.testing.assert_close(logprobs[rows.completion == i], flat[i].logprobs, atol=1e-4, rtol=0)


def test_a_reply_ends_at_its_end_token(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = sample(policy, make_prompts(policy, SIZES))
    common = everything[0][0].token_ids[4]
    monkeypatch.setattr(policy, "eos_ids", (int(common),))
    replies = [completion for row in sample(policy, make_prompts(policy, SIZES)) for completion in row]
    assert {reply.truncated for reply in replies} >= {False}
    for reply in replies:
        ids = reply.token_ids.tolist()
        assert reply.truncated == (int(common) not in ids)
        assert int(common) not in ids[:-1]
        assert len(ids) == len(reply.logprobs)


def scores(policy: Policy, prompts: list[Prompt], completions: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all completion tokens, and the gradient of their squares' sum."""
    parts = policy.path.micro_batches(make_groups(prompts, completions), 10**6)
    logprobs = torch.cat([policy.token_logprobs(policy.path.pack(part)) for part in parts])
    return logprobs.detach(), gradients(policy, logprobs.square().sum())


def test_a_group_of_single_tokens(policy: Policy) -> None:
    prompts, completions = make_prompts(policy, SIZES[:1]), random_completions(policy, [[1, 1, 1]])
    alone = torch.cat([logprobs_alone(policy, prompts[0], ids) for ids in completions[0]])
    logprobs, _ = scores(policy, prompts, completions)
    torch.testing.assert_close(logprobs, alone.detach(), atol=1e-5, rtol=0)


def test_checkpointed_layers_change_nothing(folder: Path) -> None:
    policy = sharpen(load_policy(folder))
    prompts, completions = make_prompts(policy, SIZES), random_completions(policy, [[5, 9], [3]])
    logprobs, gradient = scores(policy, prompts, completions)
    checkpoint_layers(policy.model)
    again, gradient_again = scores(policy, prompts, completions)
    torch.testing.assert_close(again, logprobs, atol=1e-6, rtol=0)
    torch.testing.assert_close(gradient_again, gradient, atol=1e-5, rtol=1e-4)


def test_features_made_beforehand_change_nothing(policy: Policy) -> None:
    prompts, completions = make_prompts(policy, SIZES), random_completions(policy, [[5, 9], [3]])
    encoded = policy.encode_images(prompts)
    if "mm_encoder_outputs" in inspect.signature(policy.model.forward).parameters:  # not in older transformers
        assert all(prompt.features is not None and "pixel_values" not in prompt.inputs for prompt in encoded)
    with torch.no_grad():
        found = policy.token_logprobs(policy.path.pack(make_groups(encoded[:1], completions[:1])))
        expected = policy.token_logprobs(policy.path.pack(make_groups(prompts[:1], completions[:1])))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    greedy = {"num_completions": 1, "temperature": 0.0}
    for (one,), (other,) in zip(sample(policy, encoded, **greedy), sample(policy, prompts, **greedy), strict=True):
        assert one.token_ids.tolist() == other.token_ids.tolist()


def test_completions_depend_on_their_own_seed_alone(policy: Policy) -> None:
    prompts = make_prompts(policy, SIZES)
    together = sample(policy, prompts)
    for number, prompt in enumerate(prompts):
        sampling = Sampling(num_completions=3, max_new_tokens=12)
        (alone,) = generate(policy, [prompt], sampling, [(number + 1,)])
        for one, other in zip(alone, together[number], strict=True):
            assert one.token_ids.tolist() == other.token_ids.tolist()
            torch.testing.assert_close(one.logprobs, other.logprobs, atol=1e-5, rtol=0)


def test_a_cache_that_cannot_be_padded_is_sampled_prompt_by_prompt(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = sample(policy, make_prompts(policy, SIZES))
    monkeypatch.setattr("visionr1.rollout.generic.can_join", lambda layers: False)
    apart = sample(policy, make_prompts(policy, SIZES))
    assert [[c.token_ids.tolist() for c in row] for row in apart] == [
        [c.token_ids.tolist() for c in row] for row in together
    ]


def test_pixels_of_the_input_where_the_processor_tells_them(folder: Path) -> None:
    if AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type not in QWEN_LIKE:
        with pytest.raises(CheckpointError, match=r"whose size the processor of models of type .* does not tell"):
            load_policy(folder, dialect="qwen25")
        return
    policy = load_policy(folder, dialect="qwen25")
    prompt = policy.encode(Image.new("RGB", (120, 85)), Query("detection", ("cat",)))
    width, height = prompt.input_size_wh
    assert (width % 20, height % 20) == (0, 0)
    assert width * height <= 6400


def test_saved_and_loaded_it_encodes_the_same(policy: Policy, tmp_path: Path) -> None:
    save_policy(policy, tmp_path / "again")
    again = load_policy(tmp_path / "again")
    (prompt,), (other,) = make_prompts(policy, SIZES[:1]), make_prompts(again, SIZES[:1])
    assert torch.equal(prompt.input_ids, other.input_ids)
    assert torch.equal(prompt.inputs["pixel_values"], other.inputs["pixel_values"])
    assert again.dialect is policy.dialect


def test_its_dialect_has_to_be_named(folder: Path, tmp_path: Path) -> None:
    if AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type in DEFAULT_DIALECTS:
        return
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    (copy / "visionr1.json").unlink()
    with pytest.raises(CheckpointError, match=r"does not say how its model writes boxes.*write \{\"dialect\": NAME\}"):
        load_policy(copy)


def test_what_cannot_be_encoded_is_named(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    token = policy.tokenizer.convert_ids_to_tokens(policy.config.image_token_id)
    image = Image.new("RGB", (80, 60))
    monkeypatch.setattr(policy.config.get_text_config(), "max_position_embeddings", 10)
    with pytest.raises(DataError, match=r"80x60 pixels takes .* the model's context holds 10"):
        policy.encode(image, Query("referring", ("cat",)))
    if policy.config.model_type == "llava":
        with pytest.raises(DataError, match="80x60 pixels cannot be fed"):
            policy.encode(image, Query("referring", (f"the {token} one",)))


def test_an_image_processor_that_needs_torchvision_names_the_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("requires the Torchvision library")

    monkeypatch.setattr("visionr1.models.folder.processor.AutoImageProcessor.from_pretrained", fail)
    with pytest.raises(MissingDependency, match=r"needs torchvision, which is not installed: pip install torchvision"):
        load_policy(folder)


@pytest.mark.parametrize(
    "changed", [{"model_type": "gpt_oss"}, {"layer_types": ["sliding_attention", "full_attention"]}]
)
def test_a_known_family_with_another_decoder_takes_it(internvl_folder: Path, changed: dict[str, object]) -> None:
    config = AutoConfig.from_pretrained(internvl_folder, trust_remote_code=False)
    assert find_family(config) is not None
    for name, value in changed.items():
        object.__setattr__(config.text_config, name, value)
    assert find_family(config) is None
