"""Families by kind of mechanism, each as a small random model: what `benchmarks/families.py` measures, bounded."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from support.family_builder import build_family
from support.family_checks import (
    greedy_is_generate,
    logprobs_alone,
    reloads,
    sampled_error,
    score_errors,
    together_is_alone,
)
from support.family_shapes import SHAPES
from support.random_models import make_prompts, random_completions, sharpen
from visionr1.errors import CheckpointError, MissingDependency
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy

BY_MECHANISM = {
    "prefix that attends both ways": "paligemma",
    "images packed along the last axis": "minicpmv4_6",
    "windows and convolutions": "lfm3_vl",
    "recurrences and experts": "qwen3_5_moe",
    "chosen keys and n-grams": "qwen4_exp",
    "image blocks that attend both ways": "gemma4",
    "keys of earlier layers": "gemma4+shared_kv",
    "sinks": "internvl+gpt_oss",
    "tiles of several grids": "llava_onevision",
    "a perceiver": "idefics2",
    "positions of three axes and experts": "ernie4_5_vl_moe",
}


@pytest.fixture(scope="module", params=BY_MECHANISM.values())
def policy(request: pytest.FixtureRequest, qwen3_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    shape = SHAPES[request.param]
    if shape.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        pytest.skip("this transformers does not have it")
    folder = build_family(tmp_path_factory.mktemp("families") / "model", qwen3_folder, shape)
    try:
        return sharpen(load_policy(folder))
    except MissingDependency:
        pytest.skip("this transformers needs torchvision for it")


def test_scores_and_gradients_are_those_of_rows_alone(policy: Policy) -> None:
    logprobs, gradients = score_errors(policy)
    assert max(logprobs, gradients) < 1e-5


def test_images_matter(policy: Policy) -> None:
    (prompt,) = make_prompts(policy, [(120, 80)])
    ((completion,),) = random_completions(policy, [[5]])
    blank = replace(prompt, inputs={**prompt.inputs, "pixel_values": torch.rand_like(prompt.inputs["pixel_values"])})
    with torch.no_grad():
        gap = logprobs_alone(policy, prompt, completion) - logprobs_alone(policy, blank, completion)
    assert gap.abs().max() > 1e-4


def test_sampling_is_that_of_transformers_and_of_scoring(policy: Policy) -> None:
    assert greedy_is_generate(policy)
    assert sampled_error(policy) < 1e-5
    assert together_is_alone(policy)


def test_saved_and_loaded_it_is_the_same(policy: Policy, tmp_path: Path) -> None:
    assert reloads(policy, tmp_path / "again")


def test_a_family_whose_completions_cannot_share_a_cache_is_refused(qwen3_folder: Path, tmp_path: Path) -> None:
    folder = build_family(tmp_path / "mllama", qwen3_folder, SHAPES["mllama"])
    with pytest.raises(CheckpointError, match="models of type 'mllama' are not supported: its completions see"):
        load_policy(folder)


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_vl_moe"])
def test_a_dialect_by_default(qwen3_folder: Path, tmp_path: Path, name: str) -> None:
    folder = build_family(tmp_path / name, qwen3_folder, SHAPES[name])
    (folder / "visionr1.json").unlink()
    assert load_policy(folder).dialect.name == "qwen3"
