"""Training: data -> (rollout -> score ->) loss -> step, with checkpoints, exact resume, metrics and evaluation.

`train` is read from top to bottom; what a step does with its samples is in `learners`. Everything
random is drawn from the recipe's seed and the step's number, so a resumed run needs no random state
to continue as if it had never stopped. Where a launcher has started several processes, each runs
this file on its part of every step's samples (see `distributed`); the main rank writes.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn

from visionr1.errors import TrainingError
from visionr1.models.attention.block_sparse import compiling_long_rows
from visionr1.models.loading import load_policy
from visionr1.models.memory.cpu import give_back_memory
from visionr1.models.policy import Policy
from visionr1.models.trainable import make_trainable
from visionr1.progress import Bar, describe_step
from visionr1.rollout.engine import RolloutEngine, StreamingEngine, copies_weights
from visionr1.rollout.engines.builtin import generate
from visionr1.training.batches import Batch, prepared_batches
from visionr1.training.distributed import (
    Trained,
    check_processes,
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
from visionr1.training.faults import (
    check_weights,
    explain_lost_workers,
    explain_not_finite,
    explain_unfit_state,
    stop_signals,
)
from visionr1.training.learners import Learner, Metrics, make_learner
from visionr1.training.optimizers import Optimizer, make_optimizer
from visionr1.training.recipe import Phase, Recipe
from visionr1.training.run_folder import RunFolder, initial_model
from visionr1.training.run_lock import lock_run
from visionr1.training.schedule import Position, learning_rate, num_steps, overall_progress, phase_progress
from visionr1.training.stream import Stream, check_data_unchanged, describe_data, open_stream, share
from visionr1.training.trackers import open_trackers
from visionr1.training.validate import LOG as EVALUATIONS
from visionr1.training.validate import Validation
from visionr1.training.zero import distribute

STEPS_UNTIL_TRIM = 8
"""Steps on a CPU after which freed memory is given back to the system: at each it took a fifth of a small step."""
SKIPPED = "skipped.jsonl"
"""The log of samples that could not be used."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunResult:
    """The outcome of a run."""

    run_dir: Path
    model_dir: Path
    """The folder final/ of the run."""
    steps: int
    was_finished: bool = False
    """The run had ended before, and nothing was done."""
    skipped: int = 0
    """Samples that could not be used."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
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
    """A description of each source, by its place in the recipe."""
    skipped: set[str]
    """The ids of the samples that could not be used so far."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step of all ranks, as the logs keep it."""

    metrics: Metrics
    """Its row of metrics.jsonl."""
    rollouts: list[Metrics]
    """Its rows of rollouts.jsonl, one for each completion."""
    skipped: list[Metrics]
    """Its rows of skipped.jsonl."""
    stopping: bool
    """True if a rank was asked to stop."""


def train(recipe: Recipe, run_dir: Path, *, resume: bool = False, progress: bool = True) -> RunResult:
    """Run `recipe` in folder `run_dir`; see `run_folder` for what it leaves there.

    Raises RecipeError, DataError, CheckpointError or TrainingError. An interrupt (Ctrl-C, SIGTERM, SIGHUP)
    ends the run after the step in progress, with a checkpoint, by KeyboardInterrupt. To resume a
    finished run reads and changes nothing.
    """
    recipe.check_ends()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    accelerator = make_accelerator(recipe.model.device)

    # All ranks stop here or none: the first decides.
    folder = RunFolder(run_dir)
    is_finished = gather([resume and folder.is_finished(recipe)])[0]
    if is_finished:
        steps = len(folder.rows("metrics.jsonl"))
        return RunResult(run_dir, folder.final, steps, was_finished=True)

    # Open everything that the run will read: missing data end it before the model is loaded.
    streams = [open_stream(phase, (recipe.seed, i)) for i, phase in enumerate(recipe.phases)]
    validation = Validation.open(recipe.eval) if recipe.eval.every else None
    data = describe_data(recipe, streams, validation.asked if validation else None)

    # What cannot be opened is refused before anything is put into the folder, the file of its lock included.
    writes = accelerator.is_main_process
    RunFolder(run_dir, writes=writes).check(recipe, resume=resume)
    with explain_lost_ranks(), explain_lost_workers(), lock_run(run_dir, writes=writes):
        run = start(recipe, run_dir, accelerator, data, resume=resume)
        done = run.position.step
        bar = Bar(enabled=progress and accelerator.is_main_process)
        trackers = open_trackers(recipe, run_dir, done=done, enabled=accelerator.is_main_process)
        with stop_signals() as stopped, bar, trackers as track:
            for index in range(run.position.phase, len(recipe.phases)):
                run.position.enter(index)
                train_phase(run, streams[index], validation, stopped, bar, track)
        check_run_weights(run)
        run.folder.write_model("final", run.policy, getattr(torch, recipe.model.save_dtype), full_weights(run))
        accelerator.wait_for_everyone()
    return RunResult(run_dir, run.folder.final, run.position.step, skipped=len(run.skipped))


