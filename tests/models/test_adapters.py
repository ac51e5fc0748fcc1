"""Adapters against the model they belong to: off they are nothing, merged they are the same, lost they are missed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from support.random_models import make_prompts, random_completions, sharpen
from visionr1.dialects import get_dialect
from visionr1.errors import CheckpointError, RecipeError
from visionr1.models import adapters
from visionr1.models.loading import DIALECT_FILE, load_policy
from visionr1.models.policy import Policy
from visionr1.models.rows import make_groups
from visionr1.models.saving import save_policy, save_trained
from visionr1.models.settings import LoRASection


@pytest.fixture
def base(qwen25_folder: Path, tmp_path: Path) -> Path:
    """A model that prefers some tokens to others, its tensors named as in checkpoints on the hub."""
    folder = tmp_path / "base"
    save_policy(sharpen(load_policy(qwen25_folder)), folder)
    on_hub = {"model.language_model.": "model.", "model.visual.": "visual."}
    tensors = load_file(folder / "model.safetensors")
    for ours, theirs in on_hub.items():
        tensors = {name.replace(ours, theirs): tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def adapt(base: Path, *, untrained: bool = False, dtype: str = "float32", **settings: object) -> Policy:
    """The policy in `base` with adapters, trained ones unless said otherwise."""
    policy = load_policy(base, dtype=dtype)
    lora = LoRASection(**{"rank": 3, "alpha": 6.0, **settings})  # type: ignore[arg-type]
    adapters.attach(policy.model, lora, seed=1, base=str(base))
    if not untrained:
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for name, parameter in policy.model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return policy


@torch.no_grad()
def logprobs(policy: Policy) -> Tensor:
    rows = policy.path.pack(
        make_groups(make_prompts(policy, [(120, 80), (80, 120)]), random_completions(policy, [[5, 3], [4, 6]]))
    )
    return policy.token_logprobs(rows)


def test_new_adapters_change_nothing(base: Path) -> None:
    assert torch.equal(logprobs(adapt(base, untrained=True)), logprobs(load_policy(base)))


def test_off_they_leave_the_base(model_folder: Path) -> None:
    policy, plain = adapt(model_folder), logprobs(load_policy(model_folder))
    trained = logprobs(policy)
    assert (trained - plain).abs().max() > 1e-3
    with adapters.adapters_off(policy.model):
        assert torch.equal(logprobs(policy), plain)
    assert torch.equal(logprobs(policy), trained)  # and on again
    assert all(p.requires_grad for name, p in policy.model.named_parameters() if "lora" in name)


def test_only_adapters_of_the_language_model_train(base: Path) -> None:
    policy = adapt(base)
    layers = policy.config.get_text_config().num_hidden_layers
    trained = [name for name, p in policy.model.named_parameters() if p.requires_grad]
    assert all("language_model.layers." in name and ".lora_" in name for name in trained)
    assert len(trained) == layers * 7 * 2  # q k v o gate up down, A and B of each
    assert {p.dtype for p in adapt(base, dtype="bfloat16").model.parameters() if p.requires_grad} == {torch.float32}


def test_targets_and_the_vision_tower_can_be_chosen(base: Path) -> None:
    few = adapt(base, targets=("q_proj", "v_proj")).model
    assert {n.split(".")[-4] for n, p in few.named_parameters() if p.requires_grad} == {"q_proj", "v_proj"}
    vision = adapt(base, vision=True).model
    trained = {name.split(".")[1] for name, p in vision.named_parameters() if p.requires_grad}
    assert trained == {"language_model", "visual"}
    with pytest.raises(RecipeError, match=r"lora\.targets: expected some of .*q_proj.*found \['Wqkv'\]"):
        adapt(base, targets=("Wqkv", "q_proj"))


def test_the_seed_decides_a_new_adapter(base: Path) -> None:
    def first(seed: int) -> Tensor:
        model = load_policy(base).model
        adapters.attach(model, LoRASection(rank=2), seed=seed, base="")
        return next(p for p in model.parameters() if p.requires_grad)

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_a_folder_of_adapters_restores_the_policy(base: Path, tmp_path: Path) -> None:
    policy, folder = adapt(base), tmp_path / "adapters"
    save_trained(policy, folder)
    assert {path.name for path in folder.iterdir()} == {adapters.CONFIG_FILE, adapters.WEIGHTS_FILE, DIALECT_FILE}
    restored = load_policy(folder)  # finds its base by itself
    assert torch.equal(logprobs(restored), logprobs(policy))
    assert {n for n, p in restored.model.named_parameters() if p.requires_grad} == {
        n for n, p in policy.model.named_parameters() if p.requires_grad
    }


def drop_one(folder: Path) -> None:
    edit(folder, lambda tensors: tensors.pop(next(iter(tensors))))


def add_one(folder: Path) -> None:
    edit(folder, lambda tensors: tensors.update(more=torch.zeros(1)))


def change_rank(folder: Path) -> None:
    config = json.loads((folder / adapters.CONFIG_FILE).read_text())
    (folder / adapters.CONFIG_FILE).write_text(json.dumps({**config, "r": 2}))


def cut(folder: Path) -> None:
    (folder / adapters.WEIGHTS_FILE).write_bytes((folder / adapters.WEIGHTS_FILE).read_bytes()[:-1])


def other_kind(folder: Path) -> None:
    (folder / adapters.CONFIG_FILE).write_text('{"peft_type": "IA3", "target_modules": ["q_proj"]}')


def no_base(folder: Path) -> None:
    config = json.loads((folder / adapters.CONFIG_FILE).read_text())
    (folder / adapters.CONFIG_FILE).write_text(json.dumps({**config, "base_model_name_or_path": None}))


def edit(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / adapters.WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, folder / adapters.WEIGHTS_FILE)


def test_adapters_are_asked_and_read_as_they_were_trained(base: Path, tmp_path: Path) -> None:
    policy = adapt(base)
    policy.dialect = get_dialect("think+qwen25")
    policy.template = "Find all {} now."
    save_trained(policy, tmp_path / "checkpoint")
    save_policy(policy, tmp_path / "final")
    for folder in (tmp_path / "checkpoint", tmp_path / "final/adapter", tmp_path / "final"):
        loaded = load_policy(folder, base=base)
        assert (loaded.dialect.name, loaded.template) == ("think+qwen25", "Find all {} now."), folder
        assert load_policy(folder, base=base, dialect="qwen3").dialect.name == "qwen3"  # a user's word goes first


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_one, "do not fit the model"),
        (add_one, r"do not fit the model.*\['more'\]"),
        (change_rank, "do not fit the model"),
        (cut, "cannot read the adapters"),
        (no_base, "expected the base model's folder in base_model_name_or_path"),
        (other_kind, "expected adapters of type LORA, found .*IA3"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(
    qwen3_folder: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    save_trained(adapt(qwen3_folder), tmp_path / "adapters")
    spoil(tmp_path / "adapters")
    with pytest.raises(CheckpointError, match=message):
        load_policy(tmp_path / "adapters")


def test_another_base_is_refused(qwen3_folder: Path, tmp_path: Path) -> None:
    save_trained(adapt(qwen3_folder), tmp_path / "adapters")
    other = Path(shutil.copytree(qwen3_folder, tmp_path / "other"))
    tensors = load_file(other / "model.safetensors")
    tensors[next(iter(tensors))] *= 2
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="belong to a base model with other weights"):
        load_policy(tmp_path / "adapters", base=other)


def test_adapters_are_no_base_of_their_own(qwen3_folder: Path, tmp_path: Path) -> None:
    """As of a run that is told to start from a folder of adapters."""
    save_trained(adapt(qwen3_folder), tmp_path / "adapters")
    with pytest.raises(CheckpointError, match="holds adapters, and a whole model is needed here"):
        load_policy(tmp_path / "adapters", base=tmp_path / "adapters")


def keys(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


def test_what_is_saved_is_an_ordinary_folder(base: Path, tmp_path: Path) -> None:
    policy, final = adapt(base, vision=True), tmp_path / "final"
    before = logprobs(policy)
    save_policy(policy, final)
    assert torch.equal(logprobs(policy), before)  # merging is done on the side
    assert keys(final) == keys(base)
    assert {name.partition(".")[0] for name in keys(final)} == {"model", "visual", "lm_head"}
    merged = load_policy(final)
    assert not adapters.has_adapters(merged.model)
    torch.testing.assert_close(logprobs(merged), before, atol=1e-4, rtol=0)
    merged.model = PeftModel.from_pretrained(load_policy(base).model, final / "adapter").base_model.model
    torch.testing.assert_close(logprobs(merged), before, atol=1e-6, rtol=0)


def test_every_family_is_merged(tiled_folder: Path, tmp_path: Path) -> None:
    policy = adapt(tiled_folder, vision=True)
    save_policy(policy, tmp_path / "final")
    assert keys(tmp_path / "final") == keys(tiled_folder)
    torch.testing.assert_close(logprobs(load_policy(tmp_path / "final")), logprobs(policy), atol=1e-5, rtol=0)


def test_saving_in_bfloat16(base: Path, tmp_path: Path) -> None:
    policy = adapt(base)
    save_policy(policy, tmp_path / "final", torch.bfloat16)
    exact = dict(adapters.merged_weights(policy.model, policy.model.state_dict()))
    model, report = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "final", output_loading_info=True, trust_remote_code=False
    )
    assert not any(report.values())
    assert model.dtype is torch.bfloat16
    assert all(torch.equal(model.state_dict()[name], tensor.bfloat16()) for name, tensor in exact.items())


def test_tied_weights_are_written_once(qwen3_folder: Path, tmp_path: Path) -> None:
    policy = adapt(qwen3_folder)
    assert policy.config.tie_word_embeddings
    save_policy(policy, tmp_path / "final", torch.bfloat16)
    assert keys(tmp_path / "final") == keys(qwen3_folder)
    load_policy(tmp_path / "final")
