"""Griffon-G, converted from its released layout, computes what its authors' code does, and does all that others do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from support.family_checks import greedy_is_generate, reloads, sampled_error, score, score_errors, together_is_alone
from support.griffon_release import TOKENS, build_griffon, make_image, read_record
from support.random_models import make_prompts, random_completions
from support.training import GRPO
from visionr1.cli import main
from visionr1.files import read_json_lines
from visionr1.models.loading import load_policy
from visionr1.models.paths.packed import PackedPath
from visionr1.models.policy import Policy

RECORD = read_record()


@pytest.fixture(scope="module", params=TOKENS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model around each language model, by whose name the folder is called."""
    return build_griffon(tmp_path_factory.mktemp("griffon") / request.param, request.param)


@pytest.fixture(scope="module")
def policy(folder: Path) -> Policy:
    return load_policy(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    """The model by itself, with the attention that the record was made with."""
    model = load_policy(folder).model
    model.set_attn_implementation("eager")
    return model


@pytest.fixture(scope="module")
def recorded(folder: Path) -> dict[str, Any]:
    """What the authors' model around this language model gave."""
    part: dict[str, Any] = RECORD["models"][folder.name]
    return part


def first_image(policy: Policy) -> torch.Tensor:
    """The pixels of the image that the record was made with."""
    image = make_image(RECORD["pixels"][0]["size"], 0)
    return policy.path.encode(image, "?").inputs["pixel_values"]


def prompt_ids(policy: Policy, recorded: dict[str, Any]) -> list[int]:
    """The tokens that the record was made with: some text, the image, some text."""
    image = [policy.config.image_token_id] * policy.config.image_seq_length
    return [*recorded["before"], *image, *recorded["after"]]


def test_images_are_fed_as_by_the_authors(policy: Policy) -> None:
    places = np.random.RandomState(5).randint(0, 3 * 98 * 98, 48)
    for seed, one in enumerate(RECORD["pixels"]):
        pixels = policy.path.encode(make_image(one["size"], seed), "?").inputs["pixel_values"]
        torch.testing.assert_close(pixels.flatten()[places], torch.tensor(one["values"]), atol=1e-6, rtol=0)


def test_features_are_those_of_the_authors(policy: Policy, model: Any, recorded: dict[str, Any]) -> None:
    with torch.no_grad():
        features = model.get_image_features(first_image(policy), return_dict=True).pooler_output[0]
    assert [1, *features.shape] == recorded["num_features"]

    # Their Gemma 2 scales features behind the projector, ours in it.
    features = features.flatten() / model.model.multi_modal_projector.scale
    expected = torch.tensor(recorded["features"])
    torch.testing.assert_close(features[:: max(1, len(features) // 64)], expected, atol=1e-5, rtol=0)


def test_log_probabilities_are_those_of_the_authors(policy: Policy, model: Any, recorded: dict[str, Any]) -> None:
    ids = torch.tensor([[*prompt_ids(policy, recorded), *recorded["completion"]]])
    with torch.no_grad():
        logits = model(input_ids=ids, pixel_values=first_image(policy)).logits[0]
    torch.testing.assert_close(logits[-1], torch.tensor(recorded["logits"]), atol=2e-5, rtol=0)

    targets = torch.tensor(recorded["completion"])
    logprobs = logits[-len(targets) - 1 : -1].log_softmax(-1)[range(len(targets)), targets]
    torch.testing.assert_close(logprobs, torch.tensor(recorded["logprobs"]), atol=1e-5, rtol=0)


def test_greedy_replies_are_those_of_the_authors(policy: Policy, model: Any, recorded: dict[str, Any]) -> None:
    ids = torch.tensor([prompt_ids(policy, recorded)])
    reply = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=first_image(policy),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=1,
    )
    assert reply[0, ids.shape[1] :].tolist() == recorded["greedy"]


@pytest.mark.parametrize("question", ["Locate every cat.", "  two\n\nlines ", "<image> & <bos>"])
def test_prompts_are_those_of_the_authors(
    policy: Policy, folder: Path, recorded: dict[str, Any], question: str
) -> None:
    """Their code puts the image where <image> stands in the conversation, and tokenizes what is around it alone."""
    before, after = recorded["conversation"].replace("QUESTION", question).split("<image>", 1)
    encode = policy.tokenizer.encode
    begin = encode("")
    image = [policy.config.image_token_id] * policy.config.image_seq_length
    expected = [*encode(before), *image, *encode(after)[len(begin) :]]
    assert policy.path.encode(make_image((60, 40), 0), question).input_ids.tolist() == expected


def test_it_is_found_by_its_model_type(policy: Policy, folder: Path) -> None:
    assert isinstance(policy.path, PackedPath) == (folder.name != "gemma2")
    assert policy.dialect.name == "griffon"
    assert not policy.path.uses_all_weights  # the tower's last layer is not read
    assert policy.decode_reply([policy.eos_ids[0]]) == ""
    ends = {"gemma2": "<end_of_turn>", "llama": "</s>", "qwen2": "<|im_end|>"}
    assert policy.tokenizer.convert_ids_to_tokens(policy.eos_ids[0]) == ends[folder.name]


def test_scores_and_gradients_are_those_of_rows_alone(policy: Policy) -> None:
    logprobs, gradients = score_errors(policy)
    assert max(logprobs, gradients) < 1e-5


def test_sampling_is_that_of_transformers_and_of_scoring(policy: Policy) -> None:
    assert greedy_is_generate(policy)
    assert sampled_error(policy) < 1e-5
    assert together_is_alone(policy)


def test_a_frozen_tower_sees_an_image_once(policy: Policy) -> None:
    prompts = make_prompts(policy, [(120, 80), (80, 160)])
    completions = random_completions(policy, [[5], [7, 2]])
    encoded = policy.encode_images(prompts)
    assert all("pixel_values" not in prompt.inputs for prompt in encoded)
    with torch.no_grad():
        for one, other in zip(score(policy, prompts, completions), score(policy, encoded, completions), strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_saved_and_loaded_it_is_the_same(policy: Policy, tmp_path: Path) -> None:
    assert reloads(policy, tmp_path / "again")


ADAPTERS = ("model.freeze_vision=true", "lora.rank=2", "grpo.beta=0.1")


@pytest.mark.parametrize(("kind", "changes"), [("gemma2", ()), ("gemma2", ADAPTERS), ("qwen2", ())])
def test_it_trains(kind: str, changes: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where pictures are written
    folder = build_griffon(tmp_path / kind, kind)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(GRPO.format(model=folder.as_posix()), encoding="utf-8")
    settings = [part for change in ("train.steps=1", *changes) for part in ("--set", change)]
    run = tmp_path / "run"
    assert main(["train", str(recipe), "--run-dir", str(run), *settings]) == 0

    (row,) = read_json_lines(run / "metrics.jsonl")
    assert row["grad_norm"] > 0
    before, after = load_file(folder / "model.safetensors"), load_file(run / "final/model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("language_model" in name for name in changed)
    assert any("vision_tower" in name for name in changed) == (not changes)

    # What came out answers, and is measured.
    image = tmp_path / "image.png"
    make_image((70, 50), 1).save(image)
    device = ["--device", "cpu", "--max-new-tokens", "8"]
    assert main(["predict", str(image), "--categories", "cat", "--model", str(run), *device]) == 0
    data = ["--data", "bccd", "--limit", "2", "--out", str(tmp_path / "result")]
    assert main(["eval", "--model", str(run), *data, *device]) == 0
