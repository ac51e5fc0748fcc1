"""Families by kind of mechanism, each as a small random model: what `benchmarks/families.py` measures, bounded."""

from pathlib import Path

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from support.family_builder import build_family
from support.family_checks import (
    features_error,
    greedy_is_generate,
    reloads,
    sampled_error,
    score_errors,
    tells_input_size,
    together_is_alone,
    vision_share,
)
from support.more_shapes import ALL_SHAPES
from support.random_models import make_prompts, sharpen
from visionr1.errors import MissingDependency
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.supported import LEAST_VISION_SHARE

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
    "positions of four axes": "hunyuan_vl",
    "an index that reaches for its layer": "glm5_next",
    "an image at two sizes": "deepseek_vl_hybrid",
}


@pytest.fixture(scope="module", params=BY_MECHANISM.values())
def policy(request: pytest.FixtureRequest, qwen3_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    shape = ALL_SHAPES[request.param]
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


def test_images_matter_and_train_the_vision_tower(policy: Policy) -> None:
    assert vision_share(policy) > LEAST_VISION_SHARE


def test_a_frozen_tower_sees_an_image_once(policy: Policy) -> None:
    assert features_error(policy) < 1e-5


def test_sampling_is_that_of_transformers_and_of_scoring(policy: Policy) -> None:
    assert greedy_is_generate(policy)
    assert sampled_error(policy) < 1e-5
    assert together_is_alone(policy)


def test_saved_and_loaded_it_is_the_same(policy: Policy, tmp_path: Path) -> None:
    assert reloads(policy, tmp_path / "again")


def test_the_size_at_which_an_image_is_seen(policy: Policy) -> None:
    (prompt,) = make_prompts(policy, [(120, 80)])
    assert tells_input_size(policy) is ("image_grid_thw" in prompt.inputs)


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_vl_moe"])
def test_a_dialect_by_default(qwen3_folder: Path, tmp_path: Path, name: str) -> None:
    folder = build_family(tmp_path / name, qwen3_folder, ALL_SHAPES[name])
    (folder / "visionr1.json").unlink()
    assert load_policy(folder).dialect.name == "qwen3"
