"""Training: data -> (rollout -> score ->) loss -> step, with checkpoints, exact resume and metrics.

`train` is read from top to bottom; what a step does with its samples is in `learners`. Everything
random is drawn from the recipe's seed and the step's number, so a resumed run needs no random state
to continue as if it had never stopped.
"""

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from visionr1.errors import RecipeError, TrainingError, VisionR1Error
from visionr1.learners import Learner, Metrics, make_learner
from visionr1.models.policy import Policy, load_policy, model_folder
from visionr1.optimizers import Optimizer, make_optimizer
from visionr1.progress import TrainingBar
from visionr1.recipe import Phase, Recipe
from visionr1.run_folder import RunFolder
from visionr1.stream import Stream, open_stream


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run left."""

    run_dir: Path
    model_dir: Path
    """final/"""
    steps: int


@dataclass(slots=True)
class Position:
    """Where a run is: what changes besides weights, optimizer and learner."""

    step: int = 0
    """Steps done, over all phases."""
    phase: int = 0
    phase_step: int = 0
    phase_seconds: float = 0.0


def train(recipe: Recipe, run_dir: Path, *, resume: bool = False, progress: bool = True) -> RunResult:
    """Run `recipe` in folder `run_dir`; see `run_folder` for what it leaves there.

    Raises RecipeError, DataError, CheckpointError or TrainingError. An interrupt (Ctrl-C, SIGTERM)
    ends the run after the step in progress, with a checkpoint, by KeyboardInterrupt.
    """
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    streams = [open_stream(phase, (recipe.seed, i)) for i, phase in enumerate(recipe.phases)]
    lengths = [num_steps(phase, stream) for phase, stream in zip(recipe.phases, streams, strict=True)]
    folder = RunFolder.open(run_dir, recipe, resume=resume)
    checkpoint = folder.latest_checkpoint()
    initial = initial_model(recipe, run_dir)
    policy = load(recipe, checkpoint or initial)
    policy.model.train()
    learner = make_learner(policy, recipe, lambda: load(recipe, initial))
    optimizer = make_optimizer(policy.model, recipe.optimizer)
    position = Position()
    if checkpoint:
        state = folder.read_state(checkpoint)
        optimizer.load_state_dict(state["optimizer"])
        learner.load_state_dict(state["learner"])
        position = Position(**state["position"])
    else:
        folder.cut_logs({})

    with stop_signals() as stopped, TrainingBar(enabled=progress) as bar:
        for index in range(position.phase, len(recipe.phases)):
            phase, stream, steps = recipe.phases[index], streams[index], lengths[index]
            if index > position.phase:
                position = Position(step=position.step, phase=index)
            batches = prepared_batches(learner, stream, position.phase_step, steps, recipe.workers)
            while (done := phase_progress(phase, position, steps)) < 1:
                began = time.perf_counter()
                seed = (recipe.seed, index, position.phase_step)
                rate = learning_rate(phase, position.phase_step, done)
                sample_ids, prepared = next(batches)
                waited = time.perf_counter() - began
                with autocast(policy, recipe):
                    seeds = [(*seed, place) for place in range(phase.batch_size)]
                    collected = learner.collect(prepared, seeds, overall_progress(recipe, position, steps))
                for _ in range(learner.updates):
                    update = update_weights(policy, optimizer, learner, collected.work, rate, recipe)
                    if not math.isfinite(update["loss"] + update["grad_norm"]):
                        raise TrainingError(not_finite(update, position, sample_ids, folder))
                ended = time.perf_counter()
                position.step += 1
                position.phase_step += 1
                position.phase_seconds += ended - began
                row = {
                    "step": position.step,
                    "phase": phase.name,
                    "progress": overall_progress(recipe, position, steps),
                    "learning_rate": rate,
                    **update,
                    **collected.metrics,
                    "seconds/preprocess": waited,
                    "seconds/update": ended - began - waited - collected.seconds,
                }
                folder.append("metrics.jsonl", [row])
                rollouts = ({"step": position.step, **rollout} for rollout in collected.rollouts)
                folder.append("rollouts.jsonl", rollouts)
                bar.show(row)
                every = recipe.checkpoint.every
                if stopped or (every and position.step % every == 0):
                    state = {
                        "position": asdict(position),
                        "optimizer": optimizer.state_dict(),
                        "learner": learner.state_dict(),
                    }
                    folder.write_checkpoint(policy, state, step=position.step, keep=recipe.checkpoint.keep)
                if stopped:
                    raise KeyboardInterrupt
    folder.write_final(policy, getattr(torch, recipe.model.save_dtype))
    return RunResult(run_dir, folder.final, position.step)


def update_weights(
    policy: Policy,
    optimizer: Optimizer,
    learner: Learner,
    work: Sequence[Any],
    rate: float,
    recipe: Recipe,
) -> Metrics:
    """One optimizer step on all of `work`; none if the loss or the gradient is not finite."""
    optimizer.zero_grad(set_to_none=True)
    totals: dict[str, torch.Tensor] = {"loss": torch.zeros((), device=policy.device)}
    for part in work:
        with autocast(policy, recipe):
            loss, sums = learner.loss(part)
        loss.backward()
        for name, value in {"loss": loss.detach(), **sums}.items():
            totals[name] = totals.get(name, 0) + value
    limit = recipe.optimizer.max_grad_norm or math.inf
    norm = nn.utils.clip_grad_norm_(policy.model.parameters(), limit)
    if torch.isfinite(norm + totals["loss"]):
        for parameters in optimizer.param_groups:
            parameters["lr"] = rate
        optimizer.step()
    return {**{name: float(total) for name, total in totals.items()}, "grad_norm": float(norm)}


def load(recipe: Recipe, folder: Path) -> Policy:
    """The policy in `folder`, as the recipe's model table says."""
    return load_policy(folder, device=recipe.model.device, dtype=recipe.model.dtype)


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
    if stream.num_samples is None:
        raise RecipeError(f"phase {phase.name}: scenes never end, so set train.steps or train.minutes")
    return math.ceil(phase.epochs * stream.num_samples / phase.batch_size)


