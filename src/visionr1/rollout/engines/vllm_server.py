"""Rollout by a vLLM server: in a process of its own, on other GPUs or another machine, which it can keep busy alone.

Nothing here imports vLLM unless weights go by NCCL, so training has the torch and the transformers of its choice.
Before each rollout rank 0 hands the policy's weights to the server, has it forget what it computed with older ones,
and gives the weights a version; each rank then asks for its own samples, many at once. A reply that was sampled with
weights of another version ends the run: the server was started again, or somebody else trains with it.

Requests are those of the engine in this process (`engines/vllm.py`), by vLLM's own endpoint for token ids
(`/inference/v1/generate`): a prompt's tokens with one placeholder, its image as PNG, seed, stop tokens and biases. The
server returns the prompt's tokens as it made them, which are compared with the policy's.
"""

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

from PIL import Image
from pydantic import BaseModel

from visionr1.errors import RecipeError, TrainingError
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.settings import ModelSection
from visionr1.rollout.engine import Completion, Sampling, Seeds
from visionr1.rollout.settings import RolloutSection
from visionr1.rollout.vllm.connecting import check_server
from visionr1.rollout.vllm.requests import (
    Reply,
    check_room,
    make_group,
    request_token_ids,
    sampling_settings,
    single_seed,
)
from visionr1.rollout.vllm.server import Server
from visionr1.rollout.vllm.transfer import FolderTransfer, NCCLTransfer, Transfer, Weights, is_sender, share

GENERATE = "/inference/v1/generate"
MAX_REQUESTS = 64
"""Requests of one rank that are under way at once; vLLM makes batches of its own of them."""
NOT_FINITE = -9999.0
"""A log-probability that JSON cannot write, as vLLM writes it."""


class TokenLogprob(BaseModel):
    """A sampled token."""

    token_id: int
    logprob: float


class Logprobs(BaseModel):
    """The sampled tokens of a reply."""

    content: list[TokenLogprob]


class WeightVersion(BaseModel):
    """The version of the weights that tokens of a reply were sampled with."""

    version: str


class Choice(BaseModel):
    """One reply."""

    index: int
    finish_reason: str
    token_ids: list[int]
    logprobs: Logprobs
    weight_versions: list[WeightVersion]


class Generated(BaseModel):
    """The answer to one request."""

    prompt_token_ids: list[int]
    choices: list[Choice]


def open_engine(policy: Policy, model: ModelSection, rollout: RolloutSection) -> "VLLMServerEngine":
    """Return an engine that asks the server at `rollout.server`.

    Raises RecipeError if it serves another model or was started with other settings, and TrainingError if it cannot be
    reached.
    """
    if not rollout.server_weights and policy.device.type != "cuda":
        raise RecipeError(
            "rollout.server_weights: expected a folder that the server can read too, found none: without one weights "
            f"go from GPU to GPU, and the policy is on {policy.device.type!r}"
        )
    server = Server(rollout.server, rollout.server_timeout)
    max_model_len = check_server(server, policy, model, rollout)
    transfer: Transfer
    if rollout.server_weights:
        transfer = FolderTransfer(server, Path(rollout.server_weights))
    else:
        transfer = NCCLTransfer(server, policy)
    return VLLMServerEngine(server, transfer, max_model_len)


