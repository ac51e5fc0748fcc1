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

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch

from visionr1.errors import TrainingError
from visionr1.models.adapters import gathered_weights
from visionr1.models.folder.weight_names import as_in_folder
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.settings import ModelSection
from visionr1.rollout.engine import Completion, Sampling, Seeds
from visionr1.rollout.engines import reads_folder
from visionr1.rollout.settings import RolloutSection
from visionr1.rollout.vllm.opening import check_biases, explaining, import_vllm, open_llm, precision
from visionr1.rollout.vllm.requests import (
    Reply,
    check_room,
    make_group,
    request_token_ids,
    sampling_settings,
    single_seed,
)

ADDED_AT_ONCE = 16
"""Prompts that an evaluation adds between two steps of the engine, so that reading images does not hold it up long."""
SLEEP_LEVEL = 2
"""vLLM's level that drops weights and cache: the policy's weights are handed over for the next rollout anyway."""


@reads_folder
def open_engine(policy: Policy, model: ModelSection, rollout: RolloutSection) -> "VLLMEngine":
    """Return an engine for the policy's model, on `model.device`; the policy may have no weights (`load_encoder`).

    Raises MissingDependency if there is no vLLM, or one not known to fit, and RecipeError if vLLM cannot open the
    model, or if this has more tokens that must not be sampled than vLLM can be told.
    """
    on_cpu = torch.device(model.device).type == "cpu"
    check_biases(policy, on_cpu=on_cpu)
    vllm = import_vllm(on_cpu=on_cpu)
    llm = open_llm(vllm, policy, model, rollout)
    engine = VLLMEngine(
        llm,
        vllm.SamplingParams,
        label=f"vllm {vllm.__version__}",
        dtype=precision(model),
        on_cpu=on_cpu,
        sleeps=rollout.vllm_sleep and policy.has_weights,
    )
    engine.sleep()
    return engine


class VLLMEngine:
    """A rollout engine; its log-probabilities are of the distribution that was sampled from, after top-p and top-k."""

    copies_weights = True

    def __init__(
        self, llm: Any, sampling_params: Any, *, label: str, dtype: str, on_cpu: bool, sleeps: bool = False
    ) -> None:
        """`llm` and `sampling_params` are vLLM's objects; `label` and `dtype` are as in `StreamingEngine`.

        An engine that `sleeps` holds no memory of the GPU between two rollouts.
        """
        self.llm = llm
        self.sampling_params = sampling_params
        self.label = label
        self.dtype = dtype
        self.on_cpu = on_cpu
        self.sleeps = sleeps

    def __call__(
        self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, seeds: Seeds = ()
    ) -> list[list[Completion]]:
        """Sample as `RolloutEngine`."""
        max_model_len = self.llm.model_config.max_model_len  # less than the model's context if memory holds less
        check_room(prompts, sampling, max_model_len, "raise rollout.vllm_memory")
        settings = sampling_settings(policy, sampling)
        if not sampling.temperature:
            seeds = [(0,)] * len(prompts)
        requests, parameters = [], []
        for prompt, seed in zip(prompts, seeds, strict=True):
            requests.append(_request(policy, prompt))
            parameters.append(self.sampling_params(**settings, seed=single_seed(seed)))

        # A step is under autocast for the policy's passes; vLLM's weights are in its precision already.
        device_type = policy.device.type if policy.has_weights else "cpu"
        without_autocast = torch.autocast(device_type, enabled=False)
        explained = explaining(f"{self.label} cannot sample from {policy.model.name_or_path}")
        with without_autocast, self.awake(policy), explained:
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
        greedy = sampling_settings(policy, Sampling(max_new_tokens=max_new_tokens, temperature=0.0))
        unasked = enumerate(prompts)
        is_read = False
        under_way: dict[int, tuple[int, Prompt, str]] = {}
        with self.awake(policy):
            try:
                while under_way or not is_read:
                    num_added = min(ADDED_AT_ONCE, at_once - len(under_way))
                    added = list(islice(unasked, num_added))
                    is_read = len(added) < num_added
                    with explaining(f"{self.label} cannot answer with {policy.model.name_or_path}"):
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
                    request_ids = [request_id for *_, request_id in under_way.values()]
                    self.llm.llm_engine.abort_request(request_ids, internal=True)

    @contextmanager
    def awake(self, policy: Policy) -> Iterator[None]:
        """Have the policy's weights in vLLM inside this block; an engine that sleeps has memory only there."""
        if self.sleeps:
            # What torch keeps for later allocations of its own is not free for vLLM.
            torch.cuda.empty_cache()
            self.llm.wake_up(tags=["weights"])
        self.load(policy)
        if self.sleeps:
            self.llm.wake_up(tags=["kv_cache"])
        try:
            yield
        finally:
            self.sleep()

    def sleep(self) -> None:
        """Give the GPU's memory back, if the engine does so between rollouts."""
        if self.sleeps:
            self.llm.sleep(level=SLEEP_LEVEL)

    def load(self, policy: Policy) -> None:
        """Load the policy's weights, and drop every cache of what was computed with others.

        A policy without weights is that of the folder which vLLM read.
        """
        if not policy.has_weights:
            return
        weights = as_in_folder(policy.model, gathered_weights(policy.model))
        with explaining(f"{self.label} cannot take the weights of {policy.model.name_or_path}"):
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


def _request(policy: Policy, prompt: Prompt) -> dict[str, Any]:
    """Return a prompt as `LLM` takes it."""
    return {"prompt_token_ids": request_token_ids(policy, prompt), "multi_modal_data": {"image": prompt.image}}


def _request_number(request_id: str) -> int:
    """Return the number of a request, which vLLM counts; its own id of it has random letters behind."""
    return int(request_id.partition("-")[0])


def _completions(policy: Policy, prompt: Prompt, output: Any) -> list[Completion]:
    """Return the replies in one request's output; TrainingError if vLLM made other tokens of the prompt."""
    replies = []
    for sequence in output.outputs:
        logprobs = []
        for choice, token in zip(sequence.logprobs, sequence.token_ids, strict=True):
            logprobs.append(choice[token].logprob)
        replies.append(Reply(sequence.token_ids, logprobs, sequence.finish_reason == "length"))
    return make_group(policy, prompt, output.prompt_token_ids, replies)
