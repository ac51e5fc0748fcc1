"""Plans of small models: that they are what a step takes, that they move the way they must, and what they advise."""

from pathlib import Path
from typing import Any

import pytest

from support.more_shapes import build_by_name
from support.random_models import build_qwen3
from visionr1.errors import CheckpointError, RecipeError
from visionr1.rollout.eager import Decoder
from visionr1.training.distributed import Sharding
from visionr1.training.planning.changes import find_changes
from visionr1.training.planning.engine import CACHE
from visionr1.training.planning.machine import GIB, Machine, assume_gpu
from visionr1.training.planning.plan import Planner
from visionr1.training.planning.processes import Layout
from visionr1.training.planning.text import format_plan, plan_to_json
from visionr1.training.recipe import Recipe, parse_recipe

GPU = assume_gpu(80, 400, 2.5)
IMAGE = (64, 48)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_qwen3(tmp_path_factory.mktemp("models") / "qwen", width=64, layers=2, pixels=4096)
    (folder / "model.safetensors").unlink()  # a plan needs no weights
    return folder


@pytest.fixture(scope="module")
def planner() -> Planner:
    return Planner(GPU, IMAGE)


def make_recipe(folder: Path, **tables: Any) -> Recipe:
    return parse_recipe(
        {
            "train": {"steps": 10, "batch_size": 4},
            "optimizer": {"tokens_per_forward": 256},
            "rollout": {"group_size": 2, "max_new_tokens": 40},
            **tables,
            "model": {"path": str(folder), **tables.get("model", {})},
        }
    )


def test_weights_gradients_moments_and_reference_are_those_of_the_parameters(qwen: Path, planner: Planner) -> None:
    plan = planner.plan(make_recipe(qwen), Layout())
    parts = plan.phases[-1].memory  # of the optimizer's step
    size = 4 * plan.num_parameters
    assert plan.num_trainable == plan.num_parameters > 10_000
    for part, times in (("gradients", 1), ("optimizer state", 2)):
        assert parts[part] == pytest.approx(times * size, rel=1e-3)
    for part in ("weights", "reference"):  # with their buffers
        assert size <= parts[part] < 1.02 * size
    assert {"4-bit weights", "float32 copies"}.isdisjoint(parts)


def test_no_reference_is_held_without_kl_or_beside_adapters(qwen: Path, planner: Planner) -> None:
    for tables in ({"grpo": {"beta": 0.0}}, {"lora": {"rank": 4}}):
        assert "reference" not in planner.plan(make_recipe(qwen, **tables), Layout()).processes[0].parts


def test_less_is_never_more(qwen: Path, planner: Planner) -> None:
    full = planner.plan(make_recipe(qwen), Layout())
    for tables in (
        {"lora": {"rank": 4}},
        {"model": {"freeze_vision": True}},
        {"model": {"gradient_checkpointing": True}},
        {"grpo": {"beta": 0.0}},
        {"optimizer": {"tokens_per_forward": 128}},
        {"optimizer": {"tokens_per_forward": 256, "name": "adamw_8bit"}},
        {"optimizer": {"tokens_per_forward": 256, "offload": True}},
        {"model": {"offload_reference": True}},
        {"method": "sft"},
    ):
        assert planner.plan(make_recipe(qwen, **tables), Layout()).changeable < full.changeable, tables
    longer = planner.plan(make_recipe(qwen, rollout={"group_size": 2, "max_new_tokens": 80}), Layout())
    assert longer.phases[1].memory[CACHE] > full.phases[1].memory[CACHE]


def test_a_base_of_4_bits_takes_an_eighth_of_its_matrices(qwen: Path, planner: Planner) -> None:
    plans = []
    for quantization in ("none", "nf4"):
        recipe = make_recipe(qwen, lora={"rank": 4}, model={"quantization": quantization})
        plans.append(planner.plan(recipe, Layout()).phases[-1].memory)
    whole, quantized = plans
    ratio = quantized["4-bit weights"] / (whole["weights"] - quantized["weights"])
    assert ratio == pytest.approx(4.127 / 32, rel=1e-3)
    assert 0 < quantized["weight made of 4 bits"] < whole["weights"] - quantized["weights"]


