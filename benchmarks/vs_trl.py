"""A whole GRPO step, ours against TRL's GRPOTrainer: seconds by part, peak memory, and the same log-probabilities.

    python benchmarks/vs_trl.py --group-size 8 --quick     8 completions of 64 tokens, without and with a reference
    python benchmarks/vs_trl.py                            the whole grid: G 4, 8, 16; 64, 256, 512 tokens; beta 0, .04
    python benchmarks/vs_trl.py --workload tiny            the model that ships on BCCD, replies that end by themselves
    python benchmarks/vs_trl.py --family qwen3_5 --group-size 8 --quick     a family of the generic path; or gemma4

The fixed workload is a Qwen2.5-VL with 7 million random weights and a vocabulary of 8,000, images of 448 x 448 pixels,
2 prompts a step, float32, replies of a forced length. With `--family` the model is of another family with 5 to 8
million weights and the same images: ours runs on the generic path, and TRL gets the processor that ours loads, without
its part for videos, which would need torchvision. Both sides train on the same model folder, images, instructions
and rewards, each in a process of its own; one takes a step while the other waits, in turn, so that whatever else the
machine does meets both alike. Random weights write nothing that the reward would tell apart, so a checksum of each
reply is added to it: every group has a gradient. TRL runs at its best: all completions in one batch, no gradient
checkpointing, float32, the same threads, no logs and no checkpoints. A ratio is the median over pairs of neighbouring
steps. The last line is a JSON object; `step_ratio` there is the least of all that were measured.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from visionr1.assets import embedded_path
from visionr1.data import data_path, read_coco
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.training.recipe import Recipe, parse_recipe, to_toml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the random models of the tests
from support.random_models import build_speed_model
from support.speed_families import SPEED_FAMILIES, build_speed_family

PARTS = ("step", "rollout", "update", "cpu")
"""Seconds: three of wall clock, and the processor's for the whole step, which a busy machine stretches less."""
NUM_PROMPTS, NUM_IMAGES, IMAGE_SIDE = 2, 8, 448
GRID_GROUPS, GRID_LENGTHS, BETAS = (4, 8, 16), (64, 256, 512), (0.0, 0.04)
LEARNING_RATE = 1e-6
IMAGE_INPUTS = (
    "pixel_values",
    "image_grid_thw",
    "image_position_ids",
    "num_images",
    "token_type_ids",
    "mm_token_type_ids",
)
"""What TRL's pass takes of images."""
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@dataclass(frozen=True, slots=True)
class Work:
    """One cell of the grid."""

    model: str
    data: str
    group_size: int
    length: int
    """New tokens of a completion; the limit, where replies end by themselves."""
    forced: bool
    """No reply ends before its limit."""
    beta: float
    steps: int
    """Timed ones; one more goes before them."""
    threads: int


class Gate:
    """Where a side waits for its turn: after each of its steps."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.start()

    def start(self) -> None:
        """Start the clocks of a step."""
        self.began, self.cpu_began = time.perf_counter(), time.process_time()

    def step_done(self, parts: dict[str, float]) -> None:
        """Report the step that ended, wait, and start the clocks of the next."""
        seconds, cpu = time.perf_counter() - self.began, time.process_time() - self.cpu_began
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
        self.pipe.send({"step": seconds, "cpu": cpu, "peak_gib": peak, **parts})
        self.pipe.recv()
        self.start()


def load_workload_policy(folder: str | Path, forced: bool, **settings: Any) -> Policy:
    """The policy in `folder`, its end token suppressed where lengths are forced."""
    policy = load_policy(folder, **settings)
    if forced:
        policy.suppressed_ids = torch.cat((policy.suppressed_ids, torch.tensor(policy.eos_ids)))
    return policy


def checksum(text: str) -> float:
    """A number from 0 to 1 that tells replies apart."""
    return zlib.crc32(text.encode()) / 2**32


def our_recipe(work: Work) -> Recipe:
    """The step's settings on our side."""
    return parse_recipe(
        {
            "threads": work.threads,
            "model": {"path": work.model},
            "train": {
                "steps": work.steps + 1,
                "batch_size": NUM_PROMPTS,
                "learning_rate": LEARNING_RATE,
                "schedule": "constant",
            },
            "data": [{"source": work.data}],
            "reward": {"parts": [{"name": f"{Path(__file__).resolve()}:checksum"}]},
            "rollout": {"group_size": work.group_size, "max_new_tokens": work.length},
            "grpo": {"beta": work.beta},
            "checkpoint": {"every": 0},
        }
    )


