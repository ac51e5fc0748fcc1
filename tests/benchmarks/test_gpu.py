"""benchmarks/gpu.py: its shapes are those that the cost model counts, and it measures what it says, here on a CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig

from support.benchmark_programs import load_benchmark
from support.random_models import build_speed_model

cost, gpu, vs_trl = (load_benchmark(name) for name in ("cost", "gpu", "vs_trl"))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_speed_model(tmp_path_factory.mktemp("gpu") / "parts")


def weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim > 1)


@pytest.mark.parametrize("shape", ["tiny", "3b", "7b"])
def test_the_cost_model_counts_these_weights(parts: Path, shape: str) -> None:
    config = gpu.make_config(shape, AutoConfig.from_pretrained(parts, trust_remote_code=False))
    counted, text = cost.SHAPES[gpu.COSTS[shape]], config.text_config
    with torch.device("meta"):
        model = gpu.Qwen25._from_config(config)
    decoder, tower = model.model.get_decoder(), model.model.visual
    assert weights(decoder.layers) == pytest.approx(counted.text, rel=0.01)
    assert weights(model.lm_head) == pytest.approx(counted.head, rel=0.01)
    assert weights(tower.blocks) == pytest.approx(config.vision_config.depth * weights(tower.blocks[0]))
    per_patch = weights(tower.blocks) + weights(tower.patch_embed) + weights(tower.merger) / cost.PATCHES
    assert per_patch == pytest.approx(counted.vision, rel=0.05)
    assert counted.attention == 4 * text.num_hidden_layers * text.hidden_size  # two products, of two FLOPs each
    assert config.tie_word_embeddings == (shape == "3b")


def test_a_cell_is_measured(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vs_trl, "IMAGE_SIDE", 28 * 4)
    cell = gpu.Cell("tiny", image_tokens=16, length=4, group_size=2, prompts=2, steps=1, device="cpu")
    found = gpu.measure(cell, parts, vs_trl.write_images(tmp_path / "data"), 0.5, tmp_path / "model")
    assert (tmp_path / "model/config.json").is_file()
    seconds: dict[str, Any] = found["seconds"]
    assert set(seconds) == {"preprocess", "rollout eager", "update stacked"} == set(found["peak_gib"])
    assert all(value > 0 for value in seconds.values())
    assert found["tokens_per_second"]["rollout eager"] == pytest.approx(2 * 2 * 4 / seconds["rollout eager"])
    assert found["update_mfu"]["update stacked"] == pytest.approx(found["update_tflops"]["update stacked"] / 0.5)
    assert 30 < found["prompt_tokens"] - 16 < 100
    assert 1 < found["cost_model_ratio"]["update"] < 2


def test_without_a_tower_or_a_weight_s_gradient_there_is_less_to_compute() -> None:
    def update(trains: str) -> float:
        return cost.step(cost.SHAPES["7b"], 500, 600, 8, 256, shared=True, trains=trains)["update"]

    forward = cost.forward(cost.SHAPES["7b"], 1, 8, 500, 600, 256)
    assert update("all") == pytest.approx(3 * forward.total)
    assert update("language") == pytest.approx(3 * (forward.total - forward.vision))
    assert update("adapters") == pytest.approx(2 * (forward.text + forward.scored) + 3 * forward.attention)
