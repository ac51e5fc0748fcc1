"""Training: data -> (rollout -> score ->) loss -> step, with checkpoints, exact resume and metrics.

`train` is read from top to bottom. What a step does with its samples is in a learner: `Supervised`
here for SFT. Everything random is drawn from the recipe's seed and the step's number, so a resumed
run needs no random state to continue as if it had never stopped.
"""

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from visionr1 import sft
from visionr1.errors import RecipeError, TrainingError, VisionR1Error
from visionr1.models.policy import Policy, load_policy, model_folder
from visionr1.prefix import Rows, group, pack, split, token_logprobs
from visionr1.recipe import Phase, Recipe
from visionr1.run_folder import RunFolder
from visionr1.samples import Sample
from visionr1.stream import Stream, open_stream

Metrics = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run left."""

    run_dir: Path
    model_dir: Path
    """final/, or the last checkpoint where the run was interrupted."""
    steps: int
    finished: bool


@dataclass(slots=True)
class Position:
    """Where a run is: everything that changes besides weights and optimizer."""

    step: int = 0
    """Optimizer steps done, over all phases."""
    phase: int = 0
    phase_step: int = 0
    phase_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Work:
    """Part of a step's batch that goes through the model at once, with what its loss needs."""

    rows: Rows
    weights: Tensor
    """(N,) per completion token."""


class Learner(Protocol):
    """What one method makes of samples."""

    def prepare(self, samples: list[Sample]) -> Any:
        """The part that needs no model; may run in a worker process."""

    def collect(
        self, prepared: Any, position: Position, progress: float
    ) -> tuple[list[Work], Metrics]:
        """The step's work, split to fit into memory."""

    def loss(self, work: Work) -> Tensor:
        """This part's share of the step's loss."""


class Supervised:
    """SFT: each sample's completion is its rendered truth."""

    def __init__(self, policy: Policy, recipe: Recipe) -> None:
        self.policy = policy
        self.recipe = recipe
        self.token_weights = sft.token_weights(policy, recipe.sft)

    def prepare(self, samples: list[Sample]) -> list[Rows]:
        """Packed rows of one completion each."""
        prompts = [self.policy.encode(sample.load_image(), sample.query) for sample in samples]
        targets = [
            (sft.target(self.policy, sample, prompt, self.recipe.sft),)
            for sample, prompt in zip(samples, prompts, strict=True)
        ]
        groups = split(group(prompts, targets), self.recipe.optimizer.tokens_per_forward)
        return [pack(part) for part in groups]

    def collect(
        self, prepared: list[Rows], position: Position, progress: float
    ) -> tuple[list[Work], Metrics]:
        """Token weights that sum to one over the step."""
        weights = [self.token_weights[rows.targets] for rows in prepared]
        total = sum(part.sum() for part in weights)
        work = [
            Work(rows.to(self.policy.device), part / total)
            for rows, part in zip(prepared, weights, strict=True)
        ]
        return work, {"tokens": sum(len(rows.targets) for rows in prepared)}

    def loss(self, work: Work) -> Tensor:
        """Weighted negative log-likelihood of the truth."""
        logprobs = token_logprobs(self.policy, work.rows, suppress=False)
        return -(work.weights * logprobs).sum()


