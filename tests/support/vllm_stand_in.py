"""A stand-in for the parts of vLLM that visionr1 calls, which refuses what vLLM refuses.

`BAD_PARAMETERS` and `BAD_SETTINGS` are what both must refuse: tests/rollout/test_vllm.py gives them to the stand-in,
and to vLLM's own classes where it is installed.
"""

import math
import random
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from support.random_models import make_prompts
from visionr1.models.folder.files import WEIGHTS
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.rollout.eager import generate
from visionr1.rollout.engine import Sampling

SIZES = [(120, 80), (80, 120)]
"""Sizes of the images that the stand-in knows again."""

GOOD_PARAMETERS: dict[str, Any] = {
    "n": 2,
    "max_tokens": 8,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "logprobs": 0,
    "logit_bias": {3: -1e9},
    "stop_token_ids": [2],
    "detokenize": False,
    "seed": 5,
}
BAD_PARAMETERS: list[dict[str, Any]] = [
    {"n": 0},
    {"n": 1.5},
    {"temperature": 0.0},  # greedy, and two replies
    {"temperature": -0.1},
    {"temperature": 2.1},
    {"temperature": math.nan},
    {"temperature": math.inf},
    {"top_p": 0.0},
    {"top_p": 1.1},
    {"top_k": -2},
    {"top_k": 1.5},
    {"max_tokens": 0},
    {"logprobs": -2},
    {"stop_token_ids": ["end"]},
    {"unknown": 1},
]
BAD_SETTINGS: list[dict[str, Any]] = [
    {"max_model_len": "auto"},
    {"max_model_len": -2},
    {"dtype": "float31"},
    {"gpu_memory_utilization": 0.0},
    {"gpu_memory_utilization": 1.5},
    {"logprobs_mode": "processed"},
    {"limit_mm_per_prompt": {"image": -1}},
    {"distributed_executor_backend": "launcher"},
    {"enable_sleep_mode": True},  # on a CPU
    {"unknown": 1},
]


@dataclass(kw_only=True)
class Parameters:
    """vLLM's `SamplingParams`."""

    n: int
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    logprobs: int
    logit_bias: dict[int, float]
    stop_token_ids: list[int]
    detokenize: bool
    seed: int | None = None

    def __post_init__(self) -> None:
        is_greedy = self.temperature == 0
        if not isinstance(self.n, int) or self.n < 1 or (is_greedy and self.n > 1):
            raise ValueError(f"n must be 1 when using greedy sampling, got {self.n}")
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature must be in [0, 2], got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if not isinstance(self.top_k, int) or self.top_k < -1:
            raise ValueError(f"top_k must be 0 (disable), or at least 1, got {self.top_k}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")
        if self.logprobs < -1:
            raise ValueError(f"logprobs must be non-negative or -1, got {self.logprobs}")
        if not all(isinstance(token, int) for token in self.stop_token_ids):
            raise ValueError(f"stop_token_ids must contain only integers, got {self.stop_token_ids}")
        # It warns and goes on with another temperature, of which log-probabilities would be.
        if 0 < self.temperature < 0.01:
            raise AssertionError(f"vLLM changes a temperature of {self.temperature} to 0.01")


