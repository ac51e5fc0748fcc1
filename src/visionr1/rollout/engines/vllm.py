"""Rollout by vLLM: for a GPU, where a large model's long replies take most of a step.

The engine lives in this process, on the policy's GPU. Before each rollout it gets the policy's weights, and then
forgets everything that it computed with older ones: the KV cache of prompts, and images that have gone through the
vision tower, which it would otherwise reuse. A sample is one request for G replies, so image and prompt are read once.
The prompt's tokens as vLLM makes them are compared with the policy's: an image that the two would see at different
sizes ends the run, for rewards and gradients would then be of another image than the one that was shown.

Its arithmetic is not this package's: log-probabilities differ by rounding, and a resumed run's samples need not be
those of an uninterrupted one.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from packaging.specifiers import SpecifierSet

from visionr1.errors import MissingDependency, TrainingError, needs_extra
from visionr1.models.adapters import merged_weights
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.settings import ModelSection
from visionr1.rollout.engine import Completion, Sampling, Seeds
from visionr1.rollout.settings import RolloutSection

VERSIONS = ">=0.31,<0.34"
"""Versions of vLLM that the calls below are known to fit; the extra "vllm" asks for the same."""
NEVER = -100.0
"""The lowest bias of a logit that vLLM takes: e^-100 of the probability is left."""


def open_engine(policy: Policy, model: ModelSection, rollout: RolloutSection) -> "VLLMEngine":
    """Return an engine for the policy's model; MissingDependency if there is no vLLM, or one not known to fit."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # weights are handed over in this process
    with needs_extra("vllm"):
        import vllm
    if not SpecifierSet(VERSIONS).contains(vllm.__version__, prereleases=True):
        raise MissingDependency(
            f"vLLM {vllm.__version__} is installed, but rollout.engine needs {VERSIONS}; install it with: "
            'pip install "visionr1[vllm]"'
        )
    launched = torch.distributed.is_available() and torch.distributed.is_initialized()
    bfloat16 = model.autocast == "bfloat16" or model.dtype == "bfloat16"
    llm = vllm.LLM(
        model=policy.model.name_or_path,
        dtype="bfloat16" if bfloat16 else "float32",
        max_model_len="auto",
        gpu_memory_utilization=rollout.vllm_memory,
        limit_mm_per_prompt={"image": 1},
        logprobs_mode="processed_logprobs",
        distributed_executor_backend="external_launcher" if launched else None,
    )
    return VLLMEngine(llm, vllm.SamplingParams)


class VLLMEngine:
    """A rollout engine; its log-probabilities are of the distribution that was sampled from, after top-p and top-k."""

    def __init__(self, llm: Any, sampling_params: Any) -> None:
        self.llm = llm
        self.sampling_params = sampling_params

    def __call__(
        self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, seeds: Seeds = ()
    ) -> list[list[Completion]]:
        """Sample as `RolloutEngine`."""
        self.load(policy)
        settings = {
            "n": sampling.num_completions,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "logprobs": 0,  # of the sampled tokens alone
            "logit_bias": dict.fromkeys(policy.suppressed_ids.tolist(), NEVER),
            "stop_token_ids": list(policy.eos_ids),
            "detokenize": False,
        }
        if not sampling.temperature:
            seeds = [(0,)] * len(prompts)
        requests, parameters = [], []
        for prompt, seed in zip(prompts, seeds, strict=True):
            token_ids = policy.tokenizer.encode(prompt.text, add_special_tokens=False)  # one placeholder for the image
            requests.append({"prompt_token_ids": token_ids, "multi_modal_data": {"image": prompt.image}})
            parameters.append(self.sampling_params(**settings, seed=_single_seed(seed)))
        outputs = self.llm.generate(requests, parameters, use_tqdm=False)
        return [_completions(policy, prompt, output) for prompt, output in zip(prompts, outputs, strict=True)]

    def load(self, policy: Policy) -> None:
        """Load the policy's weights, and drop every cache of what was computed with others."""
        weights = merged_weights(policy.model, policy.model.state_dict())
        self.llm.apply_model(lambda model: model.load_weights(weights))
        self.llm.reset_mm_cache()
        self.llm.llm_engine.reset_encoder_cache()  # of the vision tower's outputs, in scheduler and worker
        if not self.llm.reset_prefix_cache():
            raise TrainingError("vLLM did not forget the keys and values of older weights: requests are under way")


def _single_seed(seed: Sequence[int]) -> int:
    """Return one number made of the numbers of a sample's seed."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def _completions(policy: Policy, prompt: Prompt, output: Any) -> list[Completion]:
    """Return the replies in one request's output; TrainingError if vLLM made other tokens of the prompt."""
    if list(output.prompt_token_ids) != prompt.input_ids.tolist():
        image = policy.config.image_token_id
        ours, theirs = int((prompt.input_ids == image).sum()), list(output.prompt_token_ids).count(image)
        raise TrainingError(
            f"vLLM and the policy do not see the same prompt: {len(output.prompt_token_ids)} tokens, {theirs} of them "
            f"of the image, against {len(prompt.input_ids)} and {ours}; the model folder's preprocessor_config.json "
            "must be the one that vLLM reads"
        )
    replies = []
    for sequence in output.outputs:
        ids, truncated = list(sequence.token_ids), sequence.finish_reason == "length"
        logprobs = [choice[token].logprob for choice, token in zip(sequence.logprobs, ids, strict=True)]
        text = policy.decode_reply(ids if truncated else ids[:-1])
        replies.append(Completion(torch.tensor(ids), text, torch.tensor(logprobs), truncated))
    return replies