def start(
    recipe: Recipe, run_dir: Path, accelerator: Accelerator, data: dict[str, str], *, resume: bool
) -> TrainingRun:
    """Return the run at its newest checkpoint, or at its beginning; the main rank makes its folder."""
    check_processes(recipe, accelerator)
    with accelerator.main_process_first():
        folder = RunFolder.open(run_dir, recipe, resume=resume, writes=accelerator.is_main_process)
        initial = initial_model(recipe, folder)
    checkpoint = folder.latest_checkpoint()

    # A launcher gives each of several ranks its own device; a single one takes the recipe's.
    device = str(accelerator.device)
    if accelerator.num_processes == 1:
        device = recipe.model.device
    policy = load(recipe, checkpoint or initial, initial, device)
    make_trainable(policy, recipe.model, recipe.lora, seed=recipe.seed)
    policy.model.eval()  # to stay: with dropout, the policy that samples would not be the one that is scored
    optimizer = make_optimizer(policy.model, recipe.optimizer)
    if accelerator.is_fsdp2:
        policy.computes_on = accelerator.device  # its shards may be offloaded

    # Distribute model and optimizer over the ranks, as the launcher says.
    if not policy.path.uses_all_weights:
        accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=True)
    trained, optimizer = distribute(Trained(policy.model), optimizer, accelerator)
    load_reference = partial(load, recipe, initial, initial, device)
    learner = make_learner(policy, recipe, load_reference, partial(wrap_frozen, accelerator))

    # Go back to where the checkpoint was written; rows that came after it go.
    position = Position()
    log_lengths: dict[str, int] = {}
    if checkpoint:
        state = folder.read_state(checkpoint)
        check_data_unchanged(state["data"], data, checkpoint)
        with explain_unfit_state(checkpoint):
            optimizer.load_state_dict(state["optimizer"])
            learner.load_state_dict(state["learner"])
            position = Position(**state["position"])
            position.check(len(recipe.phases))
        log_lengths = state["log_lengths"]
    folder.cut_logs(log_lengths)
    accelerator.wait_for_everyone()
    return TrainingRun(
        recipe=recipe,
        folder=folder,
        accelerator=accelerator,
        policy=policy,
        trained=trained,
        learner=learner,
        optimizer=optimizer,
        position=position,
        evaluations=folder.rows(EVALUATIONS, recipe.eval.metric, int | float),
        data=data,
        skipped={row["sample_id"] for row in folder.rows(SKIPPED, "sample_id", str)},
    )


def train_phase(
    run: TrainingRun,
    stream: Stream,
    validation: Validation | None,
    stopped: Sequence[int],
    bar: Bar,
    track: Callable[[Metrics], None],
) -> None:
    """Train to the end of the phase that the run is in, or until validation says that training is over.

    Raises KeyboardInterrupt after a checkpoint once `stopped` is not empty on some rank.
    """
    recipe = run.recipe
    position = run.position
    phase = recipe.phases[position.phase]
    steps = num_steps(phase, stream)
    batches = prepared_batches(
        run.learner,
        stream,
        range(position.phase_step, steps),
        rank=run.accelerator.process_index,
        world_size=run.accelerator.num_processes,
        workers=recipe.workers,
    )

    over = validation is not None and validation.is_over(run.evaluations)
    while not over and phase_progress(phase, position, steps) < 1:
        report = take_step(run, phase, steps, batches, stopped)
        run.folder.append("metrics.jsonl", [report.metrics])
        run.folder.append("rollouts.jsonl", report.rollouts)
        run.folder.append(SKIPPED, report.skipped)
        track(report.metrics)
        bar.show(*describe_step(report.metrics))

        if validation and position.step % recipe.eval.every == 0:
            over = evaluate(run, validation)
            figures = {f"eval/{name}": value for name, value in run.evaluations[-1].items()}
            track({**figures, "step": position.step})

        # An interrupt loses no step: the run ends with a checkpoint whatever its number.
        every = recipe.checkpoint.every
        if report.stopping or (every and position.step % every == 0):
            write_checkpoint(run)
        if report.stopping:
            raise KeyboardInterrupt