def train(
    recipe: Recipe, run_dir: Path, *, resume: bool = False, progress: bool = True
) -> RunResult:
    """Run `recipe` in folder `run_dir`; see `run_folder` for what it leaves there.

    Raises RecipeError, DataError, CheckpointError or TrainingError. An interrupt (Ctrl-C, SIGTERM)
    ends the run after the step in progress, with a checkpoint.
    """
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    folder = RunFolder.open(run_dir, recipe, resume=resume)
    checkpoint = folder.latest_checkpoint()
    policy = load_policy(
        checkpoint or initial_model(recipe, run_dir),
        device=recipe.model.device,
        dtype=recipe.model.dtype,
    )
    policy.model.train()
    optimizer = make_optimizer(policy.model, recipe)
    learner = Supervised(policy, recipe)
    position = Position()
    if checkpoint:
        state = folder.read_state(checkpoint)
        optimizer.load_state_dict(state["optimizer"])
        position = Position(**state["position"])
    else:
        folder.cut_logs({})

    def save() -> None:
        state = {
            "step": position.step,
            "position": {name: getattr(position, name) for name in position.__slots__},
            "optimizer": optimizer.state_dict(),
        }
        folder.write_checkpoint(policy, state, keep=recipe.checkpoint.keep)

    with stop_signals() as stopped:
        for index, phase in enumerate(recipe.phases[position.phase :], position.phase):
            if index > position.phase:
                position = Position(step=position.step, phase=index)
            stream = open_stream(phase, (recipe.seed, index))
            steps = num_steps(phase, stream)
            batches = prepared_batches(learner, stream, position.phase_step, steps, recipe.workers)
            while position.phase_step < steps and phase_progress(phase, position, steps) < 1:
                began = time.perf_counter()
                done = phase_progress(phase, position, steps)
                rate = learning_rate(phase, position.phase_step, done)
                samples, prepared = next(batches)
                seconds = {"preprocess": time.perf_counter() - began}
                work, metrics = learner.collect(prepared, position, done)
                metrics |= update(policy, optimizer, learner, work, rate, recipe)
                seconds["update"] = time.perf_counter() - began - sum(seconds.values())
                position.step += 1
                position.phase_step += 1
                position.phase_seconds += time.perf_counter() - began
                if not math.isfinite(metrics["loss"] + metrics["grad_norm"]):
                    raise TrainingError(not_finite(metrics, position, samples, folder))
                row = {
                    "step": position.step,
                    "phase": phase.name,
                    "progress": (index + phase_progress(phase, position, steps))
                    / len(recipe.phases),
                    "learning_rate": rate,
                    **metrics,
                    **{f"seconds/{name}": value for name, value in seconds.items()},
                }
                folder.append("metrics.jsonl", [row])
                if stopped or (
                    recipe.checkpoint.every and position.step % recipe.checkpoint.every == 0
                ):
                    save()
                if stopped:
                    raise KeyboardInterrupt
    folder.write_final(policy, getattr(torch, recipe.model.save_dtype))
    return RunResult(run_dir, folder.final, position.step, finished=True)


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    learner: Learner,
    work: Sequence[Work],
    rate: float,
    recipe: Recipe,
) -> Metrics:
    """One optimizer step on all of `work`. Weights stay as they are if the gradient is not finite."""
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=policy.device)
    for part in work:
        with autocast(policy.device, recipe):
            loss = learner.loss(part)
        loss.backward()
        total += loss.detach()
    limit = recipe.optimizer.max_grad_norm or math.inf
    norm = nn.utils.clip_grad_norm_(policy.model.parameters(), limit)
    if torch.isfinite(norm + total):
        for parameters in optimizer.param_groups:
            parameters["lr"] = rate
        optimizer.step()
    return {"loss": float(total), "grad_norm": float(norm)}


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    settings = recipe.optimizer
    return torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=0.0,
        betas=settings.betas,
        fused=True,
    )


def autocast(device: torch.device, recipe: Recipe) -> torch.autocast:
    """The precision of matrix products that the recipe asks for."""
    enabled = recipe.model.autocast != "none"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def num_steps(phase: Phase, stream: Stream) -> int:
    """The phase's step limit: as stated, or from its epochs, or none where only time limits it."""
    if phase.steps:
        return phase.steps
    if phase.minutes:
        return 10**9
    if stream.num_samples is None:
        raise RecipeError(
            f"phase {phase.name}: scenes never end, so set train.steps or train.minutes"
        )
    return math.ceil(phase.epochs * stream.num_samples / phase.batch_size)


def phase_progress(phase: Phase, position: Position, steps: int) -> float:
    """The share of the phase that is done, in steps or in time, whichever is further."""
    spent = position.phase_seconds / (60 * phase.minutes) if phase.minutes else 0.0
    return min(1.0, max(position.phase_step / steps, spent))


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
        build_tiny(folder, recipe.seed)
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


def not_finite(
    metrics: Metrics, position: Position, samples: Sequence[str], folder: RunFolder
) -> str:
    """What to say when a loss or gradient is not a number."""
    kept = folder.latest_checkpoint()
    return (
        f"step {position.step}: loss {metrics['loss']}, gradient norm {metrics['grad_norm']}; "
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
