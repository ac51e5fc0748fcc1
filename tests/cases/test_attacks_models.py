"""Attacks by model folders and adapters: no code of a folder runs, and whatever is wrong is one CheckpointError."""

import io
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from visionr1.cli import main
from visionr1.errors import CheckpointError
from visionr1.models.adapters import attach, has_adapters
from visionr1.models.loading import load_policy
from visionr1.models.saving import save_policy, save_trained
from visionr1.models.settings import LoRASection


@pytest.fixture
def folder(qwen3_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen3_folder, tmp_path / "model"))


def edit(path: Path, change: dict[str, Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **change}), encoding="utf-8")


@pytest.mark.parametrize("model_type", ["evil", "qwen3_vl"])
def test_a1_code_of_a_folder_never_runs(
    folder: Path, model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 'y' on standard input ran the folder's Python."""
    marker = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass C: pass\n", encoding="utf-8")
    code = {"auto_map": {"AutoConfig": "evil.C", "AutoProcessor": "evil.C", "AutoImageProcessor": "evil.C"}}
    edit(folder / "config.json", {**code, "model_type": model_type})
    edit(folder / "preprocessor_config.json", code)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\ny\n"))
    if model_type == "evil":
        with pytest.raises(CheckpointError, match="wants to run code of its own"):
            load_policy(folder)
    else:
        load_policy(folder)
    assert not marker.exists()


DEEP = "[" * 1010 + "]" * 1010
"""Nested as deep as the reader of JSON allows, which is deeper than Python's repr and json write."""


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("adapter_config.json", f'{{"peft_type": "LORA", "r": {DEEP}}}'),
        ("adapter_config.json", f'{{"peft_type": {DEEP}}}'),
        ("config.json", f'{{"model_type": {DEEP}}}'),
        ("config.json", f'{{"model_type": "qwen3_vl", "num_hidden_layers": {DEEP}}}'),
        ("config.json", f'{{"model_type": "qwen3_vl", "attn_implementation": {{"a": "user/repo", "b": {DEEP}}}}}'),
        ("visionr1.json", f'{{"dialect": {DEEP}}}'),
    ],
)
def test_values_nested_deep_are_named(tmp_path: Path, file: str, content: str) -> None:
    """The message itself raised a RecursionError."""
    (tmp_path / file).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError) as refused:
        load_policy(tmp_path)
    assert len(str(refused.value)) < 600 + 2 * len(str(tmp_path))


HOSTILE: list[tuple[str, dict[str, Any] | str]] = [
    ("config.json", "[" * 200_000),
    ("config.json", "[]"),
    ("config.json", {"model_type": None}),
    ("config.json", {"model_type": ["qwen3_vl"]}),
    ("config.json", {"text_config": {"model_type": "qwen3_vl_text", "num_hidden_layers": 10**6}}),
    ("config.json", {"text_config": {"model_type": "qwen3_vl_text", "hidden_size": "big"}}),
    ("config.json", {"text_config": {"model_type": "qwen3_vl_text", "num_attention_heads": 0}}),
    ("config.json", {"text_config": {"model_type": "qwen3_vl_text", "num_experts": 10**7}}),
    ("config.json", {"text_config": {"model_type": "qwen3_vl_text", "num_experts": [64, "x"]}}),
    ("config.json", {"quantization_config": {"quant_method": "evil"}}),
    ("config.json", {"quantization_config": {"bits": 4}}),
    ("config.json", {"quantization_config": ["evil"]}),
    ("config.json", {"quantization_config": {"quant_method": ["gptq"]}}),
    ("config.json", {"num_labels": 3 * 10**6}),
    ("config.json", {"vision_config": {"deepstack_visual_indexes": list(range(10**5))}}),
    ("preprocessor_config.json", {"merge_size": 3}),
    ("preprocessor_config.json", {"temporal_patch_size": 64}),
    ("preprocessor_config.json", {"patch_size": 14}),
    ("visionr1.json", '{"template": "no place"}'),
    ("chat_template.jinja", "{{ 'a' * 10**10 }}"),
    ("chat_template.jinja", "{{ '%09999999999d' % 1 }}"),
    ("chat_template.jinja", "{{ 'a'|center(10**10) }}"),
    (
        "chat_template.jinja",
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    ),
    ("tokenizer.json", "{}"),
    ("tokenizer.json", "not JSON"),
    ("tokenizer_config.json", "[]"),
    ("preprocessor_config.json", "not JSON"),
    ("preprocessor_config.json", {"patch_size": 0}),
    ("preprocessor_config.json", {"size": {"shortest_edge": 10**12, "longest_edge": 10**12}}),
    ("generation_config.json", {"eos_token_id": "x"}),
    ("visionr1.json", "[]"),
    ("visionr1.json", '{"dialect": ["a"]}'),
    ("chat_template.jinja", "{{ raise_exception('no') }}"),
    ("chat_template.jinja", "{{ ''.__class__.__mro__ }}"),
    ("chat_template.jinja", "{{ 1 / 0 }}"),
    ("chat_template.jinja", "{% for %}"),
    ("chat_template.jinja", "no image"),
    (
        "chat_template.jinja",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}"
        "{% endfor %}",
    ),
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_b1_b12_a_hostile_folder_is_one_line(folder: Path, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    name, change = HOSTILE[number]
    if isinstance(change, str):
        (folder / name).write_text(change, encoding="utf-8")
    else:
        edit(folder / name, change)
    with pytest.raises(CheckpointError):
        load_policy(folder)


def test_a6_weights_that_are_not_finite_are_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(iter(tensors))
    tensors[name].flatten()[0] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 weight \(.*\) is not finite"):
        load_policy(folder)


def test_whole_numbers_are_not_taken_for_weights(folder: Path) -> None:
    """Quantized weights without a word on it in config.json were read as floats, without their scales."""
    tensors = {name: (tensor * 10).to(torch.int8) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="whole numbers"):
        load_policy(folder)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "generation_config.json", "chat_template.jinja"]
)
def test_a_pipe_in_a_folder_is_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match="expected a file, found a pipe"):
        load_policy(folder)


