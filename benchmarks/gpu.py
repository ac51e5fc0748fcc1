"""A GRPO step of Qwen2.5-VL-3B and -7B shapes on one GPU: seconds by phase, tokens, FLOPs, memory, and TRL beside it.

    python benchmarks/gpu.py --quick                                3B, images of 484 tokens, one card of 140 GiB
    python benchmarks/gpu.py                                        3B and 7B, images of 484 and 1,024 tokens
    python benchmarks/gpu.py --shape tiny --device cpu --quick      that it works, anywhere, in a minute

Weights are random and made on the device in bfloat16 (float32 on a CPU), tokenizer and images are made here: nothing is
downloaded. 3B trains all its weights; 7B, whose weights, float32 copies and moments would take 133 GB, has adapters of
rank 64 and a frozen tower. Four prompts a step, groups of 8, replies of a forced length of 256 tokens, no reference, no
gradient checkpointing. A reply's checksum is added to its reward, so that every group has a gradient.

Each step samples with every engine and updates with every kernel of attention, in turn; the first step compiles and is
not counted. The update's FLOPs are what the model must compute by benchmarks/cost.py; `update_mfu` is their share of
the card's peak in bfloat16. TRL, where it is installed, trains the same full model (float32 weights under bfloat16
autocast) afterwards, in a process of its own, one group a pass. The last line is a JSON object.
"""

import argparse
import gc
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cost
import torch
import vs_trl
from torch import nn
from transformers import AutoConfig, AutoTokenizer, Qwen2_5_VLConfig
from transformers import Qwen2_5_VLForConditionalGeneration as Qwen25

from visionr1.dialects import get_dialect
from visionr1.models.attention import tree as tree_attention
from visionr1.models.families import FAMILIES
from visionr1.models.loading import share_prefixes
from visionr1.models.policy import Policy
from visionr1.models.saving import save_policy
from visionr1.models.trainable import make_trainable
from visionr1.rollout.compiled import CompiledDecoder
from visionr1.rollout.eager import generate
from visionr1.rollout.engine import RolloutEngine
from visionr1.training.learners import GroupWork, Reinforced
from visionr1.training.optimizers import Optimizer, make_optimizer
from visionr1.training.recipe import Recipe, parse_recipe
from visionr1.training.stream import open_stream

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the random models of the tests
from support.random_models import build_speed_model

