"""Training: data -> (rollout -> score ->) loss -> step, with checkpoints, exact resume, metrics and evaluation.

`train` is read from top to bottom; what a step does with its samples is in `learners`. Everything
random is drawn from the recipe's seed and the step's number, so a resumed run needs no random state
to continue as if it had never stopped. Where a launcher has started several processes, each runs
this file on its share of every step's samples (see `distributed`); the main one writes.
"""

import json
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn
from torch.utils.data import DataLoader, Dataset

from visionr1.errors import CheckpointError, RecipeError, TrainingError, VisionR1Error
from visionr1.folders import whole_folder
from visionr1.models.attention.block_sparse import compiling_long_rows
from visionr1.models.loading import load_policy, model_folder
from visionr1.models.policy import Policy
from visionr1.models.trainable import make_trainable
from visionr1.progress import Bar, describe_step
from visionr1.training.distributed import (
    Trained,
    equal_passes,
    explain_lost_ranks,
    gather,
    gather_full_state,
    is_sharded,
    make_accelerator,
    reduce_gradients,
    unshard_parameters,
    wrap_frozen,
)
from visionr1.training.learners import Learner, Metrics, make_learner
from visionr1.training.optimizers import Optimizer, make_optimizer
from visionr1.training.recipe import Phase, Recipe
from visionr1.training.run_folder import RunFolder
from visionr1.training.stream import Stream, describe, open_stream, share
from visionr1.training.trackers import open_trackers
from visionr1.training.validate import LOG as EVALUATIONS
from visionr1.training.validate import Validation
from visionr1.training.zero import distribute

NEEDED_BY_SHARDS = {"model.dtype": "float32", "optimizer.name": "adamw", "rollout.engine": "builtin"}
NEEDED_BY_FSDP2 = {**NEEDED_BY_SHARDS, "rollout.compile": False}
"""Its weights are put together elsewhere for each rollout, so that CUDA graphs would be recorded anew for ever."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run left."""

    run_dir: Path
    model_dir: Path
    """final/"""
    steps: int
    was_finished: bool = False
    """It was all there, and nothing was done."""


@dataclass(slots=True)
class Position:
    """Where a run is: what changes besides weights, optimizer and learner."""

    step: int = 0
    """Steps done, over all phases."""
    phase: int = 0
    phase_step: int = 0
    phase_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """A run in progress."""

    recipe: Recipe
    folder: RunFolder
    accelerator: Accelerator
    policy: Policy
    trained: nn.Module
    """The policy's model as the processes train it; called with a function, it runs that in its forward pass."""
    learner: Learner
    optimizer: Optimizer
    position: Position
    evaluations: list[Metrics]
    """The rows of evaluations.jsonl."""
    data: dict[str, str]
    """What each source holds, by its place in the recipe."""


