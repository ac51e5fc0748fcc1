"""Rollout by vLLM: for a GPU, where a large model's long replies take most of a step. It runs on a CPU too, for tests.

The engine lives in this process, on the policy's device. Before each rollout it gets the policy's weights, and then
forgets everything that it computed with older ones: the KV cache of prompts, and images that have gone through the
vision tower, which it would otherwise reuse. A sample is one request for G replies, which share the whole blocks of
their prompt in vLLM's cache.
The prompt's tokens as vLLM makes them are compared with the policy's: an image that the two would see at different
sizes ends the run, for rewards and gradients would then be of another image than the one that was shown.

Its arithmetic is not this package's: log-probabilities differ by rounding, and a resumed run's samples need not be
those of an uninterrupted one. With top-p or top-k its log-probabilities are of what is left after the cut, so that
`sampling/gap` of such a run says nothing.
"""

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from packaging.specifiers import SpecifierSet

from visionr1.errors import MissingDependency, RecipeError, TrainingError, needs_extra
from visionr1.models.adapters import merged_weights
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.settings import ModelSection
from visionr1.rollout.engine import Completion, Sampling, Seeds
from visionr1.rollout.settings import RolloutSection

VERSIONS = ">=0.31,<0.34"
"""Versions of vLLM that the calls below are known to fit; the extra "vllm" asks for the same."""
NEVER = -1e9
"""The bias of a logit whose token is never sampled."""
MAX_BIASES = 1024
"""vLLM's runner for GPUs takes no more biases of logits for one request."""


def open_engine(policy: Policy, model: ModelSection, rollout: RolloutSection) -> "VLLMEngine":
    """Return an engine for the policy's model.

    Raises MissingDependency if there is no vLLM, or one not known to fit, and RecipeError if the model has more tokens
    that must not be sampled than vLLM can be told.
    """
    on_cpu = policy.device.type == "cpu"
    num_suppressed = len(policy.suppressed_ids)
    if num_suppressed > MAX_BIASES and not on_cpu:
        raise RecipeError(
            f"rollout.engine: {num_suppressed} tokens of this model must never be sampled (special ones, and rows of "
            f'the output layer without a token), but vLLM takes {MAX_BIASES} at most; use engine = "builtin"'
        )

    # Weights are handed over in this process. vLLM's own lines would stand between those of the progress.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    with needs_extra("vllm"):
        import vllm
    if not SpecifierSet(VERSIONS).contains(vllm.__version__, prereleases=True):
        raise MissingDependency(
            f"vLLM {vllm.__version__} is installed, but rollout.engine needs {VERSIONS}; install it with: "
            'pip install "visionr1[vllm]"'
        )
    launched = torch.distributed.is_available() and torch.distributed.is_initialized()
    bfloat16 = model.autocast == "bfloat16" or model.dtype == "bfloat16"
    settings: dict[str, Any] = {
        "model": policy.model.name_or_path,
        "dtype": "bfloat16" if bfloat16 else "float32",
        "max_model_len": -1,  # the model's whole context, or what memory holds of it
        "gpu_memory_utilization": rollout.vllm_memory,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "logprobs_mode": "processed_logprobs",
    }
    if type(policy.image_processor).__name__.endswith("Pil"):
        # Images are resized as the policy resizes them: torchvision's pixels differ, and log-probabilities with them.
        settings["mm_processor_kwargs"] = {"use_fast": False}
    if launched:
        settings["distributed_executor_backend"] = "external_launcher"
    if on_cpu:
        # Compiling takes minutes there, and a prompt that is split over two steps cannot have a seed.
        settings |= {"enforce_eager": True, "enable_chunked_prefill": False}
    with _keeping_random_state():
        llm = vllm.LLM(**settings)
    return VLLMEngine(llm, vllm.SamplingParams)


@contextmanager
def _keeping_random_state() -> Iterator[None]:
    """Give back what opening vLLM changes of this process: states of random numbers, and the setting of threads."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    set_num_threads = torch.set_num_threads
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
            torch.set_num_threads = set_num_threads


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
        # Greedy completions of one prompt are the same; vLLM refuses to make more than one.
        num_requested = sampling.num_completions if sampling.temperature else 1
        settings = {
            "n": num_requested,
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
        groups = []
        for prompt, output in zip(prompts, outputs, strict=True):
            replies = _completions(policy, prompt, output)
            groups.append(replies * (sampling.num_completions // num_requested))
        return groups

    def load(self, policy: Policy) -> None:
        """Load the policy's weights, and drop every cache of what was computed with others."""
        weights = merged_weights(policy.model, policy.model.state_dict())
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        if policy.device.type == "cpu":
            self.llm.apply_model(_pack_heads)
        self.llm.reset_mm_cache()
        self.llm.llm_engine.reset_encoder_cache()  # of the vision tower's outputs, in scheduler and worker
        if not self.llm.reset_prefix_cache():
            raise TrainingError("vLLM did not forget the keys and values of older weights: requests are under way")


def _pack_heads(model: Any) -> None:
    """Pack the output layer's weight anew, as vLLM does on a CPU when it loads a model.

    Reloading leaves out a layer that shares its weight with the embedding: it would go on by the old one.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


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