def test_checkpointing_computes_more(qwen: Path, planner: Planner) -> None:
    flops = []
    for checkpointing in (False, True):
        plan = planner.plan(make_recipe(qwen, model={"gradient_checkpointing": checkpointing}), Layout())
        (update,) = [phase for phase in plan.phases if phase.name == "update"]
        flops.append(update.flops)
    assert 1.15 * flops[0] < flops[1] < 1.34 * flops[0]


@pytest.mark.parametrize("sharding", ["fsdp2", "zero2"])
def test_more_gpus_are_never_more_memory_on_each(sharding: Sharding, qwen: Path, planner: Planner) -> None:
    peaks = [planner.plan(make_recipe(qwen), Layout(gpus, sharding)).changeable for gpus in (2, 4)]
    assert peaks[1] < peaks[0]


def test_replicas_hold_their_gradients_twice(qwen: Path, planner: Planner) -> None:
    plan = planner.plan(make_recipe(qwen), Layout(2))
    parts = plan.phases[-1].memory
    assert parts["all-reduce buckets"] == pytest.approx(parts["gradients"], rel=1e-3)
    assert plan.num_samples == 2


def test_shards_refuse_what_the_trainer_refuses(qwen: Path, planner: Planner) -> None:
    with pytest.raises(RecipeError, match=r"model\.dtype: in shards \(FSDP2\)"):
        planner.plan(make_recipe(qwen, model={"dtype": "bfloat16"}), Layout(2, "fsdp2"))
    with pytest.raises(RecipeError, match=r"train\.batch_size"):
        planner.plan(make_recipe(qwen), Layout(8))


def test_every_change_that_is_advised_helps_and_the_last_one_makes_it_fit(qwen: Path) -> None:
    base = Planner(GPU, IMAGE).plan(make_recipe(qwen), Layout())
    # Just short of what the run takes.
    small = assume_gpu((base.peak - 0.3 * base.changeable) / GIB, 400, 2.5)
    planner = Planner(small, IMAGE)
    base = planner.plan(make_recipe(qwen), Layout())
    assert not base.fits
    changes = find_changes(planner, base)
    peaks = [base.peak, *(change.plan.peak for change in changes)]
    assert len(changes) > 1
    assert peaks == sorted(peaks, reverse=True) and len(set(peaks)) == len(peaks)
    assert changes[-1].plan.fits and not any(change.plan.fits for change in changes[:-1])
    names = [change.name for change in changes]
    assert names[0].startswith(("--set optimizer.tokens_per_forward", "--set rollout", "--set model.gradient"))


def test_a_generic_model_and_supervised_training(tmp_path: Path, qwen: Path, planner: Planner) -> None:
    folder = build_by_name(tmp_path / "gemma", build_qwen3(tmp_path / "like", width=64, layers=2), "gemma3")
    plan = planner.plan(make_recipe(folder, model={"dialect": "qwen3"}), Layout())
    assert plan.path == "generic" and "scoring" in [phase.name for phase in plan.phases]
    supervised = planner.plan(make_recipe(qwen, method="sft"), Layout())
    assert [phase.name for phase in supervised.phases] == ["images", "update", "optimizer"]


def test_vllm_takes_its_share_in_every_phase(qwen: Path, planner: Planner) -> None:
    rollout = {"group_size": 2, "max_new_tokens": 40, "engine": "vllm", "vllm_memory": 0.25}
    plan = planner.plan(make_recipe(qwen, rollout=rollout), Layout())
    for phase in plan.phases:
        if phase.memory:
            assert phase.memory["vLLM"] == 20 * GIB
            assert CACHE not in phase.memory


def test_vllm_asleep_takes_its_share_while_sampling_alone(qwen: Path, planner: Planner) -> None:
    rollout = {"group_size": 2, "max_new_tokens": 40, "engine": "vllm", "vllm_memory": 0.25, "vllm_sleep": True}
    plan = planner.plan(make_recipe(qwen, rollout=rollout), Layout())
    with_vllm = [phase.name for phase in plan.phases if "vLLM" in phase.memory]
    assert with_vllm == ["rollout"] and len([phase for phase in plan.phases if phase.memory]) > 2


