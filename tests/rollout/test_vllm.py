"""Our side of the protocol with vLLM, against a stand-in that has its calls; and vLLM itself where it is installed."""

import importlib.util
import random
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from support.random_models import build_qwen3, build_qwen25, make_prompts, sharpen
from visionr1.errors import MissingDependency, RecipeError, TrainingError
from visionr1.models.adapters import attach, merged_weights
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.rows import make_groups
from visionr1.models.settings import LoRASection, ModelSection
from visionr1.rollout.eager import generate
from visionr1.rollout.engine import Sampling
from visionr1.rollout.engines.vllm import NEVER, VERSIONS, VLLMEngine, open_engine
from visionr1.rollout.settings import RolloutSection

SIZES = [(120, 80), (80, 120)]
GREEDY = Sampling(num_completions=2, max_new_tokens=6, temperature=0.0)


class StandIn:
    """vLLM's `LLM` as far as it is called: an own copy of the model, requests in, outputs in vLLM's form."""

    def __init__(
        self,
        model: str,
        *,
        dtype: str,
        max_model_len: int,
        gpu_memory_utilization: float,
        limit_mm_per_prompt: dict[str, int],
        logprobs_mode: str,
        mm_processor_kwargs: dict[str, Any] | None = None,
        distributed_executor_backend: str | None = None,
        enforce_eager: bool = False,
        enable_chunked_prefill: bool | None = None,
    ) -> None:
        # As vLLM's own configuration: a length is a whole number, -1 for the model's own.
        if not isinstance(max_model_len, int) or max_model_len < -1:
            raise ValueError(f"max_model_len: Input should be a valid integer, found {max_model_len!r}")
        if enable_chunked_prefill is not False or not enforce_eager:
            raise RuntimeError("CPU Generator does not use offset")  # of a long prompt with a seed, on a CPU
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        self.policy = load_policy(model)
        self.settings = {
            "dtype": dtype,
            "gpu_memory_utilization": gpu_memory_utilization,
            "logprobs_mode": logprobs_mode,
            "limit_mm_per_prompt": limit_mm_per_prompt,
            "mm_processor_kwargs": mm_processor_kwargs,
        }
        self.llm_engine = self
        self.calls: list[str] = []
        self.requests: list[tuple[Any, Any]] = []
        self.busy = False
        self.expand: Any = None
        """Prompt -> the token ids that the engine makes of it; by default the policy's."""

    def apply_model(self, function: Any) -> list[Any]:
        """Only the packing of output layers is asked for, in vLLM's own modules."""
        self.calls.append(function.__name__)
        return [None]

    def collective_rpc(self, method: str, *, kwargs: dict[str, Iterable[tuple[str, torch.Tensor]]]) -> None:
        self.calls.append(method)
        given, own = dict(kwargs["weights_iterator"]), dict(self.policy.model.named_parameters())
        assert given.keys() == own.keys()  # tied ones once, as vLLM wants them
        self.policy.model.load_state_dict(given, strict=False)

    def reset_mm_cache(self) -> None:
        self.calls.append("reset_mm_cache")

    def reset_encoder_cache(self) -> None:
        self.calls.append("reset_encoder_cache")

    def reset_prefix_cache(self) -> bool:
        self.calls.append("reset_prefix_cache")
        return not self.busy

    def generate(self, prompts: list[Any], params: list[Any], *, use_tqdm: bool) -> list[Any]:
        self.calls.append("generate")
        self.requests = list(zip(prompts, params, strict=True))
        for param in params:
            if param.temperature == 0 and param.n > 1:
                raise ValueError(f"n must be 1 when using greedy sampling, got {param.n}")
            if not (param.temperature == 0 or 0.01 <= param.temperature <= 2):
                raise ValueError(f"temperature must be in [0, 2], got {param.temperature}")
            if len(param.logit_bias) > 1024:
                raise ValueError("too many logit biases")
        return [self.answer(prompt, param) for prompt, param in self.requests]

    def answer(self, request: Any, params: Any) -> Any:
        (place,) = [i for i, t in enumerate(request["prompt_token_ids"]) if t == self.policy.config.image_token_id]
        assert place  # one placeholder, which the engine itself expands
        prompt = self.prompt_of(request)
        greedy = Sampling(num_completions=params.n, max_new_tokens=params.max_tokens, temperature=0.0)
        (group,) = generate(self.policy, [prompt], greedy)
        outputs = [
            SimpleNamespace(
                token_ids=tuple(reply.token_ids.tolist()),
                finish_reason="length" if reply.truncated else "stop",
                logprobs=[
                    {token: SimpleNamespace(logprob=value)}
                    for token, value in zip(reply.token_ids.tolist(), reply.logprobs.tolist(), strict=True)
                ],
            )
            for reply in group
        ]
        ids = prompt.input_ids.tolist() if self.expand is None else self.expand(prompt)
        return SimpleNamespace(prompt_token_ids=ids, outputs=outputs)

    def prompt_of(self, request: Any) -> Prompt:
        image = request["multi_modal_data"]["image"]
        (prompt,) = [p for p in make_prompts(self.policy, SIZES) if p.image.tobytes() == image.tobytes()]
        assert self.policy.tokenizer.encode(prompt.text, add_special_tokens=False) == request["prompt_token_ids"]
        return prompt