def train(recipe: Recipe, run_dir: Path, *, resume: bool = False, progress: bool = True) -> RunResult:
    """Run `recipe` in folder `run_dir`; see `run_folder` for what it leaves there.

    Raises RecipeError, DataError, CheckpointError or TrainingError. An interrupt (Ctrl-C, SIGTERM)
    ends the run after the step in progress, with a checkpoint, by KeyboardInterrupt. Of a finished
    run, resumed, nothing is read or changed.
    """
    recipe.check_ends()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    accelerator, found = make_accelerator(recipe.model.device), RunFolder(run_dir)
    if gather([resume and found.is_finished(recipe)])[0]:  # as the first process sees it, for all to stop or none
        return RunResult(run_dir, found.final, len(found.rows("metrics.jsonl")), was_finished=True)
    streams = [open_stream(phase, (recipe.seed, i)) for i, phase in enumerate(recipe.phases)]
    lengths = [num_steps(phase, stream) for phase, stream in zip(recipe.phases, streams, strict=True)]
    validation = Validation.open(recipe.eval) if recipe.eval.every else None
    with explain_lost_ranks():
        run = start(recipe, run_dir, accelerator, data_read(recipe, streams, validation), resume=resume)
        position, folder = run.position, run.folder
        over = validation is not None and validation.is_over(run.evaluations)
        bar = Bar(enabled=progress and accelerator.is_main_process)
        trackers = open_trackers(recipe, run_dir, done=position.step, enabled=accelerator.is_main_process)
        with stop_signals() as stopped, bar, trackers as track:
            for index in range(position.phase, len(recipe.phases)):
                phase, stream, steps = recipe.phases[index], streams[index], lengths[index]
                if index > position.phase:
                    position.phase, position.phase_step, position.phase_seconds = index, 0, 0.0
                batches = prepared_batches(run, stream, range(position.phase_step, steps))
                while not over and phase_progress(phase, position, steps) < 1:
                    row, rollouts, stopping = take_step(run, phase, steps, batches, stopped)
                    folder.append("metrics.jsonl", [row])
                    folder.append("rollouts.jsonl", rollouts)
                    track(row)
                    bar.show(*describe_step(row))
                    if validation and position.step % recipe.eval.every == 0:
                        over = evaluate(run, validation)
                        figures = {f"eval/{name}": value for name, value in run.evaluations[-1].items()}
                        track({**figures, "step": position.step})
                    every = recipe.checkpoint.every
                    if stopping or (every and position.step % every == 0):
                        write_checkpoint(run)
                    if stopping:
                        raise KeyboardInterrupt
        folder.write_model("final", run.policy, getattr(torch, recipe.model.save_dtype), weights(run))
        accelerator.wait_for_everyone()
    return RunResult(run_dir, folder.final, position.step)


def start(recipe: Recipe, run_dir: Path, accelerator: Accelerator, data: dict[str, str], *, resume: bool) -> Run:
    """The run at its newest checkpoint, or at its beginning; the main process makes its folder."""
    check_processes(recipe, accelerator)
    device = recipe.model.device if accelerator.num_processes == 1 else str(accelerator.device)
    with accelerator.main_process_first():
        folder = RunFolder.open(run_dir, recipe, resume=resume, writes=accelerator.is_main_process)
        initial = initial_model(recipe, folder)
    checkpoint = folder.latest_checkpoint()
    policy = load(recipe, checkpoint or initial, initial, device)
    make_trainable(policy, recipe.model, recipe.lora, seed=recipe.seed)
    policy.model.eval()  # to stay: with dropout, the policy that samples would not be the one that is scored
    optimizer = make_optimizer(policy.model, recipe.optimizer)
    if not policy.path.uses_all_weights:
        accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=True)
    trained, optimizer = distribute(Trained(policy.model), optimizer, accelerator)
    learner = make_learner(
        policy, recipe, lambda: load(recipe, initial, initial, device), partial(wrap_frozen, accelerator)
    )
    position = Position()
    if checkpoint:
        state = folder.read_state(checkpoint)
        check_data(state["data"], data, checkpoint)
        optimizer.load_state_dict(state["optimizer"])
        learner.load_state_dict(state["learner"])
        position = Position(**state["position"])
    folder.cut_logs(state["log_lengths"] if checkpoint else {})
    accelerator.wait_for_everyone()
    evaluations = folder.rows(EVALUATIONS)
    return Run(recipe, folder, accelerator, policy, trained, learner, optimizer, position, evaluations, data)


