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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from packaging.specifiers import SpecifierSet

from visionr1.errors import MissingDependency, RecipeError, TrainingError, VisionR1Error, needs_extra
from visionr1.models.adapters import gathered_weights
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.settings import ModelSection
from visionr1.rollout.engine import Completion, Sampling, Seeds, check_logprobs
from visionr1.rollout.engines import reads_folder
from visionr1.rollout.settings import RolloutSection

VERSIONS = ">=0.31,<0.34"
"""Versions of vLLM that the calls below are known to fit; the extra "vllm" asks for the same."""
NEVER = -1e9
"""The bias of a logit whose token is never sampled."""
MAX_BIASES = 1024
"""vLLM's runner for GPUs takes no more biases of logits for one request."""
ADDED_AT_ONCE = 16
"""Prompts that an evaluation adds between two steps of the engine, so that reading images does not hold it up long."""


@reads_folder
def open_engine(policy: Policy, model: ModelSection, rollout: RolloutSection) -> "VLLMEngine":
    """Return an engine for the policy's model, on `model.device`; the policy may have no weights (`load_encoder`).

    Raises MissingDependency if there is no vLLM, or one not known to fit, and RecipeError if vLLM cannot open the
    model, or if this has more tokens that must not be sampled than vLLM can be told.
    """
    on_cpu = torch.device(model.device).type == "cpu"
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
    dtype = "bfloat16" if "bfloat16" in (model.autocast, model.dtype) else "float32"
    settings: dict[str, Any] = {
        "model": policy.model.name_or_path,
        "dtype": dtype,
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
    with _keeping_random_state(), _explaining(f"vLLM {vllm.__version__} cannot open {policy.model.name_or_path}"):
        llm = vllm.LLM(**settings)
    return VLLMEngine(llm, vllm.SamplingParams, label=f"vllm {vllm.__version__}", dtype=dtype, on_cpu=on_cpu)


@contextmanager
def _explaining(what: str) -> Iterator[None]:
    """Turn what vLLM raises inside this block into an error of ours that begins with `what` and ends with its reason.

    A package that the model needs is a MissingDependency, everything else a RecipeError: the engine is to be another.
    """
    try:
        yield
    except VisionR1Error:
        raise
    except Exception as error:  # this is the boundary: vLLM raises errors of any type for models that it does not take
        reason = f"{type(error).__name__}: {' '.join(str(error).split()):.600}"
        if isinstance(error, ImportError):
            raise MissingDependency(f"{what}: {reason}") from error
        raise RecipeError(
            f'{what}: {reason}; the engine "builtin" takes every model that loads (docs/faq.md#vllm-refuses-a-model)'
        ) from error


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

    copies_weights = True

    def __init__(self, llm: Any, sampling_params: Any, *, label: str, dtype: str, on_cpu: bool) -> None:
        """`llm` and `sampling_params` are vLLM's objects; the others are as in `StreamingEngine`."""
        self.llm = llm
        self.sampling_params = sampling_params
        self.label = label
        self.dtype = dtype
        self.on_cpu = on_cpu

    def __call__(
        self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, seeds: Seeds = ()
    ) -> list[list[Completion]]:
        """Sample as `RolloutEngine`."""
        self.load(policy)
        settings = _sampling_settings(policy, sampling)
        if not sampling.temperature:
            seeds = [(0,)] * len(prompts)
        requests, parameters = [], []
        for prompt, seed in zip(prompts, seeds, strict=True):
            requests.append(_request(policy, prompt))
            parameters.append(self.sampling_params(**settings, seed=_single_seed(seed)))
        with _explaining(f"{self.label} cannot sample from {policy.model.name_or_path}"):
            outputs = self.llm.generate(requests, parameters, use_tqdm=False)
        groups = []
        for prompt, output in zip(prompts, outputs, strict=True):
            replies = _completions(policy, prompt, output)
            groups.append(replies * (sampling.num_completions // settings["n"]))
        return groups

    def answer(
        self, policy: Policy, prompts: Iterable[Prompt], *, max_new_tokens: int, at_once: int
    ) -> Iterator[tuple[int, Completion]]:
        """Answer as `StreamingEngine`: a reply that ends makes room for the next prompt at once.

        In batches of their own most requests would wait for the longest reply of each batch.
        """
        self.load(policy)
        greedy = _sampling_settings(policy, Sampling(max_new_tokens=max_new_tokens, temperature=0.0))
        unasked = enumerate(prompts)
        is_read = False
        under_way: dict[int, tuple[int, Prompt, str]] = {}
        try:
            while under_way or not is_read:
                num_added = min(ADDED_AT_ONCE, at_once - len(under_way))
                added = list(islice(unasked, num_added))
                is_read = len(added) < num_added
                with _explaining(f"{self.label} cannot answer with {policy.model.name_or_path}"):
                    for place, prompt in added:
                        parameters = self.sampling_params(**greedy)
                        (request_id,) = self.llm.enqueue([_request(policy, prompt)], [parameters], use_tqdm=False)
                        under_way[_request_number(request_id)] = place, prompt, request_id
                    outputs = self.llm.llm_engine.step() if under_way else []
                for output in outputs:
                    if output.finished:
                        place, prompt, _ = under_way.pop(_request_number(output.request_id))
                        (completion,) = _completions(policy, prompt, output)
                        yield place, completion
        finally:
            # Requests of an answer that nobody waits for would come among those of the next.
            if under_way:
                self.llm.llm_engine.abort_request([request_id for *_, request_id in under_way.values()], internal=True)

    def load(self, policy: Policy) -> None:
        """Load the policy's weights, and drop every cache of what was computed with others.

        A policy without weights is that of the folder which vLLM read.
        """
        if not policy.has_weights:
            return
        weights = gathered_weights(policy.model)
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        if self.on_cpu:
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


def _sampling_settings(policy: Policy, sampling: Sampling) -> dict[str, Any]:
    """Return the arguments of vLLM's `SamplingParams` but the seed."""
    return {
        # Greedy completions of one prompt are the same; vLLM refuses to make more than one.
        "n": sampling.num_completions if sampling.temperature else 1,
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "logprobs": 0,  # of the sampled tokens alone
        "logit_bias": dict.fromkeys(policy.suppressed_ids.tolist(), NEVER),
        "stop_token_ids": list(policy.eos_ids),
        "detokenize": False,
    }


def _request(policy: Policy, prompt: Prompt) -> dict[str, Any]:
    """Return a prompt as vLLM takes it: tokens with one placeholder for the image, and the image."""
    token_ids = policy.tokenizer.encode(prompt.text, add_special_tokens=False)
    return {"prompt_token_ids": token_ids, "multi_modal_data": {"image": prompt.image}}


def _request_number(request_id: str) -> int:
    """Return the number of a request, which vLLM counts; its own id of it has random letters behind."""
    return int(request_id.partition("-")[0])


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
        logprobs = torch.tensor([choice[token].logprob for choice, token in zip(sequence.logprobs, ids, strict=True)])
        check_logprobs(logprobs)
        text = policy.decode_reply(ids if truncated else ids[:-1])
        replies.append(Completion(torch.tensor(ids), text, logprobs, truncated))
    return replies
