"""Settings that save memory: they change no number of a run, or it goes on exactly; what does not fit is refused."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd.graph import save_on_cpu

from support.random_models import gradients, make_prompts, random_completions
from support.training import GRPO, killed_at, rows, weights
from visionr1.cli import main
from visionr1.errors import RecipeError
from visionr1.models import trainable
from visionr1.models.loading import load_policy
from visionr1.models.memory.offload import OffloadedWeights
from visionr1.models.policy import Policy
from visionr1.models.rows import make_groups
from visionr1.models.settings import LoRASection, ModelSection
from visionr1.models.trainable import make_trainable
from visionr1.training.recipe import load_recipe

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
SHORT = ["--set", "train.steps=2", "--set", "reward.adaptive=false"]
QLORA = ["--set", "model.quantization=nf4", "--set", "lora.rank=2", "--set", "model.gradient_checkpointing=true"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, qwen3_folder: Path) -> Path:
    """A folder with the run of a short recipe, `plain`."""
    root = tmp_path_factory.mktemp("memory")
    (root / "recipe.toml").write_text(GRPO.format(model=qwen3_folder.as_posix()), encoding="utf-8")
    assert train(root, "plain", *SHORT) == 0
    return root


def train(root: Path, name: str, *arguments: str) -> int:
    return main(["train", str(root / "recipe.toml"), "--run-dir", str(root / name), *arguments])


@pytest.mark.parametrize(
    "settings",
    [
        ["optimizer.offload=true"],
        ["model.offload_reference=true"],
        ["model.gradient_checkpointing=true", "model.offload_activations=true"],
    ],
    ids=["optimizer", "reference", "activations"],
)
def test_offloading_changes_no_number(runs: Path, settings: list[str]) -> None:
    name = settings[-1].partition("=")[0]
    assert train(runs, name, *SHORT, *(part for setting in settings for part in ("--set", setting))) == 0
    assert rows(runs / name) == rows(runs / "plain")
    assert all(torch.equal(tensor, weights(runs / name)[key]) for key, tensor in weights(runs / "plain").items())


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(["--set", "optimizer.name=adamw_8bit"], marks=needs_bitsandbytes, id="adamw_8bit"),
        pytest.param(QLORA, marks=needs_bitsandbytes, id="qlora"),
        pytest.param(["--set", "optimizer.offload=true", "--set", "model.dtype=bfloat16"], id="offloaded copies"),
    ],
)
def test_a_killed_run_ends_bit_equal(runs: Path, settings: list[str], request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.id
    assert train(runs, f"{name} straight", *settings) == 0
    with killed_at(3, "metrics.jsonl"):
        train(runs, f"{name} killed", *settings)
    assert train(runs, f"{name} killed", *settings, "--resume") == 0
    straight, killed = runs / f"{name} straight", runs / f"{name} killed"
    assert rows(straight) == rows(killed)
    assert all(torch.equal(tensor, weights(killed)[key]) for key, tensor in weights(straight).items())

    # The policy that samples is the one that is scored, and in the first step it is its own reference.
    metrics = rows(straight)
    assert metrics[0]["kl"] == 0 or "adamw" in name or "copies" in name
    bound = 0.1 if "copies" in name else 1e-4
    assert all(row["sampling/largest_gap"] < bound for row in metrics)


def load(folder: Path, **model: object) -> Policy:
    policy = load_policy(folder)
    make_trainable(policy, ModelSection(**model), LoRASection())  # type: ignore[arg-type]
    return policy


def test_offloaded_activations_are_the_inputs_of_layers(qwen_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else goes to the CPU: neither weights nor what a layer computes."""
    saved: list[tuple[int, ...]] = []

    class Watched(save_on_cpu):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            pack = self.pack_hook

            def watched(tensor: torch.Tensor) -> object:
                saved.append(tuple(tensor.shape))
                return pack(tensor)

            self.pack_hook = watched

    monkeypatch.setattr(trainable, "save_on_cpu", Watched)
    policy = load(qwen_folder, gradient_checkpointing=True, offload_activations=True)
    prompts, completions = make_prompts(policy, [(120, 80)]), random_completions(policy, [[9, 5]])
    rows_ = policy.path.pack(make_groups(prompts, completions))
    value = policy.token_logprobs(rows_).sum()
    width = policy.config.text_config.hidden_size
    inputs = (*rows_.input_ids.shape, width)  # type: ignore[attr-defined]
    assert saved.count(inputs) == len(policy.decoder.layers)
    shapes = {tuple(parameter.shape) for parameter in policy.model.parameters() if parameter.ndim > 1}
    assert not shapes & set(saved)
    plain = load(qwen_folder, gradient_checkpointing=True)
    assert torch.equal(gradients(policy, value), gradients(plain, plain.token_logprobs(rows_).sum()))


def test_what_a_pass_leaves_on_the_device_is_dropped() -> None:
    model = nn.Linear(2, 2).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    offloaded = OffloadedWeights(model)
    for _ in range(2):
        with offloaded.loaded():
            assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
            for parameter in model.parameters():  # in the place of a copy on a GPU
                parameter.data = torch.zeros_like(parameter)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.quantization=nf4"], r'lora.rank: expected 1 or more where model.quantization is "nf4"'),
        (["model.quantization=nf4", "lora.rank=2", "rollout.compile=true"], "rollout.compile: expected false where"),
        (["model.quantization=int8"], r"model.quantization: expected .*none.*nf4"),
        (["model.offload_activations=true"], "model.gradient_checkpointing: expected true where offload_activations"),
        (["model.offload_reference=true", "lora.rank=2"], "model.offload_reference: expected false where there is no"),
        (["model.offload_reference=true", "grpo.beta=0"], "model.offload_reference: expected false where there is no"),
        (["optimizer.name=adam_8bit"], r"optimizer.name: expected .*adamw_8bit"),
    ],
)
def test_what_does_not_fit_is_refused(runs: Path, settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(runs / "recipe.toml", settings)