def take_step(
    run: Run, phase: Phase, steps: int, batches: Iterator[tuple[list[str], Any]], stopped: Sequence[int]
) -> tuple[Metrics, list[Metrics], bool]:
    """One step of the run's phase, of `steps`: its row of metrics, its rollouts, and whether any process was asked to
    stop."""
    recipe, position = run.recipe, run.position
    began = time.perf_counter()
    rate = learning_rate(phase, position.phase_step, steps, phase_progress(phase, position, steps))
    sample_ids, prepared = next(batches)
    waited = time.perf_counter() - began
    places = share(range(phase.batch_size), run.accelerator.process_index, run.accelerator.num_processes)
    seeds = [(recipe.seed, position.phase, position.phase_step, place) for place in places]

    def collect() -> Any:
        with autocast(run.policy, recipe), unshard_parameters(run.trained, run.accelerator):
            return run.learner.collect(prepared, seeds, overall_progress(recipe, position, steps))

    with torch.no_grad():
        collected = run.trained(collect)
    for number in range(run.learner.updates):
        update = update_weights(run, collected.work, rate)
        if not math.isfinite(update["loss"] + update["grad_norm"]):
            samples = [sample_ids[place] for place in not_finite_parts(run, collected.work)]
            raise TrainingError(not_finite(update, number, position, gather(samples) or gather(sample_ids), run.folder))
    post_update = run.learner.post_update_metrics(collected.work)
    told = gather([(time.perf_counter() - began, bool(stopped))])
    seconds = told[0][0]
    position.step += 1
    position.phase_step += 1
    position.phase_seconds += seconds
    row = {
        "step": position.step,
        "phase": phase.name,
        "progress": overall_progress(recipe, position, steps),
        "learning_rate": rate,
        **update,
        **post_update,
        **collected.metrics,
        "seconds/preprocess": waited,
        "seconds/update": seconds - waited - collected.seconds,
    }
    rollouts = [{"step": position.step, **rollout} for rollout in collected.rollouts]
    return row, rollouts, any(stop for _, stop in told)