class VLLMServerEngine:
    """A rollout engine; its log-probabilities are of the distribution that was sampled from, after top-p and top-k."""

    copies_weights = True

    def __init__(self, server: Server, transfer: Transfer, max_model_len: int) -> None:
        self.server = server
        self.transfer = transfer
        self.max_model_len = max_model_len
        self.version = ""
        """Of the weights that the server has."""

    def __call__(
        self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, seeds: Seeds = ()
    ) -> list[list[Completion]]:
        """Sample as `RolloutEngine`."""
        check_room(prompts, sampling, self.max_model_len, "start the server with a larger --max-model-len")
        self.load(policy)
        settings = sampling_settings(policy, sampling)
        if not sampling.temperature:
            seeds = [(0,)] * len(prompts)
        requests = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            parameters = {**settings, "seed": single_seed(seed)}
            requests.append((request_token_ids(policy, prompt), prompt.image, parameters))

        # Answers come back in the order of the prompts, whichever ends first.
        executor = ThreadPoolExecutor(max_workers=MAX_REQUESTS)
        try:
            answers = list(executor.map(self._generate, requests))
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

        groups = []
        for prompt, answer in zip(prompts, answers, strict=True):
            replies = self._read_replies(answer, settings["n"])
            completions = make_group(policy, prompt, answer.prompt_token_ids, replies)
            groups.append(completions * (sampling.num_completions // settings["n"]))
        return groups

    def load(self, policy: Policy) -> None:
        """Hand the policy's weights to the server; all ranks must call it.

        Raises TrainingError, on all ranks alike, if rank 0 cannot.
        """
        weights = Weights(policy)
        version, problem = "", ""
        try:
            self.transfer.send(weights)
            if is_sender():
                version = self._take_over()
        except TrainingError as error:
            weights.exhaust()
            problem = str(error)
        version, problem = share((version, problem), policy.device)
        if problem:
            raise TrainingError(problem)
        self.version = version

    def _take_over(self) -> str:
        """Have the server forget what it computed with older weights; return the version that its weights get."""
        self.server.post("/reset_mm_cache", {})
        self.server.post("/reset_encoder_cache", {})
        answer = self.server.post("/reset_prefix_cache", {})
        if not isinstance(answer, dict) or answer.get("success") is not True:
            raise self.server.error(
                "did not forget the keys and values of older weights: it is busy with requests of others, and a run "
                "needs a server of its own"
            )
        version = f"visionr1-{uuid4().hex}"
        self.server.post("/update_weight_version", {"new_version": version})
        return version

    def _generate(self, request: tuple[list[int], Image.Image | None, dict[str, Any]]) -> Generated:
        """Return the server's answer to one request."""
        token_ids, image, parameters = request
        assert image is not None  # the learner keeps it for engines other than the built-in one
        body = {
            "token_ids": token_ids,
            "content_parts": [{"type": "image_url", "url": _data_url(image)}],
            "sampling_params": parameters,
            "return_token_ids": True,
        }
        return self.server.read(self.server.post(GENERATE, body), Generated, GENERATE)

    def _read_replies(self, answer: Generated, num_expected: int) -> list[Reply]:
        """Return the replies in the order of their indices; TrainingError if they are not those that were asked for."""
        choices = sorted(answer.choices, key=lambda choice: choice.index)
        if [choice.index for choice in choices] != list(range(num_expected)):
            raise self.server.error(f"returned {len(choices)} replies, expected {num_expected}")
        replies = []
        for choice in choices:
            self._check_choice(choice)
            logprobs = []
            for token in choice.logprobs.content:
                logprobs.append(token.logprob if token.logprob > NOT_FINITE else -float("inf"))
            replies.append(Reply(choice.token_ids, logprobs, choice.finish_reason == "length"))
        return replies

    def _check_choice(self, choice: Choice) -> None:
        """Raise TrainingError if a reply is not whole, or not of the policy's weights."""
        versions = {span.version for span in choice.weight_versions}
        if versions != {self.version}:
            names = ", ".join(sorted(versions)) or "none"
            raise self.server.error(
                f"sampled with other weights than this run's (version {names}, expected {self.version}): it was "
                "started again, or another run uses it. Go on with --resume"
            )
        tokens = [token.token_id for token in choice.logprobs.content]
        if choice.finish_reason not in ("stop", "length") or tokens != choice.token_ids or not tokens:
            raise self.server.error(
                f"returned a reply that is not whole: {len(choice.token_ids)} tokens with {len(tokens)} "
                f"log-probabilities, ended by {choice.finish_reason!r}"
            )


def _data_url(image: Image.Image) -> str:
    """Return the pixels of an RGB image as a PNG, without whatever else its file said."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, exif=b"", icc_profile=None)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