def phase_progress(phase: Phase, position: Position, steps: int) -> float:
    """The share of the phase that is done, in steps or in time, whichever is further."""
    spent = position.phase_seconds / (60 * phase.minutes) if phase.minutes else 0.0
    return min(1.0, max(position.phase_step / steps, spent))


def overall_progress(recipe: Recipe, position: Position, steps: int) -> float:
    """The share of the whole run that is done; phases count alike."""
    done = phase_progress(recipe.phases[position.phase], position, steps)
    return (position.phase + done) / len(recipe.phases)


def learning_rate(phase: Phase, step: int, progress: float) -> float:
    """The rate for step `step` of a phase of which `progress` is done."""
    peak, final = phase.learning_rate, phase.final_learning_rate
    if step < phase.warmup_steps:
        return peak * (step + 1) / phase.warmup_steps
    remaining = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": (1 + math.cos(math.pi * progress)) / 2,
    }[phase.schedule]
    return final + (peak - final) * remaining


def initial_model(recipe: Recipe, run_dir: Path) -> Path:
    """The folder of the model that training starts from."""
    if recipe.model.path != "tiny-random":
        return model_folder(recipe.model.path)
    from visionr1.models.tiny import build_tiny

    folder = run_dir / "initial"
    if not folder.exists():
        build_tiny(folder, seed=recipe.seed)
    return folder


class _Steps(Dataset[Any]):
    """Step number -> the step's samples and what the learner prepared of them."""

    def __init__(self, learner: Learner, stream: Stream) -> None:
        self.learner, self.stream = learner, stream

    def __getitem__(self, step: int) -> tuple[list[str], Any]:
        samples = self.stream.batch(step)
        try:
            return [sample.id for sample in samples], self.learner.prepare(samples)
        except VisionR1Error as error:  # travels from the worker as it is, and is raised below
            return [], error


def prepared_batches(
    learner: Learner, stream: Stream, start: int, stop: int, workers: int
) -> Iterator[tuple[list[str], Any]]:
    """Sample ids and prepared samples of steps `start` to `stop`, made ahead by `workers`."""
    loader = DataLoader(
        _Steps(learner, stream),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        collate_fn=_as_it_is,
    )
    for ids, prepared in loader:
        if isinstance(prepared, VisionR1Error):
            raise prepared
        yield ids, prepared


def _as_it_is(item: Any) -> Any:
    return item


def not_finite(metrics: Metrics, position: Position, samples: Sequence[str], folder: RunFolder) -> str:
    """What to say when a loss or gradient is not a number."""
    kept = folder.latest_checkpoint()
    return (
        f"step {position.step + 1}: loss {metrics['loss']}, gradient norm {metrics['grad_norm']}; "
        f"samples: {', '.join(samples)}. The weights were not changed by it; "
        f"last checkpoint: {kept or 'none'}. Try a lower learning rate"
    )


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that is empty until the process is asked to stop; asked twice, it stops at once."""
    received: list[int] = []

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