def open_stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Policy, VLLMEngine, Any]:
    """A policy, and an engine of the stand-in opened for it."""
    module = ModuleType("vllm")
    module.__dict__.update(__version__="0.32.1", LLM=StandIn, SamplingParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", module)
    policy = load_policy(folder)
    opened = open_engine(policy, ModelSection(), RolloutSection())
    return policy, opened, opened.llm


@pytest.fixture
def engine(qwen25_folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Policy, VLLMEngine, Any]:
    """Of one family, where all are alike."""
    return open_stand_in(qwen25_folder, monkeypatch)


def test_replies_are_those_of_the_policy_as_it_is_now(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, opened, llm = open_stand_in(model_folder, monkeypatch)
    for factor in (1.0, 4.0):  # at first, and after an update
        sharpen(policy, factor)
        prompts = make_prompts(policy, SIZES)
        found, expected = opened(policy, prompts, GREEDY), generate(policy, prompts, GREEDY)
        for ours, builtin in zip(found, expected, strict=True):
            assert [reply.text for reply in ours] == [reply.text for reply in builtin]
            for mine, other in zip(ours, builtin, strict=True):
                assert torch.equal(mine.token_ids, other.token_ids)
                assert torch.allclose(mine.logprobs, other.logprobs)
                assert mine.truncated == other.truncated
    once = ["reload_weights", "_pack_heads", "reset_mm_cache", "reset_encoder_cache", "reset_prefix_cache", "generate"]
    assert llm.calls == 2 * once


def test_adapters_are_merged_into_what_the_engine_gets(engine: tuple[Policy, VLLMEngine, Any]) -> None:
    policy, opened, llm = engine
    attach(policy.model, LoRASection(rank=2), seed=0, base="base")
    for name, parameter in policy.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.constant_(parameter, 0.01)
    opened.load(policy)
    loaded = llm.policy.model.state_dict()
    for name, weight in merged_weights(policy.model, policy.model.state_dict()):
        assert torch.equal(loaded[name], weight), name


def test_a_sample_is_one_request_with_its_own_seed(engine: tuple[Policy, VLLMEngine, Any]) -> None:
    policy, opened, llm = engine
    prompts = make_prompts(policy, SIZES)
    sampling = Sampling(num_completions=3, max_new_tokens=4, temperature=0.7, top_p=0.9, top_k=5)
    opened(policy, prompts, sampling, [(1, 2), (1, 3)])
    first, second = [params for _, params in llm.requests]
    assert (first.n, first.max_tokens, first.temperature, first.top_p, first.top_k) == (3, 4, 0.7, 0.9, 5)
    assert first.logit_bias == dict.fromkeys(policy.suppressed_ids.tolist(), NEVER)
    assert first.stop_token_ids == list(policy.eos_ids)
    assert first.seed != second.seed
    opened(policy, prompts, sampling, [(1, 2), (1, 3)])
    assert [params.seed for _, params in llm.requests] == [first.seed, second.seed]


def test_an_image_of_another_size_ends_the_run(engine: tuple[Policy, VLLMEngine, Any]) -> None:
    policy, opened, llm = engine
    llm.expand = lambda prompt: [policy.config.image_token_id, *prompt.input_ids.tolist()]
    with pytest.raises(TrainingError, match=r"do not see the same prompt: \d+ tokens, \d+ of them of the image"):
        opened(policy, make_prompts(policy, SIZES), GREEDY)


def test_caches_that_stay_end_the_run(engine: tuple[Policy, VLLMEngine, Any]) -> None:
    policy, opened, llm = engine
    llm.busy = True
    with pytest.raises(TrainingError, match="did not forget"):
        opened(policy, make_prompts(policy, SIZES), GREEDY)


def test_the_engine_is_opened_for_the_model_and_its_precision(
    engine: tuple[Policy, VLLMEngine, Any], qwen25_folder: Path
) -> None:
    policy, _, llm = engine
    assert policy.model.name_or_path == str(qwen25_folder)
    assert (llm.settings["dtype"], llm.settings["gpu_memory_utilization"]) == ("float32", 0.3)
    assert llm.settings["logprobs_mode"] == "processed_logprobs"
    assert llm.settings["limit_mm_per_prompt"] == {"image": 1, "video": 0}
    assert llm.settings["mm_processor_kwargs"] == {"use_fast": False}  # the policy's images are resized by PIL


def test_opening_leaves_random_numbers_as_they_were(qwen25_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    open_stand_in(qwen25_folder, monkeypatch)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected


@pytest.mark.parametrize("temperature", [0.005, 2.5])
def test_a_temperature_that_vllm_changes_or_refuses(temperature: float) -> None:
    with pytest.raises(RecipeError, match=r"temperature: expected a number from 0\.01 to 2"):
        RolloutSection(engine="vllm", temperature=temperature)


def test_too_many_biases_for_a_gpu_are_refused(qwen25_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_policy(qwen25_folder)
    policy.suppressed_ids = torch.arange(1025)
    monkeypatch.setattr(Policy, "device", torch.device("cuda"))
    with pytest.raises(RecipeError, match=r"1025 tokens .* vLLM takes 1024 at most; use engine = \"builtin\""):
        open_engine(policy, ModelSection(), RolloutSection())


@pytest.mark.parametrize("version", ["0.30.2", "0.34.0"])
def test_another_version_is_refused(version: str, qwen25_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("vllm")
    module.__dict__.update(__version__=version)
    monkeypatch.setitem(sys.modules, "vllm", module)
    message = f"vLLM {version} is installed, but rollout.engine needs {VERSIONS}; install it with: pip install"
    with pytest.raises(MissingDependency, match=re.escape(message)):
        open_engine(load_policy(qwen25_folder), ModelSection(), RolloutSection())


def test_without_vllm_its_install_command_is_named(qwen25_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingDependency, match=r'pip install "visionr1\[vllm\]"'):
        open_engine(load_policy(qwen25_folder), ModelSection(), RolloutSection())


def test_the_extra_asks_for_the_versions_that_are_checked() -> None:
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert f"vllm{VERSIONS}" in pyproject["project"]["optional-dependencies"]["vllm"]


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm")
@pytest.mark.parametrize("name", ["qwen25", "qwen3", "tiny"])
def test_vllm_itself_samples_as_the_policy_does(name: str, tmp_path: Path) -> None:
    """Of what vLLM samples, before and after an update: in float32 they differ by rounding.

    One image has to be resized. tiny's output layer shares its weight with the embedding. Heads are 64 wide: vLLM's
    attention on a CPU takes none of 16.
    """
    folder: str | Path = "tiny"
    if name != "tiny":
        folder = build_qwen3(tmp_path / "qwen3")
    if name == "qwen25":
        folder = build_qwen25(tmp_path / "qwen25", tmp_path / "qwen3")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy = load_policy(folder, device=device)
    opened = open_engine(policy, ModelSection(), RolloutSection(engine="vllm", vllm_memory=0.2))
    prompts = make_prompts(policy, [(640, 480), (200, 300)])
    sampling = Sampling(num_completions=4, max_new_tokens=24)
    for factor in (1.0, 2.0):
        sharpen(policy, factor)
        replies = opened(policy, prompts, sampling, [(0,), (1,)])
        groups = make_groups(prompts, [[reply.token_ids for reply in own] for own in replies])
        with torch.no_grad():
            ours = policy.token_logprobs(policy.path.pack(groups).to(policy.device)).cpu()
        theirs = torch.cat([reply.logprobs for own in replies for reply in own])
        assert (ours - theirs).abs().max() < 1e-4

        # A seed's replies are its own, and greedy ones are the built-in engine's.
        (again,) = opened(policy, prompts[1:], sampling, [(1,)])
        assert [reply.text for reply in again] == [reply.text for reply in replies[1]]
        greedy = Sampling(num_completions=2, max_new_tokens=24, temperature=0.0)
        found, expected = opened(policy, prompts, greedy), generate(policy, prompts, greedy)
        assert [[reply.text for reply in own] for own in found] == [[reply.text for reply in own] for own in expected]
