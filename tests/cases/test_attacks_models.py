"""Attacks by model folders and adapters: no code of a folder runs, and whatever is wrong is one CheckpointError."""

import io
import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from visionr1.cli import main
from visionr1.errors import CheckpointError
from visionr1.models.loading import load_policy
from visionr1.models.saving import save_policy


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


HOSTILE: list[tuple[str, dict[str, Any] | str]] = [
    ("config.json", "[" * 200_000),
    ("config.json", "[]"),
    ("config.json", {"model_type": None}),
    ("config.json", {"model_type": ["qwen3_vl"]}),
    ("config.json", {"text_config": {"model_type": "qwen3_vl_text", "num_hidden_layers": 10**6}}),
    ("config.json", {"text_config": {"model_type": "qwen3_vl_text", "hidden_size": "big"}}),
    ("config.json", {"text_config": {"model_type": "qwen3_vl_text", "num_attention_heads": 0}}),
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
    with pytest.raises(CheckpointError, match=r"1 of the weights in .* hold NaN or infinity"):
        load_policy(folder)


def test_c6_saved_weights_can_be_read_by_others(folder: Path, tmp_path: Path) -> None:
    save_policy(load_policy(folder), tmp_path / "final")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "final").iterdir()}
    assert len(modes) == 1


def test_a_hostile_folder_ends_a_command_with_2(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert main(["predict", str(tmp_path / "a.png"), "--categories", "cat", "--model", str(folder)]) == 2
