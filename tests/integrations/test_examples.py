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

from support.more_shapes import build_by_name
from visionr1.data import read_source
from visionr1.errors import CheckpointError, DataError, ImageRefused
from visionr1.integrations import from_json
from visionr1.models.loading import load_encoder, load_policy
from visionr1.samples import Query

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
    prepare = load(EXAMPLES / "prepare.py")
    policy = load_encoder(qwen25_folder)
    policy.image_processor.size = {"shortest_edge": 1600, "longest_edge": 14400}
    bounded = load_encoder(qwen25_folder, max_pixels=12800)
    query = Query("detection", ("cat",))
    for size in ((640, 480), (30, 500), (1000, 999), (56, 57)):
        width, height = prepare.input_size(bounded, policy, Image.new("RGB", size), query)
        assert width * height <= 12800 or size == (30, 500)  # whose short side is rounded up to a patch
        assert policy.encode(Image.new("RGB", (width, height)), query).input_size_wh == (width, height)


def test_ms_swift_is_told_no_second_bound() -> None:
    """case_02: MAX_PIXELS in train.sh fed 728x532 of a row that said 1036x756; a perfect reply scored 1 of 3."""
    for script in EXAMPLES.glob("*/*.sh"):
        commands = [line for line in script.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        assert "MAX_PIXELS" not in "\n".join(commands)


def prepare_rows(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> list[dict[str, Any]]:
    """Return the rows that prepare.py writes for verl."""
    monkeypatch.setattr(sys, "argv", ["prepare.py", "verl", *map(str, arguments)])
    load(EXAMPLES / "prepare.py").main()
    out = Path(str(arguments[arguments.index("--out") + 1]))
    return [json.loads(line) for line in (out / "train.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_dialect_and_the_size_are_those_of_the_model(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """case_03: rows for a Qwen3-VL folder said qwen25; InternVL and SmolVLM ended in a KeyError."""
    options = ("--data", "bccd", "--model", model_folder, "--out", tmp_path, "--limit", 1, "--max-pixels", 12800)
    (row,) = prepare_rows(monkeypatch, *options)
    assert "no image is stored with more than 12,800 pixels" in capsys.readouterr().out
    policy = load_policy(model_folder)
    truth = from_json(row["reward_model"]["ground_truth"])
    assert truth.dialect == policy.dialect.name
    with Image.open(row["images"][0]) as image:
        assert image.width * image.height <= 12800
        if policy.dialect.in_model_px:
            assert policy.encode(image, Query("detection", ("cat",))).input_size_wh == image.size


def test_models_without_a_dialect_are_refused_in_words(
    qwen3_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_by_name(tmp_path / "llava", qwen3_folder, "llava")
    options = ("--data", "bccd", "--model", folder, "--out", tmp_path / "rows", "--limit", 1)
    assert prepare_rows(monkeypatch, *options)
    (folder / "visionr1.json").unlink()
    with pytest.raises(CheckpointError, match="does not say how its model writes boxes"):
        prepare_rows(monkeypatch, *options)


def test_an_image_that_the_model_cannot_take_is_named(
    qwen25_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """case_07: a ratio of 200.5 was a traceback that named no image."""
    Image.new("RGB", (2, 401)).save(tmp_path / "thin.png")
    data = {
        "images": [{"id": 1, "file_name": "thin.png", "width": 2, "height": 401}],
        "annotations": [],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "data.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ImageRefused, match=r"sample .*thin\.png.*2x401 pixels cannot be fed to the model"):
        prepare_rows(
            monkeypatch, "--data", tmp_path / "data.json", "--model", qwen25_folder, "--out", tmp_path / "rows"
        )


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
    with pytest.raises(DataError, match=r"--model .*none: no such folder, and no such model on the hub"):
        prepare.main()


@pytest.mark.parametrize("host", HOSTS)
def test_every_host_has_a_recipe_that_says_what_was_run(host: str) -> None:
    text = (EXAMPLES / host / "README.md").read_text(encoding="utf-8")
    assert "**What was run:**" in text
    assert f"examples/prepare.py {host}" in text
    for script in (EXAMPLES / host).glob("*.sh"):
        subprocess.run(["bash", "-n", script], check=True)
