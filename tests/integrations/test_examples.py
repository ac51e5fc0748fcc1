"""The recipes in examples/: their rows, and that what can be checked without a host is right."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from visionr1.data import read_source
from visionr1.errors import DataError
from visionr1.integrations import from_json

EXAMPLES = Path(__file__).parents[2] / "examples"
HOSTS = ("easyr1", "ms_swift", "openrlhf", "trl", "verl")


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def truth_text(row: dict[str, Any], host: str) -> Any:
    """Where each host looks for the ground truth."""
    if host == "verl":
        return row["reward_model"]["ground_truth"]
    return row[{"easyr1": "answer", "openrlhf": "label"}.get(host, "ground_truth")]


@pytest.mark.parametrize("host", HOSTS)
def test_rows_hold_image_instruction_and_truth(
    host: str, qwen25_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = load(EXAMPLES / "prepare.py")
    command = [
        "prepare.py",
        host,
        "--data",
        "bccd",
        "--model",
        str(qwen25_folder),
        "--out",
        str(tmp_path),
        "--limit",
        "2",
    ]
    monkeypatch.setattr(sys, "argv", command)
    prepare.main()
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    samples = read_source("bccd", split="train")[:2]
    assert len(rows) == 2
    for row, sample in zip(rows, samples, strict=True):
        path = Path(row["image"] if host == "trl" else row["images"][0])
        with Image.open(path) as image:
            size = image.size
        assert from_json(truth_text(row, host)).truth == sample.ground_truth(size)
        assert "Locate every item" in json.dumps(row)
        assert json.dumps(row).count("<image>") == (host in ("easyr1", "ms_swift", "verl"))


def test_rows_of_another_preset_ask_for_what_it_scores(
    qwen25_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = load(EXAMPLES / "prepare.py")
    options = f"--data bccd --model {qwen25_folder} --out {tmp_path} --limit 1 --preset vlm_r1 --dialect think+qwen25"
    monkeypatch.setattr(sys, "argv", ["prepare.py", "trl", *options.split()])
    prepare.main()
    row = json.loads((tmp_path / "train.jsonl").read_text(encoding="utf-8"))
    truth = from_json(row["ground_truth"])
    assert (truth.preset, truth.dialect) == ("vlm_r1", "think+qwen25")
    assert "<answer> </answer>" in row["prompt"][0]["content"]


def test_a_stored_image_is_fed_as_it_is(qwen25_folder: Path) -> None:
    from transformers import AutoImageProcessor

    prepare = load(EXAMPLES / "prepare.py")
    processor = AutoImageProcessor.from_pretrained(qwen25_folder, backend="pil", trust_remote_code=False)
    for size in ((640, 480), (30, 500), (1000, 999), (56, 57)):
        once = prepare.input_size(processor, Image.new("RGB", size))
        assert prepare.input_size(processor, Image.new("RGB", once)) == once


def test_a_wrong_data_set_is_one_line(qwen25_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLES / "prepare.py", "trl", "--data", tmp_path / "none", "--model", qwen25_folder]
    found = subprocess.run([*command, "--out", tmp_path], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith("error: ") and "no such file or folder" in found.stderr


def test_the_model_that_ships_has_a_name_and_one_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = load(EXAMPLES / "prepare.py")
    options = ["prepare.py", "trl", "--data", "bccd", "--out", str(tmp_path), "--limit", "1", "--model"]
    monkeypatch.setattr(sys, "argv", [*options, "tiny"])
    prepare.main()
    row = json.loads((tmp_path / "train.jsonl").read_text(encoding="utf-8"))
    with Image.open(row["image"]) as image:
        assert image.width % 40 == image.height % 40 == 0  # its patches are 20 pixels, merged by two
    monkeypatch.setattr(sys, "argv", [*options, str(tmp_path / "none")])
    with pytest.raises(DataError, match=r"--model .*none: no image processor"):
        prepare.main()


@pytest.mark.parametrize("host", HOSTS)
def test_every_host_has_a_recipe_that_says_what_was_run(host: str) -> None:
    text = (EXAMPLES / host / "README.md").read_text(encoding="utf-8")
    assert "**What was run:**" in text
    assert f"examples/prepare.py {host}" in text
    for script in (EXAMPLES / host).glob("*.sh"):
        subprocess.run(["bash", "-n", script], check=True)