def take_step(
    run: TrainingRun, phase: Phase, steps: int, batches: Iterator[Batch], stopped: Sequence[int]
) -> StepReport:
    """Do one step of the run's phase, which has `steps` steps; return what the logs keep of it.

    Raises TrainingError if a loss or gradient is not finite. All ranks must call it.
    """
    recipe, position, accelerator = run.recipe, run.position, run.accelerator
    began = time.perf_counter()
    rate = learning_rate(phase, position.phase_step, steps, phase_progress(phase, position, steps))
    batch = next(batches)
    waited = time.perf_counter() - began

    # A sample's seed is that of its place in the batch, on whatever rank it is.
    places = share(range(phase.batch_size), accelerator.process_index, accelerator.num_processes)
    seeds = [(recipe.seed, position.phase, position.phase_step, place) for place in places]

    def collect() -> Any:
        whole = unshard_parameters(run.trained, accelerator, run.learner.whole_modules())
        with autocast(run.policy, recipe), whole:
            return run.learner.collect(batch.prepared, seeds, overall_progress(recipe, position, steps))

    with torch.no_grad():
        collected = run.trained(collect)
    update = update_on_batch(run, batch, collected.work, rate)
    post_update = run.learner.post_update_metrics(collected.work)
    # What is given back must be asked for again, page by page, so not at each step.
    if run.policy.device.type == "cpu" and (position.step + 1) % STEPS_UNTIL_TRIM == 0:
        give_back_memory()

    # The first rank's clock counts, so that all ranks end a phase of minutes at the same step.
    reports = gather([(time.perf_counter() - began, bool(stopped))])
    seconds = reports[0][0]
    stopping = any(is_stopped for _, is_stopped in reports)
    position.advance(seconds)
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
    skipped = [{"step": position.step, **asdict(sample)} for sample in gather(batch.skipped)]
    if any(data.on_bad == "skip" for data in phase.data):
        row["skipped_samples"] = len(skipped)
    name_skipped(run, skipped)
    return StepReport(row, rollouts, skipped, stopping)


def update_on_batch(run: TrainingRun, batch: Batch, work: Sequence[Any], rate: float) -> Metrics:
    """Do the optimizer steps on one batch's `work`; return the metrics of the last one.

    Raises TrainingError, which names the samples at fault, if a loss or gradient is not finite.
    """
    metrics: Metrics = {}
    for updates_done in range(run.learner.updates):
        metrics = update_weights(run, work, rate)
        if math.isfinite(metrics["loss"] + metrics["grad_norm"]):
            continue

        # Where no part alone shows it, all samples of the step are named.
        suspects = [batch.sample_ids[place] for place in find_not_finite(run, work)]
        samples = gather(suspects) or gather(batch.sample_ids)
        step = run.position.step + 1
        checkpoint = run.folder.latest_checkpoint()
        raise TrainingError(explain_not_finite(metrics, updates_done, step, samples, checkpoint))
    return metrics


def name_skipped(run: TrainingRun, rows: Sequence[Metrics]) -> None:
    """Warn of samples that a step skipped, of each once in a run."""
    for row in rows:
        if row["sample_id"] not in run.skipped:
            run.skipped.add(row["sample_id"])
            if run.accelerator.is_main_process:
                _log.warning("sample %s is skipped: %s", row["sample_id"], row["reason"])


def update_weights(run: TrainingRun, work: Sequence[Any], rate: float) -> Metrics:
    """Do one optimizer step on all ranks' `work`; none if the loss or the gradient is not finite."""
    accelerator, optimizer = run.accelerator, run.optimizer

    # Add up the sums of this rank's parts, then of all ranks.
    totals: dict[str, torch.Tensor] = {"loss": torch.zeros((), device=run.policy.device)}
    parts = list(equal_passes(work))
    for number, (part, counts) in enumerate(parts, 1):
        for name, value in backward(run, part, counts, last=number == len(parts)).items():
            totals[name] = totals.get(name, 0) + counts * value
    totals = accelerator.reduce(totals, "sum")

    norm = gradient_norm(run, run.recipe.optimizer.max_grad_norm or math.inf)
    metrics = {name: float(total) for name, total in totals.items()}
    metrics["grad_norm"] = norm
    if math.isfinite(metrics["loss"] + metrics["grad_norm"]):
        for parameters in optimizer.param_groups:
            parameters["lr"] = rate
        try:
            optimizer.step()
        except RuntimeError as error:
            # Some optimizers hand the rate to torch as a float32.
            if "without overflow" not in str(error):
                raise
            step = run.position.step + 1
            raise TrainingError(
                f"step {step}: a learning rate of {rate:g} makes weights that are not finite; lower it"
            ) from error
        optimizer.zero_grad(set_to_none=True)  # not to be held through the next rollout
    return metrics