def run_ours(pipe: Connection, work: Work) -> None:
    """Our side: `visionr1.training.train.train`, stopped after each step where it shows its metrics."""
    from visionr1.progress import describe_step
    from visionr1.training import train as loop

    gate = Gate(pipe)

    def gated(row: Any) -> tuple[float, str, str]:
        if row["groups_without_spread"]:
            raise SystemExit("a group has no gradient: the two sides would not do the same work")
        update, rollout = row["seconds/update"], row["seconds/rollout"]
        gate.step_done({"rollout": rollout, "update": update, "length": row["completion_length"]})
        return describe_step(row)

    def load(path: str | Path, **settings: Any) -> Policy:
        return load_workload_policy(path, work.forced, **settings)

    recipe = our_recipe(work)
    pipe.send(to_toml(recipe))
    probe = pipe.recv()
    torch.set_num_threads(work.threads)
    pipe.send(our_logprobs(load_policy(work.model), work.data, probe))
    loop.describe_step, loop.load_policy = gated, load  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        loop.train(recipe, Path(folder) / "run", progress=False)


def our_logprobs(policy: Policy, data: str, probe: Sequence[dict[str, Any]]) -> float:
    """The largest difference to TRL's log-probabilities of the completions in `probe`."""
    from visionr1.models.rows import make_groups

    samples = {sample.id: sample for sample in read_coco(data_path(data), split="train").samples}
    worst = 0.0
    for entry in probe:
        sample = samples[entry["id"]]
        prompt = policy.encode(sample.load_image(), sample.query)
        if prompt.input_ids.tolist() != entry["prompt"]:
            raise SystemExit(f"sample {sample.id}: the two sides do not see the same prompt")
        rows = policy.path.pack(make_groups([prompt], [[torch.tensor(ids) for ids in entry["completions"]]]))
        with torch.no_grad():
            ours = policy.token_logprobs(rows, suppress=False)  # TRL's policy may write special tokens
        theirs = torch.cat([torch.tensor(values) for values in entry["logprobs"]])
        worst = max(worst, float((ours - theirs).abs().max()))
    return worst


def trl_rows(policy: Policy, data: str) -> list[dict[str, Any]]:
    """The samples as TRL's data set holds them: the same instruction, image and truth."""
    from visionr1.dialects import instruction
    from visionr1.integrations import to_json

    rows = []
    for sample in read_coco(data_path(data), split="train").samples[: 32 * NUM_IMAGES]:
        text = instruction(sample.query, policy.dialect)
        truth = sample.ground_truth(policy.encode(sample.load_image(), sample.query).input_size_wh)
        rows.append(
            {
                "id": sample.id,
                "prompt": [{"role": "user", "content": text}],
                "image": str(sample.image),
                "ground_truth": to_json(truth, dialect=policy.dialect.name),
            }
        )
    return rows