def test_what_samples_elsewhere_takes_no_memory_here(qwen: Path, planner: Planner) -> None:
    rollout = {"group_size": 2, "max_new_tokens": 40}
    here = planner.plan(make_recipe(qwen, rollout={**rollout, "engine": "vllm"}), Layout())
    server = {**rollout, "engine": "vllm_server", "server": "http://host"}
    plan = planner.plan(make_recipe(qwen, rollout=server), Layout())
    assert not any("vLLM" in phase.memory for phase in plan.phases)
    assert plan.phases[1].seconds == here.phases[1].seconds
    assert any("server's memory is not counted" in text for text in plan.assumptions)


def test_an_engine_with_a_copy_has_no_weights_put_together_for_it(qwen: Path, planner: Planner) -> None:
    rollout = {"group_size": 2, "max_new_tokens": 40}
    part = "weights put together"
    own = planner.plan(make_recipe(qwen, rollout=rollout), Layout(2, "fsdp2")).phases[1].memory
    recipe = make_recipe(qwen, rollout={**rollout, "engine": "vllm"})
    assert part in own and part not in planner.plan(recipe, Layout(2, "fsdp2")).phases[1].memory

    # A frozen tower encodes the images of a step whole.
    frozen = recipe.with_changes(model=recipe.model.with_changes(freeze_vision=True))
    assert 0 < planner.plan(frozen, Layout(2, "fsdp2")).phases[1].memory[part] < own[part]


def test_guesses_count_for_memory_alone(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flops = []
    memory = []
    for most_guesses in (8, 0):
        monkeypatch.setattr(Decoder, "most_guesses", most_guesses)
        rollout = Planner(GPU, IMAGE).plan(make_recipe(qwen), Layout()).phases[1]
        flops.append(rollout.flops)
        memory.append(sum(rollout.memory.values()))
    assert flops[0] == pytest.approx(flops[1], rel=1e-6)
    assert memory[0] > memory[1]


@pytest.mark.parametrize(
    ("tables", "layout", "name"),
    [
        ({"offload_reference": True}, Layout(), "--set lora.rank=16 --set model.offload_reference=false"),
        (
            {"dtype": "bfloat16"},
            Layout(2),
            "FSDP2 over the 2 GPUs (examples/accelerate/fsdp2.yaml) --set model.dtype=float32",
        ),
    ],
)
def test_a_change_names_what_it_takes_back(
    tables: dict[str, Any], layout: Layout, name: str, qwen: Path, planner: Planner
) -> None:
    changes = find_changes(planner, planner.plan(make_recipe(qwen, model=tables), layout))
    assert name in [change.name for change in changes]


def test_data_workers_are_processes_of_their_own(qwen: Path, planner: Planner) -> None:
    plan = planner.plan(make_recipe(qwen, workers=3), Layout(2))
    worker = plan.processes[1]
    assert (worker.name, worker.number, worker.where) == ("data worker", 6, "CPU")


def test_what_cannot_be_planned_is_named(tmp_path: Path, planner: Planner) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        planner.plan(make_recipe(tmp_path / "nowhere"), Layout())
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RecipeError, match="holds adapters"):
        planner.plan(make_recipe(tmp_path), Layout())
    with pytest.raises(RecipeError, match="tiny-random"):
        planner.plan(make_recipe(Path("tiny-random")), Layout())


def test_a_plan_in_words_and_as_an_object(qwen: Path) -> None:
    machine = Machine("GPU of 1 GiB", True, float(GIB), 1e12, 4e12, 1e12, ("this and that",))
    plan = Planner(machine, IMAGE).plan(make_recipe(qwen), Layout(2))
    text = format_plan(plan, None)
    assert "qwen3_vl, packed path" in text
    assert "step     2 samples x 2 completions a process, in 1 micro-batches" in text
    assert "memory of each of 2 training processes, GPU, GiB (highest in the " in text
    assert f"it does not fit: {plan.peak / GIB:.2f} GiB of 1.00" in text
    assert text.endswith("  - this and that")
    record = plan_to_json(plan, [])
    assert record["fits"] is False and record["changes"] == []
    assert sum(record["processes"][0]["parts"].values()) == record["peak"]