def backward(run: TrainingRun, part: Any, counts: bool, *, last: bool) -> Metrics:
    """Add a part's gradient, or nothing unless it `counts`; return its loss and sums.

    `last` marks the last part of a step, with which DDP reduces the gradients of all of them.
    """
    accelerator = run.accelerator

    def measure() -> tuple[torch.Tensor, Metrics]:
        with autocast(run.policy, run.recipe):
            return run.learner.loss(part)

    with reduce_gradients(run.trained, accelerator, last=last):
        loss, sums = run.trained(measure)
        with compiling_long_rows():
            (loss * (counts * accelerator.num_processes)).backward()  # ranks' gradients are averaged
    return {"loss": loss.detach(), **sums}


def gradient_norm(run: TrainingRun, limit: float = math.inf) -> float:
    """Scale the gradient down to norm `limit`; return its norm before."""
    return float(run.optimizer.clip(run.trained, run.accelerator, limit))


def evaluate(run: TrainingRun, validation: Validation) -> bool:
    """Measure the policy, keep it in best/ if it is the best so far, and return True if training should end."""

    # Weights that are not finite would be measured as a model that finds nothing.
    check_run_weights(run)

    # An engine with a copy of the weights runs none of this model's layers.
    engine: RolloutEngine = generate
    whole_modules = None
    if isinstance(run.learner.engine, StreamingEngine):
        engine = run.learner.engine
        whole_modules = () if copies_weights(engine) else None

    def measure() -> Metrics:
        with unshard_parameters(run.trained, run.accelerator, whole_modules):
            return validation.measure(run.policy, run.accelerator.process_index, run.accelerator.num_processes, engine)

    with torch.no_grad():
        figures = run.trained(measure)
    run.evaluations.append({"step": run.position.step, **figures})
    run.folder.append(EVALUATIONS, run.evaluations[-1:])
    if validation.is_best(run.evaluations):
        run.folder.write_model("best", run.policy, getattr(torch, run.recipe.model.save_dtype), full_weights(run))
    return validation.is_over(run.evaluations)


def write_checkpoint(run: TrainingRun) -> None:
    """Write all that the run needs to go on from here, on any number of ranks.

    Raises TrainingError, and writes and deletes nothing, if a weight is not finite.
    """
    check_run_weights(run)
    state = {
        "position": asdict(run.position),
        "optimizer": gather_full_state(run.optimizer.state_dict(), run.accelerator),
        "learner": run.learner.state_dict(),
        "data": run.data,
    }
    run.folder.write_checkpoint(
        run.policy, state, step=run.position.step, keep=run.recipe.checkpoint.keep, weights=full_weights(run)
    )


def check_run_weights(run: TrainingRun) -> None:
    """Raise TrainingError if a weight is not finite: each folder that is written would take the place of a good one."""
    check_weights(run.policy.model, run.position.step, run.folder.latest_checkpoint())


def full_weights(run: TrainingRun) -> dict[str, torch.Tensor] | None:
    """Gather the model's weights where ranks hold shards; return None where each holds all."""
    if not run.accelerator.is_fsdp2:
        return None
    return gather_full_state(run.policy.model.state_dict(), run.accelerator)


def load(recipe: Recipe, folder: Path, base: Path, device: str) -> Policy:
    """Load the policy in `folder`, whose adapters belong to the model in `base`, as the recipe's model table says."""
    return load_policy(
        folder,
        device=device,
        dtype=recipe.model.dtype,
        dialect=recipe.model.dialect or None,
        max_pixels=recipe.model.max_pixels or None,
        template=recipe.model.template or None,
        quantization=recipe.model.quantization,
        base=base,
    )


def autocast(policy: Policy, recipe: Recipe) -> torch.autocast:
    """Return a context with the recipe's precision of matrix products."""
    enabled = recipe.model.autocast != "none"
    return torch.autocast(policy.device.type, dtype=torch.bfloat16, enabled=enabled)


def find_not_finite(run: TrainingRun, work: Sequence[Any]) -> list[int]:
    """Return the places, among this rank's samples, of those with a loss or gradient that is not finite.

    The step has added the gradients up, so each part is computed again alone. Shards show it on all ranks.
    """
    places: set[int] = set()
    for part, counts in equal_passes(work):
        run.optimizer.zero_grad(set_to_none=True)
        loss = backward(run, part, True, last=is_sharded(run.accelerator))["loss"]
        norm = gradient_norm(run)
        if counts and not math.isfinite(float(loss) + norm):
            # A sample's completions follow each other.
            for completion in part.rows.completion.tolist():
                places.add(completion // run.learner.group_size)
    return sorted(places)