def update_weights(run: Run, work: Sequence[Any], rate: float) -> Metrics:
    """One optimizer step on all processes' `work`; none if the loss or the gradient is not finite."""
    accelerator, optimizer = run.accelerator, run.optimizer
    totals: dict[str, torch.Tensor] = {"loss": torch.zeros((), device=run.policy.device)}
    parts = list(equal_passes(work))
    for number, (part, counts) in enumerate(parts, 1):
        for name, value in backward(run, part, counts, last=number == len(parts)).items():
            totals[name] = totals.get(name, 0) + counts * value
    totals = accelerator.reduce(totals, "sum")
    norm = gradient_norm(run, run.recipe.optimizer.max_grad_norm or math.inf)
    metrics = {**{name: float(total) for name, total in totals.items()}, "grad_norm": norm}
    if math.isfinite(metrics["loss"] + metrics["grad_norm"]):
        for parameters in optimizer.param_groups:
            parameters["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # not to be held through the next rollout
    return metrics


def backward(run: Run, part: Any, counts: bool, *, last: bool) -> Metrics:
    """Add a part's gradient, or nothing unless it `counts`; its loss and sums. Processes add theirs up with the `last`
    one of a step, but those of shards, which have no room for it, with each."""
    accelerator = run.accelerator

    def measure() -> tuple[torch.Tensor, Metrics]:
        with autocast(run.policy, run.recipe):
            return run.learner.loss(part)

    with reduce_gradients(run.trained, accelerator, last=last):
        loss, sums = run.trained(measure)
        with compiling_long_rows():
            (loss * (counts * accelerator.num_processes)).backward()  # gradients are averaged over processes
    return {"loss": loss.detach(), **sums}


def gradient_norm(run: Run, limit: float = math.inf) -> float:
    """The norm of the gradient, which is scaled down to `limit`."""
    return float(run.optimizer.clip(run.trained, run.accelerator, limit))


def evaluate(run: Run, validation: Validation) -> bool:
    """Measure the policy, keep it in best/ if it is the best so far; whether training should end."""

    def measure() -> Metrics:
        with unshard_parameters(run.trained, run.accelerator):
            return validation.measure(run.policy, run.accelerator.process_index, run.accelerator.num_processes)

    with torch.no_grad():
        figures = run.trained(measure)
    run.evaluations.append({"step": run.position.step, **figures})
    run.folder.append(EVALUATIONS, run.evaluations[-1:])
    if validation.is_best(run.evaluations):
        run.folder.write_model("best", run.policy, getattr(torch, run.recipe.model.save_dtype), weights(run))
    return validation.is_over(run.evaluations)


def write_checkpoint(run: Run) -> None:
    """All that the run needs to go on from here, on however many processes."""
    state = {
        "position": asdict(run.position),
        "optimizer": gather_full_state(run.optimizer.state_dict(), run.accelerator),
        "learner": run.learner.state_dict(),
        "data": run.data,
    }
    run.folder.write_checkpoint(
        run.policy, state, step=run.position.step, keep=run.recipe.checkpoint.keep, weights=weights(run)
    )


def weights(run: Run) -> dict[str, torch.Tensor] | None:
    """The model's weights put together, where processes hold shards; None where they are whole as they are."""
    if not run.accelerator.is_fsdp2:
        return None
    return gather_full_state(run.policy.model.state_dict(), run.accelerator)


def check_processes(recipe: Recipe, accelerator: Accelerator) -> None:
    """Raise RecipeError if the recipe does not suit the processes that were launched."""
    count, fewest = accelerator.num_processes, min(phase.batch_size for phase in recipe.phases)
    if fewest < count:
        raise RecipeError(f"train.batch_size: expected a sample for each of {count} processes or more, found {fewest}")
    if not is_sharded(accelerator):
        return
    kind, needed = ("FSDP2", NEEDED_BY_FSDP2) if accelerator.is_fsdp2 else ("ZeRO-2", NEEDED_BY_SHARDS)
    for key, expected in needed.items():
        found = attrgetter(key)(recipe)
        if found != expected:
            stated = f"expected {json.dumps(expected)}, found {json.dumps(found)}"
            raise RecipeError(f"{key}: in shards ({kind}) {stated}: docs/training.md")


def data_read(recipe: Recipe, streams: Sequence[Stream], validation: Validation | None) -> dict[str, str]:
    """What each source of the run holds, by its place in the recipe."""
    held = {
        f"phase.{i}.data.{k} ({data.source})": contents
        for i, (phase, stream) in enumerate(zip(recipe.phases, streams, strict=True))
        for k, (data, contents) in enumerate(zip(phase.data, stream.contents, strict=True))
    }
    return {**held, f"eval ({recipe.eval.source})": describe(validation.asked)} if validation else held


def check_data(before: dict[str, str], now: dict[str, str], checkpoint: Path) -> None:
    """Raise CheckpointError if a source is not what it was when the checkpoint was written."""
    for name, contents in now.items():
        if contents != before[name]:
            raise CheckpointError(
                f"{name} has changed since {checkpoint} was written: it held {before[name]}, now {contents}; put the "
                "data back as they were or start a new run"
            )


def load(recipe: Recipe, folder: Path, base: Path, device: str) -> Policy:
    """Load the policy in `folder`, whose adapters belong to the model in `base`, as the recipe's model table says."""
    return load_policy(
        folder,
        device=device,
        dtype=recipe.model.dtype,
        dialect=recipe.model.dialect or None,
        template=recipe.model.template or None,
        base=base,
    )


def autocast(policy: Policy, recipe: Recipe) -> torch.autocast:
    """The precision of matrix products that the recipe asks for."""
    enabled = recipe.model.autocast != "none"
    return torch.autocast(policy.device.type, dtype=torch.bfloat16, enabled=enabled)


def num_steps(phase: Phase, stream: Stream) -> int:
    """The phase's step limit: as stated, or from its epochs, or none where only time limits it."""
    if phase.steps:
        return phase.steps
    if phase.minutes:
        return 10**9
    assert stream.num_samples is not None  # else `check_ends` has said so
    return math.ceil(phase.epochs * stream.num_samples / phase.batch_size)


def phase_progress(phase: Phase, position: Position, steps: int) -> float:
    """The share of the phase that is done, in steps or in time, whichever is further."""
    spent = position.phase_seconds / (60 * phase.minutes) if phase.minutes else 0.0
    return min(1.0, max(position.phase_step / steps, spent))


def overall_progress(recipe: Recipe, position: Position, steps: int) -> float:
    """The share of the whole run that is done; phases count alike."""
    done = phase_progress(recipe.phases[position.phase], position, steps)
    return (position.phase + done) / len(recipe.phases)


def learning_rate(phase: Phase, step: int, steps: int, progress: float) -> float:
    """The rate for step `step` of a phase of `steps` of which `progress` is done: up to the peak in the warm-up, then
    from the peak over all that remains. What share of a phase of minutes its warm-up takes is not known: 0 there."""
    peak, final = phase.learning_rate, phase.final_learning_rate
    if step < phase.warmup_steps:
        return peak * (step + 1) / phase.warmup_steps
    warmup = phase.warmup_steps / steps
    decayed = max(0.0, (progress - warmup) / (1 - warmup))
    remaining = {
        "constant": 1.0,
        "linear": 1.0 - decayed,
        "cosine": (1 + math.cos(math.pi * decayed)) / 2,
    }[phase.schedule]
    return final + (peak - final) * remaining


def initial_model(recipe: Recipe, run_folder: RunFolder) -> Path:
    """The folder of the model that training starts from."""
    if recipe.model.path != "tiny-random":
        return model_folder(recipe.model.path)
    from visionr1.models.tiny import build_tiny

    folder = run_folder.path / "initial"
    if not folder.exists():
        with run_folder.writing(folder), whole_folder(folder) as new:
            build_tiny(new, seed=recipe.seed)
    return folder


class _Steps(Dataset[Any]):
    """Step number -> this process's samples of the step and what the learner prepared of them."""

    def __init__(self, learner: Learner, stream: Stream, index: int, count: int) -> None:
        self.learner, self.stream, self.index, self.count = learner, stream, index, count

    def __getitem__(self, step: int) -> tuple[list[str], Any]:
        samples = self.stream.batch(step, self.index, self.count)
        try:
            return [sample.id for sample in samples], self.learner.prepare(samples)
        except VisionR1Error as error:  # travels from the worker as it is, and is raised below
            return [], error


def prepared_batches(run: Run, stream: Stream, steps: range) -> Iterator[tuple[list[str], Any]]:
    """Sample ids and prepared samples of this process in `steps`, made ahead by the recipe's workers."""
    loader = DataLoader(
        _Steps(run.learner, stream, run.accelerator.process_index, run.accelerator.num_processes),
        batch_size=None,
        sampler=steps,
        num_workers=run.recipe.workers,
        collate_fn=_as_it_is,
    )
    for ids, prepared in loader:
        if isinstance(prepared, VisionR1Error):
            raise prepared
        yield ids, prepared


def _as_it_is(item: Any) -> Any:
    return item


def not_finite_parts(run: Run, work: Sequence[Any]) -> list[int]:
    """The places, among this process's samples, of those in parts of a step's `work` whose loss or gradient, by itself,
    is not finite: done again part by part, for the step has added them up. Shards show it on all processes."""
    places: set[int] = set()
    for part, counts in equal_passes(work):
        run.optimizer.zero_grad(set_to_none=True)
        loss = backward(run, part, True, last=is_sharded(run.accelerator))["loss"]
        if not math.isfinite(float(loss) + gradient_norm(run)) and counts:
            places |= {completion // run.learner.group_size for completion in part.rows.completion.tolist()}
    return sorted(places)


def not_finite(metrics: Metrics, done: int, position: Position, samples: Sequence[str], folder: RunFolder) -> str:
    """What to say when a loss or gradient is not a number, after `done` updates of a step. The weights are not kept:
    they may be why, and a checkpoint of them would take the place of a good one."""
    changed = f"made {done} update{'s' * (done > 1)} before" if done else "changed no weight"
    return (
        f"step {position.step + 1}: loss {metrics['loss']}, gradient norm {metrics['grad_norm']}; "
        f"samples: {', '.join(samples)}. The step {changed}; last checkpoint: {folder.latest_checkpoint() or 'none'}. "
        "--resume repeats these steps; start a new run with a lower learning rate, from a checkpoint by --model"
    )


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that is empty until the process is asked to stop; asked twice, it stops at once. Python lets the main
    thread alone hear of it: in another, nothing changes."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def receive(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
