"""The plan's memory against what a step really takes, for four families and the ways to train them.

    python benchmarks/plan.py [--quick FAMILY ...]

Random models of 40 to 110 MB, on a CPU. Each cell is a process of its own that trains two steps by the trainer's own
code. The second one is measured: the bytes of all tensors that are alive before it, and the highest sum of what torch's
allocator hands out and gets back in it, as torch's profiler records it (temporaries inside kernels included; Python and
libraries are in neither number). Predicted is the plan's peak of the same recipe, made without the weights. Completions
are all as long as they may get. `over held` compares what the step adds to weights, reference and moments alone. The
last line is a JSON object.
"""

import argparse
import gc
import json
import multiprocessing
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the random models of the tests
from support.family_builder import Shape, build_family
from support.family_shapes import SHAPES
from support.random_models import build_qwen3, build_qwen25
from visionr1.training.batches import prepared_batches
from visionr1.training.distributed import make_accelerator
from visionr1.training.planning.machine import measure_cpu
from visionr1.training.planning.plan import plan
from visionr1.training.planning.simulation import HELD
from visionr1.training.recipe import Recipe, parse_recipe
from visionr1.training.schedule import num_steps
from visionr1.training.stream import open_stream
from visionr1.training.train import start, take_step

MIB = 2**20
TEXT = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4}
TOWER = {"hidden_size": 256, "out_hidden_size": 512, "intermediate_size": 768, "image_size": 160}
TOWER |= {"num_hidden_layers": 4, "depth": 4}
LARGER_IMAGES: dict[str, dict[str, Any]] = {
    "qwen3_5": {"size": {"shortest_edge": 400, "longest_edge": 102_400}},
    "gemma3": {"size": {"height": 160, "width": 160}},
    "smolvlm": {"size": {"longest_edge": 480}, "max_image_size": {"longest_edge": 160}},
}
FAMILIES = ("qwen2_5_vl", "smolvlm", "qwen3_5", "gemma3")
LORA = {"lora": {"rank": 16}}
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "full, checkpointing": {"model": {"gradient_checkpointing": True}},
    "LoRA": LORA,
    "LoRA, checkpointing": {**LORA, "model": {"gradient_checkpointing": True}},
    "frozen tower": {"model": {"freeze_vision": True}},
    "frozen tower, checkpointing": {"model": {"freeze_vision": True, "gradient_checkpointing": True}},
    "full, bfloat16 weights": {"model": {"dtype": "bfloat16"}},
    "full, bfloat16 autocast": {"model": {"autocast": "bfloat16"}},
    "full, supervised": {"method": "sft"},
}


def build_model(family: str, root: Path) -> Path:
    """Build a random model of a family, wide enough for the interpreter's own bytes not to matter."""
    like = build_qwen3(root / "like", width=64, layers=2)
    folder = root / family
    if family == "qwen2_5_vl":
        return build_qwen25(folder, like, width=512, layers=4)
    shape: Shape = SHAPES[family]
    config = dict(shape.config)
    for part, sizes in (("text_config", TEXT), ("vision_config", TOWER)):
        known = config.get(part) or {}
        names = _keys(shape, part)
        config[part] = {**known, **{name: size for name, size in sizes.items() if name in names}}
        if "layer_types" in known:  # one for each of the layers
            config[part]["layer_types"] = list(known["layer_types"]) * (4 // len(known["layer_types"]))
    processor = {**shape.image_processor, **LARGER_IMAGES[family]}
    return build_family(folder, like, replace(shape, config=config, image_processor=processor))


def _keys(shape: Shape, part: str) -> set[str]:
    """Return the names that a part of a family's configuration has."""
    from transformers import AutoConfig

    return set(AutoConfig.for_model(shape.model_type).to_dict()[part])


def make_recipe(folder: Path, tables: dict[str, Any]) -> Recipe:
    """Return the recipe of a cell: two images of 320x320, four completions of 32 tokens."""
    recipe: dict[str, Any] = {
        "data": [{"source": "scenes", "scenes": {"width": 320, "height": 320, "max_objects": 2}}],
        "train": {"batch_size": 2, "steps": 2, "learning_rate": 1e-6},
        "optimizer": {"tokens_per_forward": 2048},
        "rollout": {"group_size": 4, "max_new_tokens": 32},
        **tables,
    }
    recipe["model"] = {"path": str(folder), "dialect": "qwen3", **tables.get("model", {})}
    return parse_recipe(recipe)


def measure_peak(recipe: Recipe, run_dir: Path) -> float:
    """Return the bytes at the peak of the second step of a run."""
    accelerator = make_accelerator("cpu")
    (phase,) = recipe.phases
    stream = open_stream(phase, (recipe.seed, 0))
    run = start(recipe, run_dir, accelerator, {}, resume=False)
    # No completion ends early.
    run.policy.suppressed_ids = torch.cat((run.policy.suppressed_ids, torch.tensor(run.policy.eos_ids)))

    steps = num_steps(phase, stream)
    batches = prepared_batches(run.learner, stream, range(steps), rank=0, world_size=1, workers=0)
    take_step(run, phase, steps, batches, [])
    gc.collect()
    held = live_bytes()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        take_step(run, phase, steps, batches, [])

    # Each event is what the allocator handed out, or got back.
    events = []
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            events.append((event.start_ns(), event.nbytes()))
    now = peak = held
    for _, size in sorted(events, key=lambda event: event[0]):
        now += size
        peak = max(peak, now)
    return peak


def live_bytes() -> int:
    """Return the bytes of all tensors there are."""
    sizes = {}
    for item in gc.get_objects():
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def compare(folder: Path, tables: dict[str, Any]) -> dict[str, float]:
    """Return predicted and measured MiB of a cell, and their ratios."""
    recipe = make_recipe(folder, tables)
    parts = plan(recipe, measure_cpu()).processes[0].parts
    predicted = sum(size for part, size in parts.items() if part != "Python and libraries")
    held = sum(parts.get(part, 0.0) for part in HELD if part != "gradients")
    with tempfile.TemporaryDirectory() as name:
        measured = measure_peak(recipe, Path(name) / "run")
    return {
        "predicted": predicted / MIB,
        "measured": measured / MIB,
        "ratio": predicted / measured,
        "over_held": (predicted - held) / (measured - held),
    }


def main() -> None:
    """Compare all cells, print a line each and the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", nargs="+", choices=FAMILIES, metavar="FAMILY", help="these alone")
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), metavar="CASE", help="these ways alone")
    args = parser.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{'family':<12} {'case':<28} {'predicted':>10} {'measured':>10} {'ratio':>7} {'over held':>10}   (MiB)")
    with tempfile.TemporaryDirectory() as name:
        for family in args.quick or FAMILIES:
            folder = build_model(family, Path(name) / family)
            results[family] = {}
            for case in args.cases or CASES:
                with multiprocessing.get_context("fork").Pool(1) as process:
                    figures = process.apply(compare, (folder, CASES[case]))
                results[family][case] = figures
                row = f"{figures['predicted']:10.1f} {figures['measured']:10.1f} {figures['ratio']:7.3f}"
                print(f"{family:<12} {case:<28} {row} {figures['over_held']:10.3f}", flush=True)
    ratios = [figures["ratio"] for cells in results.values() for figures in cells.values()]
    print(json.dumps({"cells": results, "lowest": min(ratios), "highest": max(ratios)}))


if __name__ == "__main__":
    main()
