"""The generic path in bfloat16, by weights or by autocast: it errs no more than transformers' own forward pass does.

Errors are against float32 on the same weights, which bfloat16 can hold. Rounding differs with the shapes of products,
so what is sampled and what is scored differ too, within the errors of both.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from support.family_builder import build_family
from support.family_checks import SIZES, call_inputs, logprobs_alone, sample, score
from support.family_shapes import SHAPES
from support.random_models import make_prompts, plain_inputs, sharpen
from visionr1.errors import MissingDependency
from visionr1.models.loading import load_policy
from visionr1.models.paths.generic import GenericPath
from visionr1.models.paths.shared_cache import join_rows, select_rows
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.rollout.engine import Completion

KINDS = {"attention": "llava", "windows": "gemma4", "gated delta net": "qwen3_5", "convolutions": "lfm3_vl"}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def folder(request: pytest.FixtureRequest, qwen3_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = SHAPES[request.param]
    if shape.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        pytest.skip("this transformers does not have it")
    return build_family(tmp_path_factory.mktemp("models") / "model", qwen3_folder, shape)


@pytest.fixture(scope="module")
def exact(folder: Path) -> Policy:
    """A policy in float32 whose weights bfloat16 can hold."""
    try:
        policy = sharpen(load_policy(folder))
    except MissingDependency:
        pytest.skip("this transformers needs torchvision for it")
    policy.model.bfloat16().float()
    return policy


@pytest.fixture(params=["dtype", "autocast"])
def coarse(request: pytest.FixtureRequest, folder: Path, exact: Policy) -> Iterator[Policy]:
    """The same policy in bfloat16."""
    if request.param == "dtype":
        yield sharpen(load_policy(folder, dtype="bfloat16"))
        return
    with torch.autocast("cpu", torch.bfloat16):
        yield exact


def rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def plain_logprobs(policy: Policy, prompts: list[Prompt], groups: list[list[Completion]]) -> Tensor:
    parts = []
    for prompt, group in zip(prompts, groups, strict=True):
        parts += [logprobs_alone(policy, prompt, reply.token_ids).float() for reply in group]
    return torch.cat(parts)


@torch.no_grad()
def test_sampling_and_scoring_err_as_transformers_does(exact: Policy, coarse: Policy) -> None:
    prompts = make_prompts(coarse, SIZES)
    groups = sample(coarse, prompts)
    sampled = torch.cat([reply.logprobs for group in groups for reply in group])
    scored = torch.cat(score(coarse, prompts, [[reply.token_ids for reply in group] for group in groups]))

    plain = plain_logprobs(coarse, prompts, groups)
    with torch.autocast("cpu", enabled=False):
        truth = plain_logprobs(exact, make_prompts(exact, SIZES), groups)
    error = rms(plain - truth)
    assert error > 1e-3
    assert max(rms(scored - truth), rms(sampled - truth)) < 1.5 * error
    assert rms(sampled - scored) < 1.5 * error


@torch.no_grad()
def test_a_forked_cache_keeps_what_transformers_keeps_in_float32(coarse: Policy) -> None:
    assert isinstance(coarse.path, GenericPath)
    prompts = make_prompts(coarse, SIZES)
    plain = DynamicCache(config=coarse.config.get_text_config(decoder=True))
    inputs = call_inputs(coarse, plain_inputs(coarse, prompts[0], prompts[0].input_ids[None]))
    coarse.model(**inputs, past_key_values=plain, use_cache=True)

    one, other = (coarse.path.prefill(coarse, prompt).layers for prompt in prompts)
    expected = dtypes(plain.layers)
    assert any(expected)
    assert dtypes(one) == expected
    assert dtypes(select_rows(one, torch.zeros(3, dtype=torch.long))) == expected
    assert dtypes(join_rows([one, other])) == expected


def dtypes(layers: list[Any]) -> list[dict[str, torch.dtype]]:
    """The types of keys, values and states, layer by layer."""
    found = []
    for layer in layers:
        tensors = {"keys": getattr(layer, "keys", None), "values": getattr(layer, "values", None)}
        for name in ("conv_states", "recurrent_states"):
            for index, state in getattr(layer, name, {}).items():
                tensors[f"{name} {index}"] = state
        found.append({name: tensor.dtype for name, tensor in tensors.items() if tensor is not None})
    return found
