"""vLLM gives its memory back between rollouts, in the order in which it can be woken."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from support.random_models import make_prompts, sharpen
from support.vllm_stand_in import SIZES, StandIn, install_stand_in
from visionr1.errors import RecipeError, TrainingError
from visionr1.models.loading import load_encoder, load_policy
from visionr1.models.policy import Policy
from visionr1.models.settings import ModelSection
from visionr1.rollout.eager import generate
from visionr1.rollout.engine import Sampling
from visionr1.rollout.engines.vllm import VLLMEngine, open_engine
from visionr1.rollout.settings import RolloutSection

GREEDY = Sampling(num_completions=2, max_new_tokens=6, temperature=0.0)
PARTS = {"weights", "kv_cache"}


class OnGPU(StandIn):
    """The stand-in as on a GPU, with sleep mode.

    vLLM itself would read memory that it has given back, or wait for ever for a scheduler that stands still: here each
    of these is an error.
    """

    def __init__(self, model: str, *, enable_sleep_mode: bool = False, **settings: Any) -> None:
        assert "enforce_eager" not in settings
        super().__init__(model, enforce_eager=True, enable_chunked_prefill=False, **settings)
        self.enable_sleep_mode = enable_sleep_mode
        self.asleep: set[str] = set()

    def sleep(self, level: int = 1) -> None:
        assert self.enable_sleep_mode, "nothing was allocated so that it can be given back"
        assert not self.asleep, "it sleeps already"
        self.calls.append("sleep")
        self.asleep = set(PARTS)
        if level == 2:
            for weight in self.policy.model.parameters():
                weight.data.fill_(torch.nan)

    def wake_up(self, tags: list[str]) -> bool:
        assert set(tags) <= self.asleep, f"{tags} are not asleep"
        self.calls.append(f"wake {tags[0]}")
        self.asleep -= set(tags)
        return not self.asleep

    def collective_rpc(self, method: str, **settings: Any) -> None:
        assert "weights" not in self.asleep, "weights are loaded into memory that was given back"
        super().collective_rpc(method, **settings)

    def generate(self, *requests: Any, **settings: Any) -> Any:
        assert not self.asleep, "requests wait for ever for an engine that sleeps"
        return super().generate(*requests, **settings)

    def enqueue(self, *requests: Any, **settings: Any) -> Any:
        assert not self.asleep, "requests wait for ever for an engine that sleeps"
        return super().enqueue(*requests, **settings)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    install_stand_in(monkeypatch, OnGPU, on_cpu=False)


def open_on_gpu(policy: Policy, *, sleeps: bool) -> tuple[VLLMEngine, Any]:
    opened = open_engine(policy, ModelSection(device="cuda"), RolloutSection(engine="vllm", vllm_sleep=sleeps))
    return opened, opened.llm


def test_memory_is_given_back_but_for_the_rollout(qwen25_folder: Path, vllm: None) -> None:
    policy = load_policy(qwen25_folder)
    opened, llm = open_on_gpu(policy, sleeps=True)
    assert llm.asleep == PARTS
    for factor in (1.0, 4.0):  # at first, and after an update
        sharpen(policy, factor)
        llm.calls.clear()
        prompts = make_prompts(policy, SIZES)
        sampled, expected = opened(policy, prompts, GREEDY), generate(policy, prompts, GREEDY)
        texts = [[reply.text for reply in group] for group in sampled]
        assert texts == [[reply.text for reply in group] for group in expected]

        # Weights are there before they are loaded, the cache after the old one is forgotten.
        order = [
            call for call in llm.calls if call in ("reload_weights", "generate", "sleep") or call.startswith("wake")
        ]
        assert order == ["wake weights", "reload_weights", "wake kv_cache", "generate", "sleep"]
        assert llm.calls.index("reset_prefix_cache") < llm.calls.index("wake kv_cache")
        assert llm.asleep == PARTS


def test_an_evaluation_wakes_it_until_it_ends_or_is_left(qwen25_folder: Path, vllm: None) -> None:
    policy = load_policy(qwen25_folder)
    opened, llm = open_on_gpu(policy, sleeps=True)
    answers = opened.answer(policy, make_prompts(policy, SIZES), max_new_tokens=4, at_once=1)
    next(answers)
    assert not llm.asleep
    answers.close()
    assert llm.asleep == PARTS
    assert len(list(opened.answer(policy, make_prompts(policy, SIZES), max_new_tokens=4, at_once=2))) == 2
    assert llm.asleep == PARTS


def test_a_rollout_that_fails_leaves_it_asleep(qwen25_folder: Path, vllm: None) -> None:
    policy = load_policy(qwen25_folder)
    opened, llm = open_on_gpu(policy, sleeps=True)
    llm.expand = lambda prompt: [policy.config.image_token_id, *prompt.input_ids.tolist()]
    with pytest.raises(TrainingError, match="do not see the same prompt"):
        opened(policy, make_prompts(policy, SIZES), GREEDY)
    assert llm.asleep == PARTS


def test_a_bound_that_vllm_does_not_read_is_named(qwen25_folder: Path, vllm: None) -> None:
    policy = load_policy(qwen25_folder, max_pixels=160 * 160)
    opened, llm = open_on_gpu(policy, sleeps=False)
    llm.expand = lambda prompt: [policy.config.image_token_id, *prompt.input_ids.tolist()]
    llm.prompt_of = lambda request: make_prompts(policy, SIZES)[0]
    with pytest.raises(TrainingError, match=r"with the bound of model\.max_pixels in it"):
        opened(policy, make_prompts(policy, SIZES), GREEDY)


def test_it_stays_awake_unless_asked(qwen25_folder: Path, vllm: None) -> None:
    policy = load_policy(qwen25_folder)
    opened, llm = open_on_gpu(policy, sleeps=False)
    opened(policy, make_prompts(policy, SIZES), GREEDY)
    assert "sleep" not in llm.calls


def test_weights_that_nobody_hands_over_are_kept(qwen25_folder: Path, vllm: None) -> None:
    encoder = load_encoder(qwen25_folder)  # the policy of an evaluation, which has no weights
    opened, llm = open_on_gpu(encoder, sleeps=True)
    assert not llm.asleep
    assert not opened.sleeps


def test_what_cannot_sleep_is_refused(qwen25_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_stand_in(monkeypatch)
    policy = load_policy(qwen25_folder)
    with pytest.raises(RecipeError, match=r"rollout\.vllm_sleep: expected false on a CPU, found true"):
        open_engine(policy, ModelSection(), RolloutSection(engine="vllm", vllm_sleep=True))
    with pytest.raises(RecipeError, match=r'vllm_sleep: expected false \(it is for engine = "vllm"\)'):
        RolloutSection(vllm_sleep=True)


def test_a_reply_that_vllm_would_cut_off_is_refused(qwen25_folder: Path, vllm: None) -> None:
    policy = load_policy(qwen25_folder)
    opened, llm = open_on_gpu(policy, sleeps=False)
    prompts = make_prompts(policy, SIZES)
    llm.model_config.max_model_len = max(len(prompt.input_ids) for prompt in prompts) + 5
    with pytest.raises(RecipeError, match=r"max_new_tokens: expected 5 or less .* raise rollout\.vllm_memory"):
        opened(policy, prompts, GREEDY)
    assert "generate" not in llm.calls


def test_vllm_opens_on_the_first_gpu_alone(qwen25_folder: Path, vllm: None) -> None:
    policy = load_policy(qwen25_folder)
    message = 'found "cuda:1"; set CUDA_VISIBLE_DEVICES=1 and model.device = "cuda"'
    with pytest.raises(RecipeError, match=re.escape(message)):
        open_engine(policy, ModelSection(device="cuda:1"), RolloutSection(engine="vllm"))
    open_engine(policy, ModelSection(device="cuda:0"), RolloutSection(engine="vllm"))