def trl_settings(work: Work, policy: Policy, folder: str) -> dict[str, Any]:
    """The step's settings on TRL's side."""
    return {
        "output_dir": folder,
        "loss_type": "grpo",
        "beta": work.beta,
        "use_bias_correction_kl": False,
        "num_generations": work.group_size,
        "per_device_train_batch_size": NUM_PROMPTS * work.group_size,
        "gradient_accumulation_steps": 1,
        "max_completion_length": work.length,
        "temperature": 1.0,
        "generation_kwargs": {"suppress_tokens": policy.suppressed_ids.tolist()},
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "max_steps": work.steps + 1,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "seed": 0,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def run_trl(pipe: Connection, work: Work) -> None:
    """TRL's side: its own `train`, stopped after each step by a callback."""
    from datasets import Dataset
    from datasets import Image as ImageColumn
    from transformers import AutoModelForImageTextToText, TrainerCallback
    from transformers.utils.logging import disable_progress_bar
    from trl import GRPOConfig, GRPOTrainer

    from visionr1.integrations.trl import reward_functions

    def visionr1_checksum(completions: Any, **columns: Any) -> list[float]:
        return [checksum(messages[-1]["content"]) for messages in completions]

    disable_progress_bar()
    torch.set_num_threads(work.threads)
    policy = load_workload_policy(work.model, work.forced)
    rows = trl_rows(policy, work.data)
    parts: dict[str, float] = {}

    @contextmanager
    def clock(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        parts[name] = parts.get(name, 0.0) + time.perf_counter() - began

    class TimedTrainer(GRPOTrainer):
        """TRL's trainer with a clock around its parts."""

        probed = False

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            with clock("collect"):
                output = super()._generate_and_score_completions(inputs)
            mask = output["completion_mask"]
            parts["length"] = float(mask.sum(1).float().mean())
            if not self.probed:
                self.probed = True
                pipe.send(trl_logprobs(self, inputs, output))
            return output

        def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
            with clock("rollout"):
                return super()._generate_single_turn(*args, **kwargs)

        def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
            with clock("update" if torch.is_grad_enabled() else "reference"):
                return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    class Turns(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            whole = time.perf_counter() - gate.began
            update = whole - parts["collect"] + parts.get("reference", 0.0)
            report = {"rollout": parts["rollout"], "update": update, "length": parts["length"]}
            parts.clear()
            gate.step_done(report)

    with tempfile.TemporaryDirectory() as folder:
        settings = trl_settings(work, policy, folder)
        del policy
        pipe.send(json.dumps({key: value for key, value in settings.items() if key != "generation_kwargs"}))
        trainer = TimedTrainer(
            model=AutoModelForImageTextToText.from_pretrained(
                work.model, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False
            ),
            processing_class=trl_processor(work.model),
            reward_funcs=[*reward_functions(), visionr1_checksum],
            train_dataset=Dataset.from_list(rows).cast_column("image", ImageColumn()),
            args=GRPOConfig(**settings),
            callbacks=[Turns()],
        )
        gate = Gate(pipe)
        trainer.train()


def trl_processor(model: str) -> Any:
    """The processor for TRL: that of the example, or for families that it does not know the one that ours loads."""
    from transformers import AutoConfig

    from visionr1.models.folder.processor import load_processor

    model_type = AutoConfig.from_pretrained(model, trust_remote_code=False).model_type
    if model_type in SPEED_FAMILIES:
        return load_processor(Path(model), model_type)
    sys.path.insert(0, str(EXAMPLES / "trl"))
    from processor import load_processor as load_qwen_processor

    return load_qwen_processor(model)


def trl_logprobs(trainer: Any, inputs: Sequence[dict[str, Any]], output: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each sample: its prompt, its completions, and their log-probabilities by TRL's own pass."""
    prompts, completions = output["prompt_ids"], output["completion_ids"]
    mask = torch.cat((output["prompt_mask"], output["completion_mask"]), dim=1)
    images = {key: output.get(key) for key in IMAGE_INPUTS}
    with torch.no_grad():
        logprobs, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, torch.cat((prompts, completions), dim=1), mask, completions.shape[1], **images
        )
    entries: dict[str, dict[str, Any]] = {}
    for row, sample in enumerate(inputs):
        prompt = prompts[row][output["prompt_mask"][row].bool()].tolist()
        entry = entries.setdefault(
            sample["id"], {"id": sample["id"], "prompt": prompt, "completions": [], "logprobs": []}
        )
        real = output["completion_mask"][row].bool()
        entry["completions"].append(completions[row][real].tolist())
        entry["logprobs"].append(logprobs[row][real].tolist())
    return list(entries.values())


def measure(work: Work, show_configuration: bool) -> dict[str, Any]:
    """Both sides in turn: `steps` pairs after one step of each that is not counted."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    try:
        for name, side in (("trl", run_trl), ("ours", run_ours)):
            pipes[name], other = context.Pipe()
            process = context.Process(target=side, args=(other, work), daemon=True)
            process.start()
            other.close()
            processes.append(process)
            configuration = pipes[name].recv()
            if show_configuration:
                print(f"{name}:\n{configuration}\n", flush=True)
            if name == "trl":
                probe = pipes[name].recv()
            else:
                pipes[name].send(probe)
                difference = pipes[name].recv()
            pipes[name].recv()  # the first step
        steps: dict[str, list[dict[str, float]]] = {"trl": [], "ours": []}
        for number in range(work.steps):
            for name in ("trl", "ours") if number % 2 else ("ours", "trl"):
                pipes[name].send("go")
                steps[name].append(pipes[name].recv())
    except EOFError as error:
        raise SystemExit("one side ended early; what it said stands above") from error
    finally:
        for process in processes:
            process.kill()
    return summary(work, steps, difference, len(probe[0]["prompt"]))


def summary(
    work: Work, steps: dict[str, list[dict[str, float]]], difference: float, prompt_tokens: int
) -> dict[str, Any]:
    """Ratios of TRL to ours, and the medians that they are of."""
    result: dict[str, Any] = {
        key: value for key, value in asdict(work).items() if key not in ("model", "data", "forced")
    }
    result |= {"prompt_tokens": prompt_tokens, "max_abs_dlogp": difference}
    for part in PARTS:
        pairs = zip(steps["trl"], steps["ours"], strict=True)
        result[f"{part}_ratio"] = statistics.median(trl[part] / ours[part] for trl, ours in pairs)
    for name, rows in steps.items():
        result[name] = {part: statistics.median(row[part] for row in rows) for part in (*PARTS, "length")}
        result[name]["peak_gib"] = rows[-1]["peak_gib"]
    result["memory_ratio"] = result["trl"]["peak_gib"] / result["ours"]["peak_gib"]
    return result


def show(result: dict[str, Any]) -> None:
    """One cell as lines."""
    print(
        f"G {result['group_size']}, {result['length']} new tokens, beta {result['beta']}, prompt of "
        f"{result['prompt_tokens']} tokens, {result['threads']} threads, {result['steps']} steps each in turn"
    )
    for part in PARTS:
        seconds = [result[name][part] for name in ("trl", "ours")]
        print(f"  {part:<8} TRL {seconds[0]:8.3f} s   ours {seconds[1]:8.3f} s   ratio {result[f'{part}_ratio']:.2f}")
    peaks = [result[name]["peak_gib"] for name in ("trl", "ours")]
    print(f"  {'peak':<8} TRL {peaks[0]:8.2f} GiB ours {peaks[1]:8.2f} GiB ratio {result['memory_ratio']:.2f}")
    lengths = [result[name]["length"] for name in ("trl", "ours")]
    print(f"  {'length':<8} TRL {lengths[0]:8.1f}     ours {lengths[1]:8.1f}")
    print(f"  largest difference of a log-probability {result['max_abs_dlogp']:.1e}", flush=True)


def write_images(folder: Path) -> str:
    """Images of noise with three boxes each, as a COCO folder."""
    rng = np.random.default_rng(0)
    annotations: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    (folder / "train").mkdir(parents=True)
    for number in range(NUM_IMAGES):
        name = f"{number}.png"
        pixels = rng.integers(0, 255, (IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "train" / name)
        annotations["images"].append({"id": number, "file_name": name, "width": IMAGE_SIDE, "height": IMAGE_SIDE})
        for box in range(3):
            x, y, width, height = rng.integers(1, IMAGE_SIDE // 2, 4).tolist()
            annotations["annotations"].append(
                {
                    "id": 3 * number + box,
                    "image_id": number,
                    "category_id": box % 2,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    text = json.dumps({**annotations, "categories": categories})
    (folder / "train/annotations.json").write_text(text, encoding="utf-8")
    return str(folder)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=("qwen25", "tiny"), default="qwen25")
    parser.add_argument("--family", choices=SPEED_FAMILIES, help="one of the generic path instead of Qwen2.5-VL")
    parser.add_argument("--group-size", type=int, nargs="+", default=list(GRID_GROUPS), metavar="G")
    parser.add_argument("--length", type=int, nargs="+", default=list(GRID_LENGTHS), metavar="C")
    parser.add_argument("--beta", type=float, nargs="+", default=list(BETAS))
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each side (default: 5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of both (default: torch's)")
    parser.add_argument("--quick", action="store_true", help="the shortest length alone, 3 steps")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    lengths, steps = (args.length[:1], 3) if args.quick else (args.length, args.steps)
    if args.workload == "tiny" and len(lengths) > 1:
        lengths = lengths[-1:]  # a limit, for here replies end by themselves
    results = []
    with tempfile.TemporaryDirectory() as name:
        if args.workload == "qwen25":
            model, data = str(build_speed_model(Path(name) / "model")), write_images(Path(name) / "data")
            if args.family:
                model = str(build_speed_family(Path(name) / args.family, Path(model), args.family))
        else:
            model, data = str(embedded_path("tiny")), "bccd"
        for group_size in args.group_size:
            for length in lengths:
                for beta in args.beta:
                    forced = args.workload == "qwen25"
                    work = Work(model, data, group_size, length, forced, beta, steps, args.threads)
                    results.append(measure(work, show_configuration=not results))
                    show(results[-1])
    ratios = [f"{part}_ratio" for part in (*PARTS, "memory")]
    least = {ratio: min(result[ratio] for result in results) for ratio in ratios}
    worst = max(result["max_abs_dlogp"] for result in results)
    workload = args.family or args.workload
    print(json.dumps({"workload": workload, **least, "max_abs_dlogp": worst, "cells": results}))


if __name__ == "__main__":
    main()
