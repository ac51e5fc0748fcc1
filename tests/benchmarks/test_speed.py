"""What the speed benchmarks compute and set: the cost model's limits, both sides' settings, the ratios."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.benchmark_programs import load_benchmark
from visionr1.data import data_path, read_coco
from visionr1.models.loading import load_policy

cost, vs_trl = load_benchmark("cost"), load_benchmark("vs_trl")
SHAPES = cost.SHAPES
WORK = vs_trl.Work("tiny", "bccd", group_size=8, length=64, forced=True, beta=0.04, steps=2, threads=1)
TEXT_ALONE = cost.Shape(text=1e6, head=0, vision=0, attention=0)


@pytest.mark.parametrize(("group", "length"), [(4, 64), (8, 256), (16, 512)])
def test_without_tower_head_and_attention_the_ratio_is_that_of_tokens(group: int, length: int) -> None:
    alone, shared = (cost.step(TEXT_ALONE, 256, 300, group, length, shared=way) for way in (False, True))
    for phase in ("reference", "update", "rollout"):
        assert alone[phase] / shared[phase] == pytest.approx(group * (300 + length) / (300 + group * length))
    assert alone["of it prefill"] / shared["of it prefill"] == pytest.approx(group)


@pytest.mark.parametrize("name", SHAPES)
def test_one_completion_shares_nothing_and_the_limit_is_the_group(name: str) -> None:
    assert cost.step(SHAPES[name], 256, 300, 1, 64, shared=False) == cost.step(
        SHAPES[name], 256, 300, 1, 64, shared=True
    )
    alone, shared = (cost.step(SHAPES[name], 50_000, 60_000, 8, 1, shared=way) for way in (False, True))
    assert 7.9 < alone["update"] / shared["update"] < 8


def test_both_sides_take_the_same_step() -> None:
    policy = load_policy("tiny")
    ours, theirs = vs_trl.our_recipe(WORK), vs_trl.trl_settings(WORK, policy, "folder")
    (phase,) = ours.phases
    assert theirs["per_device_train_batch_size"] == phase.batch_size * ours.rollout.group_size
    assert theirs["num_generations"] == ours.rollout.group_size == WORK.group_size
    assert theirs["max_completion_length"] == ours.rollout.max_new_tokens == WORK.length
    assert (theirs["beta"], theirs["learning_rate"]) == (ours.grpo.beta, phase.learning_rate)
    assert (theirs["temperature"], theirs["weight_decay"]) == (ours.rollout.temperature, ours.optimizer.weight_decay)
    assert (theirs["max_grad_norm"], theirs["max_steps"]) == (ours.optimizer.max_grad_norm, phase.steps)
    assert (ours.model.dtype, ours.model.autocast, theirs["bf16"]) == ("float32", "none", False)
    assert (ours.model.gradient_checkpointing, theirs["gradient_checkpointing"]) == (False, False)
    assert ours.grpo.mean_over == "completion" and theirs["loss_type"] == "grpo"
    assert theirs["generation_kwargs"]["suppress_tokens"] == policy.suppressed_ids.tolist()


def test_a_ratio_is_the_median_over_neighbouring_steps() -> None:
    def steps(*seconds: float) -> list[dict[str, float]]:
        parts = ("step", "rollout", "update", "cpu")
        return [{**dict.fromkeys(parts, value), "length": 64.0, "peak_gib": value} for value in seconds]

    both = {"trl": steps(10, 30, 8), "ours": steps(2, 3, 4)}
    result = vs_trl.summary(replace(WORK, steps=3), both, 1e-6, 300)
    assert result["step_ratio"] == 5  # of 5, 10 and 2
    assert result["trl"]["step"] == 10 and result["ours"]["step"] == 3
    assert result["memory_ratio"] == 2  # peaks at the end


def test_the_workload_s_images_are_read_as_they_were_written(tmp_path: Path) -> None:
    samples = read_coco(data_path(vs_trl.write_images(tmp_path / "data")), split="train").samples
    assert len(samples) == vs_trl.NUM_IMAGES >= vs_trl.NUM_PROMPTS
    found: list[Any] = [(sample.size_wh, len(sample.truth)) for sample in samples]
    assert found == vs_trl.NUM_IMAGES * [((vs_trl.IMAGE_SIDE, vs_trl.IMAGE_SIDE), 3)]


def test_checksums_tell_replies_apart() -> None:
    values = {vs_trl.checksum(text) for text in ("", "a", "b", "ab", "ba")}
    assert len(values) == 5 and all(0 <= value <= 1 for value in values)