class StandIn:
    """vLLM's `LLM`: an own copy of the model, requests in, outputs in vLLM's form."""

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
        mm_device_do_normalize: bool | None = None,
        distributed_executor_backend: str | None = None,
        enforce_eager: bool = False,
        enable_chunked_prefill: bool | None = None,
    ) -> None:
        _check(isinstance(max_model_len, int) and max_model_len >= -1, "max_model_len", max_model_len)
        _check(dtype in ("auto", "half", "float16", "bfloat16", "float", "float32"), "dtype", dtype)
        _check(0 < gpu_memory_utilization <= 1, "gpu_memory_utilization", gpu_memory_utilization)
        _check(logprobs_mode in ("raw_logprobs", "processed_logprobs"), "logprobs_mode", logprobs_mode)
        _check(min(limit_mm_per_prompt.values()) >= 0, "limit_mm_per_prompt", limit_mm_per_prompt)
        backends = (None, "uni", "mp", "ray", "external_launcher")
        _check(distributed_executor_backend in backends, "distributed_executor_backend", distributed_executor_backend)
        if enable_chunked_prefill is not False or not enforce_eager:
            raise RuntimeError("CPU Generator does not use offset")  # of a long prompt with a seed, on a CPU
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        self.policy = load_policy(Path(model))
        self.settings = {
            "dtype": dtype,
            "gpu_memory_utilization": gpu_memory_utilization,
            "logprobs_mode": logprobs_mode,
            "limit_mm_per_prompt": limit_mm_per_prompt,
            "mm_processor_kwargs": mm_processor_kwargs,
            "mm_device_do_normalize": mm_device_do_normalize,
        }
        self.llm_engine = self
        length = self.policy.context  # or what memory holds of it
        self.model_config = SimpleNamespace(is_mm_prefix_lm=False, max_model_len=length)
        self.calls: list[str] = []
        self.requests: list[tuple[Any, Any]] = []
        self.under_way: dict[str, tuple[Any, Any]] = {}
        """Requests of `enqueue` by vLLM's own id, which has random letters behind the number."""
        self.num_enqueued = 0
        self.most_under_way = 0
        self.busy = False
        self.sizes = SIZES
        self.expand: Any = None
        """Prompt -> the token ids that the engine makes of it; by default the policy's."""

    def apply_model(self, function: Any) -> list[Any]:
        """Only the packing of output layers is asked for, in vLLM's own modules."""
        self.calls.append(function.__name__)
        return [None]

    def collective_rpc(self, method: str, *, kwargs: dict[str, Iterable[tuple[str, torch.Tensor]]]) -> None:
        self.calls.append(method)
        load_by_names_of_folder(self.policy, {name: weight.clone() for name, weight in kwargs["weights_iterator"]})

    def reset_mm_cache(self) -> None:
        self.calls.append("reset_mm_cache")

    def reset_encoder_cache(self) -> None:
        self.calls.append("reset_encoder_cache")

    def reset_prefix_cache(self) -> bool:
        self.calls.append("reset_prefix_cache")
        return not self.busy and not self.under_way

    def generate(self, prompts: list[Any], params: list[Any], *, use_tqdm: bool) -> list[Any]:
        self.calls.append("generate")
        self.requests = list(zip(prompts, params, strict=True))
        return [self.answer(prompt, param) for prompt, param in self.requests]

    def enqueue(self, prompts: list[Any], params: list[Any], *, use_tqdm: bool) -> list[str]:
        ids = []
        for request in zip(prompts, params, strict=True):
            self.requests.append(request)
            ids.append(f"{self.num_enqueued}-{random.randrange(16**8):08x}")
            self.under_way[ids[-1]] = request
            self.num_enqueued += 1
        self.most_under_way = max(self.most_under_way, len(self.under_way))
        return ids

    def step(self) -> list[Any]:
        """The last request ends first; there may be word of one that has not ended."""
        assert self.under_way, "vLLM would wait for ever"
        *others, last = self.under_way
        output = self.answer(*self.under_way.pop(last))
        output.request_id, output.finished = last.partition("-")[0], True
        going_on = [SimpleNamespace(request_id=other.partition("-")[0], finished=False) for other in others[:1]]
        return [*going_on, output]

    def abort_request(self, request_ids: list[str], *, internal: bool) -> None:
        assert internal  # they are vLLM's own ids
        for request_id in request_ids:
            del self.under_way[request_id]

    def answer(self, request: Any, params: Any) -> Any:
        """The policy's greedy replies, whatever the seed."""
        if len(params.logit_bias) > 1024:
            raise ValueError("too many logit biases")
        (place,) = [i for i, t in enumerate(request["prompt_token_ids"]) if t == self.policy.config.image_token_id]
        assert place  # one placeholder, which the engine itself expands
        prompt = self.prompt_of(request)
        greedy = Sampling(num_completions=params.n, max_new_tokens=params.max_tokens, temperature=0.0)
        (group,) = generate(self.policy, [prompt], greedy)
        outputs = []
        for reply in group:
            logprobs = []
            for token, value in zip(reply.token_ids.tolist(), reply.logprobs.tolist(), strict=True):
                logprobs.append({token: SimpleNamespace(logprob=value)})
            reason = "length" if reply.truncated else "stop"
            token_ids = tuple(reply.token_ids.tolist())
            outputs.append(SimpleNamespace(token_ids=token_ids, finish_reason=reason, logprobs=logprobs))
        ids = prompt.input_ids.tolist() if self.expand is None else self.expand(prompt)
        return SimpleNamespace(prompt_token_ids=ids, outputs=outputs)

    def prompt_of(self, request: Any) -> Prompt:
        """The prompt that a request is about, by its image."""
        image = request["multi_modal_data"]["image"]
        (prompt,) = [p for p in make_prompts(self.policy, self.sizes) if p.image.tobytes() == image.tobytes()]
        assert self.policy.tokenizer.encode(prompt.text, add_special_tokens=False) == request["prompt_token_ids"]
        return prompt


def install_stand_in(
    monkeypatch: pytest.MonkeyPatch, llm: Any = StandIn, *, version: str = "0.32.1", on_cpu: bool = True
) -> None:
    """Let `import vllm` find `llm` in place of vLLM's `LLM`, in a build for CPUs or for GPUs."""
    module, platforms = ModuleType("vllm"), ModuleType("vllm.platforms")
    module.__dict__.update(__version__=version, LLM=llm, SamplingParams=Parameters, platforms=platforms, __path__=[])
    platforms.__dict__.update(current_platform=SimpleNamespace(is_cpu=lambda: on_cpu))
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)


def _check(is_fit: bool, name: str, value: object) -> None:
    """As vLLM's own configuration, which names the field."""
    if not is_fit:
        raise ValueError(f"1 validation error for ModelConfig {name}: found {value!r}")


def load_by_names_of_folder(policy: Policy, given: dict[str, torch.Tensor]) -> None:
    """Load all weights of a model, as vLLM knows them: by the names in its folder, tied ones once."""
    folder = Path(policy.model.name_or_path)
    with safe_open(folder / WEIGHTS, "pt") as file:
        assert given.keys() == set(file.keys()), given.keys() ^ set(file.keys())

    # Whoever reads a folder reads its weights by these names.
    with tempfile.TemporaryDirectory() as temporary:
        shutil.copytree(folder, temporary, dirs_exist_ok=True)
        save_file(given, Path(temporary) / WEIGHTS, metadata={"format": "pt"})
        updated = load_policy(temporary).model.state_dict()
    policy.model.load_state_dict(updated)
