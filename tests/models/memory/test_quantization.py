"""A base in 4 bits, by bitsandbytes itself: the numbers of the forward pass, the adapters' gradients, what is saved."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from support.family_checks import greedy_is_generate, sampled_error, score_errors
from support.more_shapes import build_by_name
from support.random_models import gradients, make_prompts, random_completions, sharpen
from visionr1.errors import CheckpointError, MissingDependency, RecipeError
from visionr1.models.adapters import adapters_off, attach
from visionr1.models.loading import DIALECT_FILE, load_policy
from visionr1.models.memory.quantization import quantized_layers
from visionr1.models.policy import Policy
from visionr1.models.rows import make_groups
from visionr1.models.saving import save_policy, save_trained
from visionr1.models.settings import LoRASection, ModelSection
from visionr1.models.trainable import make_trainable

bitsandbytes = pytest.importorskip("bitsandbytes")
LORA = LoRASection(rank=3, alpha=6.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, qwen3_folder: Path, qwen25_folder: Path) -> dict[str, Path]:
    """Two families with a packed row and one of the generic path, whose models prefer some tokens to others."""
    root = tmp_path_factory.mktemp("bases")
    llava = build_by_name(root / "random_llava", qwen3_folder, "llava")
    folders = {}
    for name, folder in {"qwen3": qwen3_folder, "qwen25": qwen25_folder, "llava": llava}.items():
        dialect = "qwen3" if name == "llava" else None
        save_policy(sharpen(load_policy(folder, dialect=dialect)), root / name)
        folders[name] = root / name
    return folders


@pytest.fixture(params=["qwen3", "qwen25", "llava"])
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    """Each of them in turn."""
    return folders[request.param]


def adapt(folder: Path, quantization: str = "nf4", dtype: str = "float32", **model: object) -> Policy:
    """The policy in `folder` with adapters that have trained."""
    policy = load_policy(folder, quantization=quantization, dtype=dtype)
    make_trainable(policy, ModelSection(quantization=quantization, **model), LORA)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return policy


def logprobs(policy: Policy) -> Tensor:
    prompts, completions = make_prompts(policy, [(120, 80)]), random_completions(policy, [[5, 3]])
    return policy.token_logprobs(policy.path.pack(make_groups(prompts, completions)))


def test_scores_and_gradients_are_those_of_transformers_forward(folder: Path) -> None:
    gap, gradient_error = score_errors(adapt(folder))
    assert gap < 1e-5 and gradient_error < 1e-5


def test_sampling_leaves_weights_as_they_are(folder: Path) -> None:
    """bitsandbytes would pack them anew for a CPU's own kernel, which has other numbers and no gradient."""
    policy = adapt(folder)
    before, gradient = logprobs(policy).detach(), gradients(policy, logprobs(policy).sum())
    assert sampled_error(policy) < 1e-5
    assert greedy_is_generate(policy)
    assert torch.equal(logprobs(policy), before)
    assert torch.equal(gradients(policy, logprobs(policy).sum()), gradient)


def test_packing_really_happens_without_our_care(folders: dict[str, Path]) -> None:
    """The guard guards something: a layer as bitsandbytes makes it loses its gradient after sampling."""
    policy = load_policy(folders["qwen3"], quantization="nf4")
    layer = next(iter(quantized_layers(policy.model).values()))
    if not bitsandbytes.functional.has_avx512bf16():
        pytest.skip("this CPU has no kernel of its own in bitsandbytes")
    layer.support_avx512bf16_for_cpu = True
    inputs = torch.randn(2, layer.in_features)
    with torch.no_grad():
        layer(inputs)
    assert layer.weight.quant_state.packing_format_for_cpu


def test_all_but_the_blocks_stays_as_it_is(folder: Path) -> None:
    quantized, plain = load_policy(folder, quantization="nf4"), load_policy(folder)
    linear = {name for name, layer in plain.decoder.layers.named_modules() if isinstance(layer, nn.Linear)}
    prefix = next(name for name, module in plain.model.named_modules() if module is plain.decoder.layers)
    assert quantized_layers(quantized.model).keys() == {f"{prefix}.{name}" for name in linear}
    weights = quantized.model.state_dict()
    kept = [
        name
        for name in plain.model.state_dict()
        if name.removesuffix(".weight") not in quantized_layers(quantized.model)
    ]
    assert all(torch.equal(weights[name], plain.model.state_dict()[name]) for name in kept)


def test_a_block_takes_about_four_bits_a_weight(folders: dict[str, Path]) -> None:
    policy = load_policy(folders["qwen3"], quantization="nf4")
    for layer in quantized_layers(policy.model).values():
        state = layer.weight.quant_state
        stored = layer.weight.nbytes + state.absmax.nbytes
        assert stored == layer.in_features * layer.out_features * (4 + 8 / 64) / 8


def test_without_adapters_it_is_the_base(folder: Path) -> None:
    policy = adapt(folder)
    with adapters_off(policy.model):
        assert torch.equal(logprobs(policy), logprobs(load_policy(folder, quantization="nf4")))


def test_rounding_is_what_tells_it_from_the_plain_base(folders: dict[str, Path]) -> None:
    gap = (logprobs(load_policy(folders["qwen3"], quantization="nf4")) - logprobs(load_policy(folders["qwen3"]))).abs()
    assert 1e-3 < gap.max() < 2