def test_a_pipe_among_adapters_is_not_waited_for(adapter_folder: Path) -> None:
    (adapter_folder / "adapter_model.safetensors").unlink()
    os.mkfifo(adapter_folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="expected a file, found a pipe"):
        load_policy(adapter_folder)


def test_c6_saved_weights_can_be_read_by_others(folder: Path, tmp_path: Path) -> None:
    save_policy(load_policy(folder), tmp_path / "final")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "final").iterdir()}
    assert len(modes) == 1


def test_a_hostile_folder_ends_a_command_with_2(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert main(["predict", str(tmp_path / "a.png"), "--categories", "cat", "--model", str(folder)]) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"attn_implementation": "user/repo"},
        {"_attn_implementation": "kernels-community/flash-attn"},
        {"experts_implementation": "user/repo"},
        {"attn_implementation": {"text_config": "user/repo"}},
        {"vision_config": {"_attn_implementation_internal": "user/repo@main:f"}},
    ],
    ids=str,
)
def test_c14_attention_from_the_hub_is_never_fetched(folder: Path, change: dict[str, Any]) -> None:
    """transformers fetches `user/repo`, with the package `kernels`, and of one account asks nobody."""
    edit(folder / "config.json", change)
    with pytest.raises(CheckpointError, match="names code on the hub"):
        load_policy(folder)


@pytest.fixture
def adapter_folder(qwen3_folder: Path, tmp_path: Path) -> Path:
    policy = load_policy(qwen3_folder)
    attach(policy.model, LoRASection(rank=2), seed=0, base=str(qwen3_folder))
    save_trained(policy, tmp_path / "adapter")
    return tmp_path / "adapter"


HOSTILE_ADAPTERS: list[dict[str, Any]] = [
    {"r": 0},
    {"r": "x"},
    {"r": True},
    {"r": 1.5},
    {"r": 10**9},
    {"r": 10**400},
    {"r": 3},
    {"lora_alpha": "x"},
    {"lora_alpha": 1e400},
    {"lora_alpha": -1},
    {"rank_pattern": {"(([a-z_.0-9]+)+)+!": 2}},
    {"rank_pattern": {"q_proj": 10**9}},
    {"rank_pattern": ["q_proj"]},
    {"alpha_pattern": {"q_proj": None}},
    {"layer_replication": [[0, 10**6]]},
    {"use_dora": True},
    {"modules_to_save": ["lm_head"]},
    {"peft_type": "MEGATRON"},
    {"peft_type": None},
    {"base_model_name_or_path": "user/repo"},
    {"base_model_name_or_path": ["a"]},
    {"base_model_name_or_path": "\0"},
]
HARMLESS_SETTINGS: list[dict[str, Any]] = [
    {"target_modules": "(([a-z_.0-9]+)+)+!"},
    {"target_modules": ["nothing"]},
    {"target_modules": 7},
    {"layers_pattern": "(a+)+$", "layers_to_transform": [10**9]},
    {"megatron_core": "os", "megatron_config": {"a": 1}},
    {"auto_mapping": {"base_model_class": "evil.C", "parent_library": "os"}},
]
"""What is not read: the layers are those of the weights."""


@pytest.mark.parametrize("change", HOSTILE_ADAPTERS, ids=lambda change: next(iter(change)))
def test_b1_hostile_adapters_are_one_line(adapter_folder: Path, change: dict[str, Any]) -> None:
    edit(adapter_folder / "adapter_config.json", change)
    with pytest.raises(CheckpointError):
        load_policy(adapter_folder)


@pytest.mark.parametrize("change", HARMLESS_SETTINGS, ids=lambda change: next(iter(change)))
def test_b12_patterns_of_adapters_are_not_read(adapter_folder: Path, change: dict[str, Any]) -> None:
    """A regular expression as target_modules ran for over 30 seconds."""
    edit(adapter_folder / "adapter_config.json", change)
    assert has_adapters(load_policy(adapter_folder).model)