PEAK_TFLOPS = {"H200": 989, "H100": 989, "B200": 2250, "A100": 312, "L40S": 362}
"""Of dense products in bfloat16, by a part of the card's name."""
SIZES: dict[str, dict[str, Any]] = {
    "3b": {
        "text_config": {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
        },
        "tie_word_embeddings": True,
    },
    "7b": {
        "text_config": {
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
        "tie_word_embeddings": False,
    },
}
COSTS = {"tiny": "7m", "3b": "3b", "7b": "7b"}
LORA_RANK = {"7b": 64}
GROUP_SIZE, PROMPTS, LENGTH, STEPS = 8, 4, 256, 4
IMAGE_SIDES = [22, 32]
"""In image tokens."""
KERNELS = {"stacked": 10**9, "blocks": 0}
"""Of attention, by the tokens from which a row attends by blocks."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement."""

    shape: str
    image_tokens: int
    """A square of 28 x 28 pixels each."""
    length: int
    group_size: int
    prompts: int
    steps: int
    device: str

    @property
    def trains(self) -> cost.Trains:
        """Which weights train."""
        return "adapters" if self.shape in LORA_RANK else "all"

    @property
    def kernels(self) -> list[str]:
        """Block-sparse attention has a backward pass on a GPU alone."""
        return list(KERNELS) if self.device != "cpu" else ["stacked"]


def make_config(shape: str, like: Any) -> Any:
    """The configuration of a shape, with the special tokens of the configuration `like`, which is that of "tiny"."""
    if shape not in SIZES:
        return like
    sizes = SIZES[shape]
    return Qwen2_5_VLConfig(
        text_config={
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            "eos_token_id": like.text_config.eos_token_id,
            **sizes["text_config"],
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": sizes["text_config"]["hidden_size"],
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        tie_word_embeddings=sizes["tie_word_embeddings"],
        **{name: value for name, value in like.to_dict().items() if name.endswith("_token_id")},
    )


def make_policy(shape: str, folder: Path, device: str) -> Policy:
    """A model of random weights, made on the device, with the tokenizer and image processor in `folder`."""
    config = make_config(shape, AutoConfig.from_pretrained(folder, trust_remote_code=False))
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen25._from_config(config, dtype=torch.float32 if device == "cpu" else torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return share_prefixes(model, folder, FAMILIES.known("qwen2_5_vl"), get_dialect("qwen25"))


def make_recipe(cell: Cell, data: str) -> Recipe:
    """The step's settings."""
    return parse_recipe(
        {
            "model": {"device": cell.device, "dtype": "float32" if cell.device == "cpu" else "bfloat16"},
            "lora": {"rank": LORA_RANK.get(cell.shape, 0)},
            "data": [{"source": data}],
            "train": {"batch_size": cell.prompts, "learning_rate": 1e-6},
            "rollout": {"group_size": cell.group_size, "max_new_tokens": cell.length},
            "grpo": {"beta": 0.0},
        }
    )


class Meter:
    """Seconds and peak memory of parts of a step."""

    def __init__(self, device: str) -> None:
        self.on_gpu = device != "cpu"
        self.seconds: dict[str, list[float]] = {}
        self.peaks: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Measure what runs inside as `part`."""
        if self.on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        yield
        if self.on_gpu:
            torch.cuda.synchronize()
        self.seconds.setdefault(part, []).append(time.perf_counter() - began)
        unit = 1 if sys.platform == "darwin" else 1024
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        used = torch.cuda.max_memory_allocated() if self.on_gpu else resident
        self.peaks[part] = max(self.peaks.get(part, 0.0), used / 2**30)


@contextmanager
def attending(kernel: str, device: str) -> Iterator[None]:
    """Rows of any length attend this way."""
    before = dict(tree_attention.LONG_ROW)
    tree_attention.LONG_ROW[torch.device(device).type] = KERNELS[kernel]
    yield
    tree_attention.LONG_ROW.clear()
    tree_attention.LONG_ROW.update(before)


class Told(Reinforced):
    """A learner whose rewards tell replies of random weights apart."""

    def score(self, question: Any, completions: Any, stage: Any) -> Any:
        scores = super().score(question, completions, stage)
        pairs = zip(scores, completions, strict=True)
        return [replace(score, total=score.total + vs_trl.checksum(reply.text)) for score, reply in pairs]


def update(learner: Reinforced, optimizer: Optimizer, work: list[GroupWork]) -> None:
    """Gradient of every part, clipped, and one step."""
    for part in work:
        learner.loss(part)[0].backward()
    nn.utils.clip_grad_norm_([p for p in learner.policy.model.parameters() if p.grad is not None], 1.0)
    for parameters in optimizer.param_groups:
        parameters["lr"] = 1e-6
    optimizer.step()
    optimizer.zero_grad()


def measure(cell: Cell, folder: Path, data: str, peak_tflops: float | None, save: Path | None) -> dict[str, Any]:
    """Steps of one shape and image size: medians, and what they come to. The model is saved first where asked."""
    policy = make_policy(cell.shape, folder, cell.device)
    if save:
        save_policy(policy, save)
    policy.suppressed_ids = torch.cat((policy.suppressed_ids, torch.tensor(policy.eos_ids, device=cell.device)))
    recipe = make_recipe(cell, data)
    make_trainable(policy, recipe.model, recipe.lora)
    policy.model.eval()
    engines: dict[str, RolloutEngine] = {"eager": generate}
    if cell.device != "cpu":  # there compiling takes longer than all the rest
        engines["compiled"] = CompiledDecoder(policy)
    learners = {name: Told(policy, recipe, None, engine) for name, engine in engines.items()}
    (first, *_), optimizer = learners.values(), make_optimizer(policy.model, recipe.optimizer)
    stream = open_stream(recipe.phases[0], (0, 0))
    meter, gap = Meter(cell.device), None
    for number in range(cell.steps + 1):
        order = 1 if number % 2 else -1
        with meter("preprocess"):
            prepared = first.prepare(stream.batch(number))
        seeds = [(0, 0, number, place) for place in range(cell.prompts)]
        for name in list(learners)[::order]:
            with meter(f"rollout {name}"), torch.no_grad():
                work = learners[name].collect(prepared, seeds, 0.0).work
        if number == 0:
            gap = difference(policy, work[0], cell)
        for kernel in cell.kernels[::order]:
            with attending(kernel, cell.device), meter(f"update {kernel}"):
                update(first, optimizer, work)
        if number == 0:
            meter.seconds.clear()
        print(f"  step {number} of {cell.steps}", flush=True)
    prompt_tokens = statistics.mean(len(question.prompt.input_ids) for question in prepared)
    return summary(cell, meter, prompt_tokens, gap, peak_tflops)


@torch.no_grad()
def difference(policy: Policy, part: GroupWork, cell: Cell) -> float | None:
    """The largest difference of a log-probability between the kernels."""
    logprobs = []
    for kernel in cell.kernels:
        with attending(kernel, cell.device):
            logprobs.append(policy.token_logprobs(part.rows))
    return float((logprobs[0] - logprobs[-1]).abs().max()) if len(logprobs) > 1 else None


def summary(
    cell: Cell, meter: Meter, prompt_tokens: float, gap: float | None, peak_tflops: float | None
) -> dict[str, Any]:
    """Seconds, tokens a second, FLOPs and memory."""
    seconds = {part: statistics.median(values) for part, values in meter.seconds.items()}
    rollouts, updates = ([part for part in seconds if part.startswith(kind)] for kind in ("rollout", "update"))
    tokens = cell.prompts * cell.group_size * cell.length
    workload = (cell.image_tokens, round(prompt_tokens), cell.group_size, cell.length)
    alone, shared = (
        cost.step(cost.SHAPES[COSTS[cell.shape]], *workload, shared=way, trains=cell.trains) for way in (False, True)
    )
    step = seconds["preprocess"] + min(seconds[part] for part in rollouts) + min(seconds[part] for part in updates)
    tflops = {part: cell.prompts * shared["update"] / seconds[part] / 1e12 for part in updates}
    return {
        **asdict(cell),
        "trains": cell.trains,
        "prompt_tokens": prompt_tokens,
        "seconds": seconds,
        "step_seconds": step,
        "tokens_per_second": {"step": tokens / step, **{part: tokens / seconds[part] for part in rollouts}},
        "update_tflops": tflops,
        "update_mfu": {part: rate / peak_tflops for part, rate in tflops.items()} if peak_tflops else None,
        "peak_gib": meter.peaks,
        "max_abs_dlogp_of_kernels": gap,
        "cost_model_ratio": {phase: alone[phase] / shared[phase] for phase in ("rollout", "update")},
    }


def run_trl(pipe: Connection, cell: Cell, model: str, data: str) -> None:
    """TRL's side of benchmarks/vs_trl.py on this device, one group a pass."""
    settings, done = vs_trl.trl_settings, vs_trl.Gate.step_done
    on_gpu = cell.device != "cpu"

    def own_settings(*arguments: Any) -> dict[str, Any]:
        batch = {"per_device_train_batch_size": cell.group_size, "gradient_accumulation_steps": cell.prompts}
        return {**settings(*arguments), **batch, "use_cpu": not on_gpu, "bf16": on_gpu}

    def step_done(gate: vs_trl.Gate, parts: dict[str, float]) -> None:
        if on_gpu:
            torch.cuda.synchronize()
            parts = {**parts, "peak_gib": torch.cuda.max_memory_allocated() / 2**30}
        done(gate, parts)

    vs_trl.trl_settings, vs_trl.Gate.step_done = own_settings, step_done  # type: ignore[method-assign]
    threads = torch.get_num_threads()
    vs_trl.run_trl(pipe, vs_trl.Work(model, data, cell.group_size, cell.length, True, 0.0, cell.steps, threads))


def measure_trl(cell: Cell, model: Path, data: str) -> dict[str, float] | None:
    """Seconds of TRL's steps, all but the first, and its peak memory; None if it does not get that far."""
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=run_trl, args=(other, cell, str(model), data), daemon=True)
    process.start()
    other.close()
    try:
        print(f"TRL: {pipe.recv()}", flush=True)
        pipe.recv(), pipe.recv()  # log-probabilities of its first completions, and its first step
        steps = []
        for _ in range(cell.steps):
            pipe.send("go")
            steps.append(pipe.recv())
    except EOFError:
        print("TRL ended early; what it said stands above")
        return None
    finally:
        process.kill()
    seconds = {part: statistics.median(step[part] for step in steps) for part in ("step", "rollout", "update")}
    return {**seconds, "peak_gib": steps[-1]["peak_gib"]}


def peak_of(device: str) -> float | None:
    """The card's peak in TFLOP/s, if it is known."""
    name = torch.cuda.get_device_name(device) if device != "cpu" else "CPU"
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=sorted(COSTS), default=list(SIZES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--peak-tflops", type=float, help="of the card in bfloat16, where its name is not known")
    parser.add_argument("--quick", action="store_true", help="one shape and size, 2 steps")
    return parser.parse_args()


def main() -> None:
    """Measure each cell, and TRL on the first that trains all weights."""
    args = parse_arguments()
    shapes, sides, length, steps = args.shape, IMAGE_SIDES, LENGTH, STEPS
    if args.quick:
        shapes, sides, steps = shapes[:1], sides[:1], 2
    if args.device == "cpu":
        sides, length = [8], 16  # to see that it works
    peak, cells = args.peak_tflops or peak_of(args.device), []
    with tempfile.TemporaryDirectory() as name:
        folder = build_speed_model(Path(name) / "parts")
        for side in sides:
            vs_trl.IMAGE_SIDE = 28 * side
            data = vs_trl.write_images(Path(name) / f"images_{side}")
            for shape in shapes:
                cell = Cell(shape, side**2, length, GROUP_SIZE, PROMPTS, steps, args.device)
                compared = not cells and cell.trains == "all" and find_spec("trl") is not None
                saved = Path(name) / "model" if compared else None
                print(f"{shape}, {side**2} image tokens", flush=True)
                cells.append(measure(cell, folder, data, peak, saved))
                print(json.dumps(cells[-1], indent=1), flush=True)
                gc.collect()
                torch.compiler.reset()  # which holds memory of its own
                torch.cuda.empty_cache()
                if saved and (theirs := measure_trl(cell, saved, data)):
                    cells[-1] |= {"trl": theirs, "trl_step_ratio": theirs["step"] / cells[-1]["step_seconds"]}
                    print(json.dumps(theirs), flush=True)
    print(json.dumps({"device": args.device, "peak_tflops": peak, "torch": torch.__version__, "cells": cells}))


if __name__ == "__main__":
    main()
