"""The engine that asks a vLLM server: against a stand-in over real HTTP, and vLLM's own where it is installed."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from support import letters
from support.random_models import build_qwen3, build_qwen25, make_prompts, sharpen
from support.training import rows
from support.vllm_server import GENERATE, Handler, StandInServer, serving
from visionr1.cli import main
from visionr1.errors import RecipeError, TrainingError
from visionr1.models.adapters import attach, merged_weights
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.rows import make_groups
from visionr1.models.settings import LoRASection, ModelSection
from visionr1.rollout.eager import generate
from visionr1.rollout.engine import Sampling
from visionr1.rollout.engines import vllm_server
from visionr1.rollout.engines.vllm_server import VLLMServerEngine, open_engine
from visionr1.rollout.settings import RolloutSection
from visionr1.rollout.vllm.requests import single_seed

SIZES = [(120, 80), (80, 120), (100, 100)]
GREEDY = Sampling(num_completions=2, max_new_tokens=6, temperature=0.0)
SAMPLING = Sampling(num_completions=3, max_new_tokens=6, temperature=0.7, top_p=0.9, top_k=50)
SEEDS = [(1, 2), (1, 3), (2, 2)]
DOCS = Path(__file__).parents[2] / "docs/vllm.md"


@pytest.fixture
def server(qwen25_folder: Path) -> Iterator[StandInServer]:
    state = StandInServer(qwen25_folder)
    with serving(state) as url:
        state.url = url
        yield state


@pytest.fixture
def policy(qwen25_folder: Path) -> Policy:
    return load_policy(qwen25_folder)


def connect(server: StandInServer, policy: Policy, folder: Path, *, timeout: float = 60.0) -> VLLMServerEngine:
    settings = RolloutSection(
        engine="vllm_server", server=server.url, server_weights=str(folder / "weights"), server_timeout=timeout
    )
    return open_engine(policy, ModelSection(), settings)


def test_replies_are_those_of_the_policy_as_it_is_now(server: StandInServer, policy: Policy, tmp_path: Path) -> None:
    engine = connect(server, policy, tmp_path)
    prompts = make_prompts(policy, SIZES)
    for factor in (1.0, 4.0):  # at first, and after an update
        sharpen(policy, factor)
        for sampling, seeds in ((GREEDY, ()), (SAMPLING, SEEDS)):
            sampled = engine(policy, prompts, sampling, seeds)
            expected = generate(policy, prompts, sampling, [(single_seed(seed),) for seed in seeds])
            for ours, builtin in zip(sampled, expected, strict=True):
                assert len(ours) == len(builtin)
                for mine, other in zip(ours, builtin, strict=True):
                    assert mine.text == other.text
                    assert torch.equal(mine.token_ids, other.token_ids)
                    assert torch.allclose(mine.logprobs, other.logprobs)
                    assert mine.truncated == other.truncated
    assert server.calls == 4 * ["reload_weights"]
    assert list((tmp_path / "weights").iterdir()) == []  # read, and deleted


def test_adapters_are_merged_into_what_the_server_gets(server: StandInServer, policy: Policy, tmp_path: Path) -> None:
    attach(policy.model, LoRASection(rank=2), seed=0, base="base")
    for name, parameter in policy.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.constant_(parameter, 0.01)
    connect(server, policy, tmp_path).load(policy)
    loaded = server.policy.model.state_dict()
    for name, weight in merged_weights(policy.model, policy.model.state_dict()):
        assert torch.equal(loaded[name], weight), name


def test_weights_go_by_files_of_bounded_size(
    server: StandInServer, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visionr1.rollout.vllm.transfer.BYTES_PER_FILE", 1 << 16)
    sharpen(policy)
    connect(server, policy, tmp_path).load(policy)
    for mine, other in zip(policy.model.parameters(), server.policy.model.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_requests_are_under_way_at_once_and_come_back_in_order(
    server: StandInServer, policy: Policy, tmp_path: Path
) -> None:
    """No request is answered before the one behind it."""
    engine = connect(server, policy, tmp_path)
    prompts = make_prompts(policy, SIZES)
    expected = engine(policy, prompts, GREEDY)
    lengths = sorted(len(request["token_ids"]) for request in server.requests)  # each prompt is longer than the last
    answered = {length: threading.Event() for length in lengths}
    answer = server.post_inference_v1_generate

    def last_first(body: Any) -> Any:
        length = len(body["token_ids"])
        if length != lengths[-1]:
            assert answered[lengths[lengths.index(length) + 1]].wait(60)
        generated = answer(body)
        answered[length].set()
        return generated

    server.post_inference_v1_generate = last_first  # type: ignore[method-assign]
    sampled = engine(policy, prompts, GREEDY)
    for ours, other in zip(sampled, expected, strict=True):
        assert [reply.text for reply in ours] == [reply.text for reply in other]


def test_the_key_comes_from_the_environment(
    server: StandInServer, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "secret"
    monkeypatch.setenv("VLLM_API_KEY", "wrong")
    with pytest.raises(TrainingError, match="refuses the key: set the environment variable VLLM_API_KEY") as caught:
        connect(server, policy, tmp_path)
    assert "wrong" not in str(caught.value)
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    assert connect(server, policy, tmp_path)(policy, make_prompts(policy, SIZES), GREEDY)


def change(*keys: str, to: object) -> Callable[[StandInServer], None]:
    """A server with another setting."""

    def apply(server: StandInServer) -> None:
        settings = server.settings
        for key in keys[:-1]:
            settings = settings[key]
        settings[keys[-1]] = to

    return apply


UNFIT: dict[str, tuple[Callable[[StandInServer], None], str]] = {
    "another version": (lambda server: setattr(server, "model_version", "0.31.0"), "is vLLM 0.31.0, expected >=0.32"),
    "precision": (change("model_config", "dtype", to="torch.bfloat16"), "start it with --dtype float32"),
    "log-probabilities": (
        change("model_config", "logprobs_mode", to="raw_logprobs"),
        "start it with --logprobs-mode processed_logprobs",
    ),
    "resized by torchvision": (
        change("model_config", "multimodal_config", "mm_processor_kwargs", to={}),
        "start it with --mm-processor-kwargs",
    ),
    "no images": (
        change("model_config", "multimodal_config", "limit_per_prompt", "image", "count", to=0),
        "takes no images: start it with --limit-mm-per-prompt",
    ),
    "a model of text": (change("model_config", "multimodal_config", to=None), "--mm-processor-kwargs"),
    "split prompts": (
        change("scheduler_config", "enable_chunked_prefill", to=True),
        "start it with --no-enable-chunked-prefill",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_server_that_would_sample_otherwise_is_refused(
    name: str, server: StandInServer, policy: Policy, tmp_path: Path
) -> None:
    spoil, message = UNFIT[name]
    spoil(server)
    with pytest.raises(RecipeError, match=f"rollout.server: the vLLM server at .*{re.escape(message)}"):
        connect(server, policy, tmp_path)


def test_pixels_must_be_normalized_as_the_policy_s_where_the_folder_does_not_say_how(
    server: StandInServer, qwen25_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(qwen25_folder, folder)
    file = folder / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    del settings["image_mean"], settings["image_std"]
    file.write_text(json.dumps(settings))
    policy = load_policy(folder)
    set_normalizing = change("model_config", "multimodal_config", "mm_device_do_normalize", to=True)
    set_normalizing(server)
    with pytest.raises(RecipeError, match="start it with --no-mm-device-do-normalize"):
        connect(server, policy, tmp_path)
    server.settings["model_config"]["multimodal_config"]["mm_device_do_normalize"] = False
    connect(server, policy, tmp_path)


def test_another_model_is_refused(server: StandInServer, policy: Policy, tmp_path: Path) -> None:
    # As of another model, whose tokenizer knows other words.
    server.post_tokenize = lambda body: {"tokens": [1, 2, 3]}  # type: ignore[method-assign]
    with pytest.raises(RecipeError, match=r"has another tokenizer than .*: it serves served"):
        connect(server, policy, tmp_path)


def test_another_model_with_that_tokenizer_is_refused(server: StandInServer, policy: Policy, tmp_path: Path) -> None:
    head = server.policy.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight[:, :-1].detach().clone())
    engine = connect(server, policy, tmp_path)
    with pytest.raises(TrainingError, match=r"refuses /collective_rpc \(500\): .* Worker failed with error '.*lm_head"):
        engine(policy, make_prompts(policy, SIZES), GREEDY)


def test_a_tied_output_layer_on_a_cpu_is_refused(qwen3_folder: Path, tmp_path: Path) -> None:
    policy, state = load_policy(qwen3_folder), StandInServer(qwen3_folder)
    with serving(state) as state.url:
        with pytest.raises(RecipeError, match="runs on a CPU, where vLLM keeps the old output layer"):
            connect(state, policy, tmp_path)
        change("device_config", "device", to="cuda")(state)
        connect(state, policy, tmp_path)


def test_prompts_that_a_cpu_would_split_for_states_are_refused(
    server: StandInServer, policy: Policy, tmp_path: Path
) -> None:
    policy.config.get_text_config().layer_types = ["linear_attention", "full_attention"]  # as Qwen3.5 has them
    with pytest.raises(RecipeError, match="start it with --no-enable-prefix-caching"):
        connect(server, policy, tmp_path)
    server.settings["cache_config"] = {"enable_prefix_caching": False}
    connect(server, policy, tmp_path)


def test_what_a_server_lacks_is_named(server: StandInServer, policy: Policy, tmp_path: Path) -> None:
    server.is_dev = False
    with pytest.raises(TrainingError, match=r"has no /server_info.*VLLM_SERVER_DEV_MODE=1"):
        connect(server, policy, tmp_path)
    server.is_dev, server.is_scale_out = True, False
    engine = connect(server, policy, tmp_path)
    with pytest.raises(TrainingError, match=r"refuses .*403.* Restart vllm serve with --enable-scale-out"):
        engine(policy, make_prompts(policy, SIZES), GREEDY)


def test_a_reply_longer_than_the_server_reads_is_refused(server: StandInServer, policy: Policy, tmp_path: Path) -> None:
    prompts = make_prompts(policy, SIZES)
    longest = max(len(prompt.input_ids) for prompt in prompts)
    server.max_model_len = longest + GREEDY.max_new_tokens - 1
    engine = connect(server, policy, tmp_path)
    with pytest.raises(RecipeError, match=r"max_new_tokens: expected 5 or less .* a larger --max-model-len"):
        engine(policy, prompts, GREEDY)
    assert not server.requests


def html(handler: Handler) -> None:
    handler.send(200, b"<!doctype html><title>Welcome</title>", "text/html; charset=utf-8")


def half(handler: Handler) -> None:
    handler.send(200, b'{"prompt_token_ids": [1, 2', "application/json")


def cut_off(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{")
    handler.close_connection = True


def other_form(handler: Handler) -> None:
    handler.send(200, b'{"choices": [{"text": "a", "index": 0}]}', "application/json")


def elsewhere(handler: Handler) -> None:
    handler.send(307, b"", "text/plain", Location="http://example.invalid/inference/v1/generate")


def nothing(handler: Handler) -> None:
    handler.close_connection = True


def overloaded(handler: Handler) -> None:
    handler.send(503, b"<h1>503</h1>", "text/html")


FAULTS: dict[str, tuple[Callable[[Handler], None], str]] = {
    "another server": (html, "with text/html, not with JSON: b'<!doctype html>"),
    "half an answer": (half, "not with JSON"),
    "a connection that breaks": (cut_off, "broke off in the middle of its answer"),
    "another form": (other_form, r"in another form than vLLM: prompt_token_ids: Field required"),
    "a redirect": (elsewhere, r"sends .* elsewhere \(http://example.invalid"),
    "a connection without an answer": (nothing, "cannot be reached"),
    "a server that is overloaded": (overloaded, r"\(503\): Service Unavailable"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_of_a_server_is_one_clear_error(
    name: str, server: StandInServer, policy: Policy, tmp_path: Path
) -> None:
    fault, message = FAULTS[name]
    engine = connect(server, policy, tmp_path)
    server.faults[GENERATE] = fault
    with pytest.raises(TrainingError, match=f"the vLLM server at {server.url} .*{message}"):
        engine(policy, make_prompts(policy, SIZES), GREEDY)


def test_a_server_that_is_down_or_slow(server: StandInServer, policy: Policy, tmp_path: Path) -> None:
    engine = connect(server, policy, tmp_path, timeout=0.2)
    never = threading.Event()
    server.faults[GENERATE] = lambda handler: never.wait() and nothing(handler)
    with pytest.raises(TrainingError, match=r"did not answer .* within 0\.2 s \(rollout\.server_timeout\)"):
        engine(policy, make_prompts(policy, SIZES), GREEDY)
    never.set()
    server.url = "http://127.0.0.1:9"  # the port of discard, where nobody listens
    with pytest.raises(TrainingError, match=r"cannot be reached \(/version: .*refused"):
        connect(server, policy, tmp_path)


def test_replies_of_other_weights_end_the_run(server: StandInServer, policy: Policy, tmp_path: Path) -> None:
    engine = connect(server, policy, tmp_path)
    take_version = server.post_update_weight_version
    server.post_update_weight_version = lambda body: take_version({"new_version": "default"})  # started again since
    with pytest.raises(TrainingError, match=r"sampled with other weights .* \(version default, expected visionr1-"):
        engine(policy, make_prompts(policy, SIZES), GREEDY)


def test_caches_that_stay_end_the_run(server: StandInServer, policy: Policy, tmp_path: Path) -> None:
    engine = connect(server, policy, tmp_path)
    server.has_requests_of_others = True
    with pytest.raises(TrainingError, match="busy with requests of others"):
        engine(policy, make_prompts(policy, SIZES), GREEDY)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda choices: choices.pop(), "returned 1 replies, expected 2"),
        (lambda choices: choices[0].update(finish_reason="abort"), "a reply that is not whole.* ended by 'abort'"),
        (lambda choices: choices[0]["logprobs"]["content"].pop(), "a reply that is not whole"),
        (lambda choices: choices[0]["logprobs"]["content"][0].update(logprob=-9999.0), "not finite"),
        (lambda choices: choices[0].update(weight_versions=None), "weight_versions: Input should be a valid list"),
    ],
)
def test_replies_that_are_not_whole_end_the_run(
    spoil: Callable[[Any], None], message: str, server: StandInServer, policy: Policy, tmp_path: Path
) -> None:
    engine = connect(server, policy, tmp_path)
    answer = server.post_inference_v1_generate

    def spoilt(body: Any) -> Any:
        generated = answer(body)
        spoil(generated["choices"])
        return generated

    server.post_inference_v1_generate = spoilt  # type: ignore[method-assign]
    sampling = Sampling(num_completions=2, max_new_tokens=6)
    with pytest.raises((TrainingError, RuntimeError), match=message):
        engine(policy, make_prompts(policy, SIZES), sampling, SEEDS)


def test_an_image_of_another_size_ends_the_run(server: StandInServer, policy: Policy, tmp_path: Path) -> None:
    engine = connect(server, policy, tmp_path)
    answer = server.post_inference_v1_generate
    server.post_inference_v1_generate = lambda body: {**answer(body), "prompt_token_ids": [1, 5, 2]}  # type: ignore
    with pytest.raises(TrainingError, match="do not see the same prompt: 3 tokens"):
        engine(policy, make_prompts(policy, SIZES), GREEDY)


def test_a_failure_of_the_sender_does_not_leave_the_other_ranks_waiting(
    server: StandInServer, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in the gathering of weights, of which each must be gathered before the error is shared."""
    engine = connect(server, policy, tmp_path)
    (tmp_path / "weights").write_text("a file, where a folder is to be")
    gathered: list[str] = []

    def counting(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
        for name, weight in policy.model.named_parameters():
            gathered.append(name)
            yield name, weight.detach()

    monkeypatch.setattr("visionr1.rollout.vllm.transfer.gathered_weights", counting)
    with pytest.raises(TrainingError, match=r"rollout\.server_weights: cannot write weights to"):
        engine.load(policy)
    assert len(gathered) == len(list(policy.model.parameters()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "vllm_server"}, 'server: expected "http://host:port"'),
        ({"engine": "vllm_server", "server": "host:8000"}, 'server: expected "http://host:port"'),
        ({"engine": "vllm_server", "server": "http://user:key@host"}, 'server: expected "http://host:port"'),
        ({"server": "http://host:8000"}, "server: expected nothing"),
        ({"engine": "vllm", "server_weights": "/tmp"}, "server_weights: expected nothing"),
        (
            {"engine": "vllm_server", "server": "http://host", "server_weights": "weights"},
            "server_weights: expected a path from the root",
        ),
        ({"engine": "vllm_server", "server": "http://host", "temperature": 2.5}, "temperature: expected"),
        ({"engine": "vllm_server", "server": "http://host", "server_timeout": 0.0}, "server_timeout: expected"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        RolloutSection(**settings)


def test_without_a_folder_weights_go_from_gpu_to_gpu(server: StandInServer, policy: Policy) -> None:
    with pytest.raises(RecipeError, match=r"server_weights: expected a folder .* the policy is on 'cpu'"):
        open_engine(policy, ModelSection(), RolloutSection(engine="vllm_server", server=server.url))


RECIPE = """
method = "grpo"
threads = 1
[model]
path = "{model}"
[train]
steps = 4
batch_size = 2
learning_rate = 1e-3
[checkpoint]
every = 1
[[data]]
source = "scenes"
scenes = {{ width = 120, height = 80, max_objects = 2 }}
[reward]
preset = "{reward}"
[rollout]
engine = "vllm_server"
group_size = 3
max_new_tokens = {tokens}
server_weights = "{weights}"
"""


def write_recipe(folder: Path, model: Path, *, tokens: int = 6) -> Path:
    recipe = folder / "recipe.toml"
    text = RECIPE.format(
        model=model.as_posix(),
        reward=f"{Path(letters.__file__).as_posix()}:ByLetters",
        weights=(folder / "weights").as_posix(),
        tokens=tokens,
    )
    recipe.write_text(text, encoding="utf-8")
    return recipe


def test_a_run_goes_on_by_another_server(
    qwen25_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server goes away in the third step: the second's checkpoint stands, and the whole run is the same."""
    recipe = write_recipe(tmp_path, qwen25_folder)

    def command(name: str, url: str) -> list[str]:
        return ["train", str(recipe), "--run-dir", str(tmp_path / name), "--set", f"rollout.server={url}"]

    state = StandInServer(qwen25_folder)
    with serving(state) as url:
        assert main(command("whole", url)) == 0
    state = StandInServer(qwen25_folder)
    with serving(state) as url:
        state.post_reset_mm_cache = lambda body: goes_away(state)  # type: ignore[method-assign]
        assert main(command("broken", url)) == 2
    assert f"the vLLM server at {url} cannot be reached" in capsys.readouterr().err
    assert [row["step"] for row in rows(tmp_path / "broken")] == [1, 2]

    with serving(StandInServer(qwen25_folder)) as url:
        assert main([*command("broken", url), "--resume"]) == 0
    whole, broken = (tmp_path / name / "final/model.safetensors" for name in ("whole", "broken"))
    assert whole.read_bytes() == broken.read_bytes()
    assert max(row["sampling/largest_gap"] for row in rows(tmp_path / "whole")) < 1e-4


def goes_away(state: StandInServer) -> None:
    """Answer no request any more, from the third rollout on."""
    state.stale.discard("mm")
    if len(state.calls) == 3:
        state.faults[GENERATE] = nothing


def documented_command(model: Path, port: int) -> list[str]:
    """The command of docs/vllm.md that starts the server, with what a CPU needs."""
    block = re.search(r"```sh\nVLLM_SERVER_DEV_MODE=1 vllm serve MODEL (.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert block, f"{DOCS.name} has no command that starts the server"
    flags = shlex.split(block[1].replace("\\\n", " "))
    for flag, value in {"--dtype": "float32", "--port": str(port)}.items():
        flags[flags.index(flag) + 1] = value
    place = flags.index("--weight-transfer-config")
    del flags[place : place + 2]  # NCCL's
    on_cpu = ["--enforce-eager", "--no-enable-chunked-prefill"]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), *flags, *on_cpu]


@contextmanager
def serving_vllm(model: Path) -> Iterator[str]:
    """vLLM's own server inside this block; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        documented_command(model, port),
        env={**os.environ, **settings, "VLLM_LOGGING_LEVEL": "INFO"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Application startup complete" in line:
            break
    else:
        raise AssertionError("".join(lines[-50:]))

    # What it goes on to write must be read, or it would wait for it.
    reader = threading.Thread(target=process.stdout.read, daemon=True)
    reader.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm")
def test_vllm_s_server_itself_samples_as_the_policy_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before and after an update; in a whole run; and what it refuses. Weights go through a folder."""
    folder = build_qwen25(tmp_path / "qwen25", build_qwen3(tmp_path / "qwen3"), layers=2)
    policy = load_policy(folder)
    prompts = make_prompts(policy, [(640, 480), (200, 300)])  # the first has to be resized
    sampling = Sampling(num_completions=4, max_new_tokens=24)
    with serving_vllm(folder) as url:
        weights = str(tmp_path / "weights")
        opened = open_engine(
            policy, ModelSection(), RolloutSection(engine="vllm_server", server=url, server_weights=weights)
        )
        for factor in (1.0, 2.0):
            sharpen(policy, factor)
            replies = opened(policy, prompts, sampling, [(0,), (1,)])
            groups = make_groups(prompts, [[reply.token_ids for reply in own] for own in replies])
            with torch.no_grad():
                ours = policy.token_logprobs(policy.path.pack(groups))
            theirs = torch.cat([reply.logprobs for own in replies for reply in own])
            assert (ours - theirs).abs().max() < 1e-4

            # A seed's replies are its own, and greedy ones are the built-in engine's.
            (again,) = opened(policy, prompts[1:], sampling, [(1,)])
            assert [reply.text for reply in again] == [reply.text for reply in replies[1]]
            greedy = Sampling(num_completions=2, max_new_tokens=24, temperature=0.0)
            sampled, expected = opened(policy, prompts, greedy), generate(policy, prompts, greedy)
            assert [[reply.text for reply in own] for own in sampled] == [
                [reply.text for reply in own] for own in expected
            ]

        # Its refusals are those of the stand-in.
        monkeypatch.setattr(vllm_server, "_data_url", lambda image: "data:image/png;base64,AAAA")
        with pytest.raises(TrainingError, match=r"refuses /inference/v1/generate \(400\): Failed to load image"):
            opened(policy, prompts, greedy)
        monkeypatch.undo()
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(tmp_path / "none")}}
        with pytest.raises(TrainingError, match=r"refuses /collective_rpc \(500\): .*Worker failed with error"):
            opened.server.post("/collective_rpc", body)
        with pytest.raises(TrainingError, match=r"has no /nowhere"):
            opened.server.get("/nowhere")

        # A whole run. The weights of the one before are still in the server.
        recipe = write_recipe(tmp_path, folder, tokens=16)
        command = ["train", str(recipe), "--run-dir", str(tmp_path / "run"), "--set", f"rollout.server={url}"]
        assert main(command) == 0, capsys.readouterr().err
        gaps = [row["sampling/largest_gap"] for row in rows(tmp_path / "run")]
        assert len(gaps) == 4
        assert max(gaps) < 1e-4
        assert json.loads((tmp_path / "run/versions.json").read_text())