def test_what_is_saved_is_what_trained(folder: Path, tmp_path: Path) -> None:
    policy = adapt(folder)
    before = logprobs(policy).detach()
    save_policy(policy, tmp_path / "final")

    # final/ is an ordinary folder, which needs no bitsandbytes.
    merged = load_policy(tmp_path / "final")
    assert merged.quantization == "none" and not quantized_layers(merged.model)
    torch.testing.assert_close(logprobs(merged), before, atol=1e-5, rtol=0)
    assert load_file(tmp_path / "final/model.safetensors").keys() == load_file(folder / "model.safetensors").keys()
    assert "quantization_config" not in json.loads((tmp_path / "final/config.json").read_text(encoding="utf-8"))
    assert "quantization" not in json.loads((tmp_path / "final" / DIALECT_FILE).read_text(encoding="utf-8"))

    # Adapters know that their base is quantized.
    save_trained(policy, tmp_path / "checkpoint")
    for adapters in ("checkpoint", "final/adapter"):
        again = load_policy(tmp_path / adapters, base=folder)
        assert again.quantization == "nf4"
        assert torch.equal(logprobs(again), before)


def test_merged_weights_are_rounded_as_asked(folders: dict[str, Path], tmp_path: Path) -> None:
    policy = adapt(folders["qwen25"], dtype="bfloat16")
    save_policy(policy, tmp_path / "final", torch.bfloat16)
    tensors = load_file(tmp_path / "final/model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "final/config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
    scored = logprobs(load_policy(tmp_path / "final", dtype="bfloat16"))
    torch.testing.assert_close(scored, logprobs(policy), atol=0.2, rtol=0)


def test_adapters_of_another_rounding_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    save_trained(adapt(folders["qwen3"]), tmp_path)
    with pytest.raises(CheckpointError, match="other weights than the one loaded"):
        load_policy(tmp_path, base=folders["qwen3"], quantization="none")


def test_a_base_whose_scales_alone_differ_is_another(folders: dict[str, Path], tmp_path: Path) -> None:
    """Twice the weights have the same 4 bits: only their scales tell them apart."""
    save_trained(adapt(folders["qwen3"]), tmp_path / "adapters")
    other = load_policy(folders["qwen3"])
    with torch.no_grad():
        other.decoder.layers[0].mlp.up_proj.weight.mul_(2)
    save_policy(other, tmp_path / "other")
    with pytest.raises(CheckpointError, match="other weights than the one loaded"):
        load_policy(tmp_path / "adapters", base=tmp_path / "other")


def test_checkpointed_layers_give_the_same_gradient(folders: dict[str, Path]) -> None:
    plain, checkpointed = (
        adapt(folders["qwen3"], gradient_checkpointing=value, offload_activations=value) for value in (False, True)
    )
    parts = [gradients(policy, logprobs(policy).sum()) for policy in (plain, checkpointed)]
    assert torch.equal(*parts)


def test_a_quantized_folder_is_read_but_does_not_train(folders: dict[str, Path], tmp_path: Path) -> None:
    policy = load_policy(folders["qwen3"], quantization="nf4")
    policy.model.save_pretrained(tmp_path)
    policy.path.save_processor(tmp_path)
    (tmp_path / DIALECT_FILE).write_text('{"dialect": "qwen3"}', encoding="utf-8")
    read = load_policy(tmp_path)
    torch.testing.assert_close(logprobs(read), logprobs(policy), atol=1e-5, rtol=0)
    with pytest.raises(RecipeError, match=r"model\.path: the weights in .* are quantized"):
        make_trainable(read, ModelSection(), LORA)
    with pytest.raises(RecipeError, match=r"model\.quantization: the weights in .* are quantized already"):
        load_policy(tmp_path, quantization="nf4")


def test_a_weight_that_is_not_finite_is_found_in_its_scale(folders: dict[str, Path], tmp_path: Path) -> None:
    other = load_policy(folders["qwen3"])
    with torch.no_grad():
        other.decoder.layers[0].mlp.up_proj.weight[0, 0] = torch.inf
    save_policy(other, tmp_path)
    with pytest.raises(CheckpointError, match="not finite"):
        load_policy(tmp_path, quantization="nf4")


def test_a_folder_of_an_unknown_quantization_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    save_trained(adapt(folders["qwen3"]), tmp_path)
    (tmp_path / DIALECT_FILE).write_text('{"quantization": "nf3"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="quantization: expected none, nf4, found 'nf3'"):
        load_policy(tmp_path, base=folders["qwen3"])


def test_new_adapters_begin_at_the_base(folders: dict[str, Path]) -> None:
    policy = load_policy(folders["qwen3"], quantization="nf4")
    before = logprobs(policy)
    attach(policy.model, LORA, seed=0, base="")
    assert torch.equal(logprobs(policy), before)
    trained = {name for name, parameter in policy.model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name for name in trained)


def test_a_missing_bitsandbytes_is_named(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingDependency, match=r'pip install "visionr1\[bitsandbytes\]"'):
        load_policy(folders["qwen3"], quantization="nf4")
