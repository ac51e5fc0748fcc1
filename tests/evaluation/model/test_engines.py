"""Evaluation by other engines than the built-in one: the same replies, kept and gone on with, and who made them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from support.extending import guide_file
from support.random_models import sharpen
from support.streaming_engine import LABEL, NAME
from visionr1 import cli
from visionr1.data import BoxDataset, data_path, read_dataset
from visionr1.errors import CheckpointError, DataError, RecipeError
from visionr1.evaluation import read_protocol
from visionr1.evaluation.asking import Asking, collect_replies
from visionr1.evaluation.model.answerer import open_answerer
from visionr1.evaluation.predictions import Prediction
from visionr1.evaluation.reply_log import ReplyLog
from visionr1.evaluation.runner import Model, predict_samples
from visionr1.models.adapters import attach, save_adapters
from visionr1.models.loading import load_policy
from visionr1.models.saving import save_policy
from visionr1.models.settings import LoRASection

FACTS = {"model": "m", "data": "few", "split": None}


@pytest.fixture(scope="module")
def few() -> BoxDataset:
    """Five images of different sizes."""
    dataset = read_dataset(data_path("bccd"), split="test")
    samples = []
    for number, sample in enumerate(dataset.samples[:5]):
        image = sample.load_image().resize((80 + 20 * number, 60))
        samples.append(replace(sample, image=image, size_wh=image.size))
    return replace(dataset, samples=tuple(samples))


@pytest.fixture(scope="module")
def folder(qwen25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that prefers some tokens to others."""
    sharp = tmp_path_factory.mktemp("models") / "sharp"
    save_policy(sharpen(load_policy(qwen25_folder)), sharp)
    return sharp


def ask(model: Model, samples: Sequence[object], **settings: int) -> Asking:
    """The asking of four tokens."""
    return Asking.of(model, samples, read_protocol(["max_new_tokens=4"]))  # type: ignore[arg-type]


def is_same(first: Sequence[Prediction], second: Sequence[Prediction]) -> bool:
    """Say if replies are equal, but for rounding of log-probabilities, whose sums depend on the batch."""
    for one, other in zip(first, second, strict=True):
        if replace(one, token_logprobs=()) != replace(other, token_logprobs=()):
            return False
        if one.token_logprobs != pytest.approx(other.token_logprobs, abs=1e-3):
            return False
    return True


def test_an_engine_that_reads_the_folder_replies_as_the_built_in_one(folder: Path, few: BoxDataset) -> None:
    builtin, model = Model(folder, name="m"), Model(folder, name="m", engine=NAME, batch_size=3)
    expected = collect_replies(builtin, ask(builtin, few.samples))
    found = collect_replies(model, ask(model, few.samples))
    assert is_same(found, expected)
    assert not model.policy.has_weights and model.answerer.engine.num_loads == 0  # type: ignore[attr-defined]
    assert model.answerer.engine.most_at_once == 3  # type: ignore[attr-defined]

    # The protocol says who replied, where it was not the built-in engine.
    assert ask(model, few.samples).protocol.engine == LABEL
    assert LABEL in ask(model, few.samples).protocol.line()
    assert "engine" not in ask(builtin, few.samples).protocol.to_json()


@pytest.mark.parametrize("engine", ["builtin", NAME])
def test_images_are_read_ahead_by_processes(folder: Path, few: BoxDataset, engine: str) -> None:
    answerer = open_answerer(folder, engine=engine)
    state = torch.random.get_rng_state()
    replies = []
    for workers in (0, 2):
        kept: list[Prediction] = []
        seen: list[tuple[int, int]] = []
        replies.append(
            predict_samples(
                answerer.policy,
                few.samples,
                max_new_tokens=3,
                batch_size=2,
                engine=answerer.engine,
                workers=workers,
                keep=kept.extend,
                progress=lambda *done, seen=seen: seen.append(done),  # type: ignore[misc]
            )
        )
        assert sorted(one.sample_id for one in kept) == sorted(one.id for one in few.samples)
        assert seen[-1] == (5, 5) and seen == sorted(seen)
    assert replies[0] == replies[1]
    assert torch.equal(torch.random.get_rng_state(), state)  # training goes on with its own numbers


@pytest.mark.parametrize("engine", ["builtin", NAME])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read(
    folder: Path, few: BoxDataset, engine: str, workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answerer = open_answerer(folder, engine=engine)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    samples = [few.samples[0], replace(few.samples[1], image=broken), few.samples[2]]
    with pytest.raises(DataError, match=r"broken.jpg.*eval --on-bad skip"):
        predict_samples(answerer.policy, samples, max_new_tokens=2, engine=answerer.engine, workers=workers)

    seen: list[tuple[int, int]] = []
    replies = predict_samples(
        answerer.policy,
        samples,
        max_new_tokens=2,
        engine=answerer.engine,
        workers=workers,
        on_bad="skip",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [reply.sample_id for reply in replies] == [samples[0].id, samples[2].id]
    assert seen[-1] == (3, 3) and "broken.jpg" in caplog.text

    # Nothing but bad images leaves no reply, and is done.
    alone = predict_samples(
        answerer.policy, samples[1:2], max_new_tokens=2, engine=answerer.engine, on_bad="skip", workers=workers
    )
    assert alone == []


def test_an_evaluation_that_was_stopped_goes_on(
    folder: Path, few: BoxDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visionr1.evaluation.runner.KEPT_AT_ONCE", 2)
    model = Model(folder, name="m", engine=NAME, batch_size=2, workers=0)
    asking = ask(model, few.samples)
    whole = collect_replies(model, asking)

    # The third part is never kept.
    log = ReplyLog(tmp_path / "evaluation", "m", FACTS)
    kept = []
    append = log.append

    def stop(predictions: Sequence[Prediction]) -> None:
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept.append([prediction.sample_id for prediction in predictions])
        append(predictions)

    monkeypatch.setattr(log, "append", stop)
    with pytest.raises(KeyboardInterrupt):
        collect_replies(model, asking, log=log)
    assert [len(part) for part in kept] == [2, 2]

    asked = []
    answer = model.answerer.engine.answer  # type: ignore[attr-defined]

    def listen(policy: object, prompts: object, **settings: int) -> object:
        for place, completion in answer(policy, prompts, **settings):
            asked.append(place)
            yield place, completion

    monkeypatch.setattr(model.answerer.engine, "answer", listen)
    log = ReplyLog(tmp_path / "evaluation", "m", FACTS)
    assert is_same(collect_replies(model, asking, log=log), whole)
    assert asked == [0]  # one of five was left

    # Replies of another engine are of another evaluation.
    builtin = Model(folder, name="m")
    with pytest.raises(DataError, match=r"replies of another evaluation: (weights|engine): expected"):
        collect_replies(builtin, ask(builtin, few.samples), log=ReplyLog(tmp_path / "evaluation", "m", FACTS))


def test_the_checksum_is_that_of_the_folder_s_weights(folder: Path, tmp_path: Path) -> None:
    model = Model(folder, engine=NAME)
    policy = load_policy(folder)
    save_policy(policy, tmp_path / "same")
    with torch.no_grad():
        next(iter(policy.model.parameters())).add_(1)
    save_policy(policy, tmp_path / "other")
    assert model.weights_sum() == Model(tmp_path / "same", engine=NAME).weights_sum()
    assert model.weights_sum() != Model(tmp_path / "other", engine=NAME).weights_sum()


def test_weights_that_are_not_finite_are_named_without_loading_them(folder: Path, tmp_path: Path) -> None:
    policy = load_policy(folder)
    with torch.no_grad():
        policy.model.lm_head.weight[0, 0] = torch.nan
    save_policy(policy, tmp_path / "spoiled")
    with pytest.raises(CheckpointError, match=r"1 weight \(lm_head.weight\) is not finite"):
        open_answerer(tmp_path / "spoiled", engine=NAME)


def test_adapters_are_handed_over_once_with_their_base(folder: Path, few: BoxDataset, tmp_path: Path) -> None:
    policy = load_policy(folder)
    attach(policy.model, LoRASection(rank=2), seed=0, base=str(folder))
    for name, parameter in policy.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.constant_(parameter, 0.05)
    save_adapters(policy.model, policy.model.state_dict(), tmp_path / "adapters")
    (tmp_path / "adapters" / "visionr1.json").write_text('{"dialect": "qwen25"}')

    builtin = Model(tmp_path / "adapters", name="m")
    model = Model(tmp_path / "adapters", name="m", engine=NAME)
    expected = collect_replies(builtin, ask(builtin, few.samples))
    assert is_same(collect_replies(model, ask(model, few.samples)), expected)
    assert is_same(collect_replies(model, ask(model, few.samples)), expected)
    assert model.answerer.engine.num_loads == 1  # type: ignore[attr-defined]
    base = Model(folder, name="m", engine=NAME)
    assert not is_same(collect_replies(base, ask(base, few.samples)), expected)
    assert model.weights_sum() != base.weights_sum()


def test_an_engine_of_a_user_s_file_evaluates(folder: Path, few: BoxDataset, tmp_path: Path) -> None:
    name = f"{guide_file('A rollout engine', tmp_path)}:open_engine"
    builtin, model = Model(folder, name="m"), Model(folder, name="m", engine=name)
    expected = collect_replies(builtin, ask(builtin, few.samples))
    assert collect_replies(model, ask(model, few.samples)) == expected
    assert model.policy.has_weights and ask(model, few.samples).protocol.engine == name


def test_an_unknown_engine_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="unknown rollout engine 'vlm'; did you mean 'vllm'"):
        open_answerer(tmp_path / "nowhere", engine="vlm")


def test_a_server_answers_in_training_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RecipeError, match=r"--engine: expected one of builtin, vllm.* found vllm_server"):
        open_answerer(folder, engine="vllm_server")
    for command in ("eval", "predict", "vqa"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        assert "engines: builtin, vllm\n" in capsys.readouterr().out


def test_the_name_of_an_engine_beside_a_policy_is_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match="engine: expected one that is open, for a policy, found the name 'vllm'"):
        _ = Model(load_policy(folder), engine="vllm").answerer


def test_the_commands_take_an_engine(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 48), "white").save(tmp_path / "photo.png")
    predict = ["predict", str(tmp_path / "photo.png"), "--categories", "cat", "--model", str(folder)]
    predict += ["--out", str(tmp_path / "drawn.png"), "--max-new-tokens", "6"]
    texts = []
    for engine in ("builtin", NAME):
        assert cli.main([*predict, "--engine", engine]) == 0
        texts.append(json.loads(capsys.readouterr().out)["text"])
    assert texts[0] == texts[1]

    command = ["eval", "--model", str(folder), "--data", "bccd", "--limit", "2", "--max-new-tokens", "3"]
    command += ["--scores", "constant,token", "--out", str(tmp_path / "out"), "--engine", NAME, "--workers", "1"]
    assert cli.main(command) == 0
    results = sorted((tmp_path / "out/evaluation").glob("*.json"))
    assert len(results) == 2
    for path in results:
        assert json.loads(path.read_text())["protocol"]["engine"] == LABEL
