"""A plan in words, as a table for a terminal, and as an object for programs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from visionr1.training.planning.changes import Change
from visionr1.training.planning.machine import GIB
from visionr1.training.planning.plan import Plan

NAME_WIDTH = 24
"""Columns of a part's name."""


def format_plan(plan: Plan, changes: Sequence[Change] | None) -> str:
    """Return the plan as text; `changes` are what would help, where that was asked for or needed."""
    sections = [_format_head(plan), _format_memory(plan), _format_phases(plan)]
    if changes is not None:
        sections.append(_format_changes(plan, changes))
    sections.append("\n".join(["taken for granted:", *(f"  - {text}" for text in plan.assumptions)]))
    return "\n\n".join(sections)


def plan_to_json(plan: Plan, changes: Sequence[Change] | None) -> dict[str, Any]:
    """Return the plan as an object of JSON: bytes, seconds, FLOPs."""
    record: dict[str, Any] = {
        "fits": plan.fits,
        "peak": plan.peak,
        "memory": plan.machine.memory,
        "machine": plan.machine.name,
        "gpus": plan.layout.gpus,
        "sharding": plan.layout.sharding,
        "model": {
            "type": plan.model_type,
            "path": plan.path,
            "parameters": plan.num_parameters,
            "trainable": plan.num_trainable,
        },
        "workload": _workload_to_json(plan),
        "processes": [asdict(process) | {"total": process.total} for process in plan.processes],
        "phases": [asdict(phase) for phase in plan.phases],
        "step_seconds": plan.step_seconds,
        "steps": plan.workload.num_steps,
        "assumptions": list(plan.assumptions),
    }
    if changes is not None:
        record["changes"] = [
            {
                "name": change.name,
                "cost": change.cost,
                "peak": change.plan.peak,
                "step_seconds": change.plan.step_seconds,
                "fits": change.plan.fits,
            }
            for change in changes
        ]
    return record


def _workload_to_json(plan: Plan) -> dict[str, Any]:
    """Return what a step works on: numbers of samples and tokens."""
    workload = plan.workload
    return {
        "samples_read": len(workload.samples),
        "samples_per_process": plan.num_samples,
        "micro_batches": plan.num_micro_batches,
        "prompt_tokens": {"mean": workload.mean_prompt, "largest": len(workload.prompt.input_ids)},
        "image_tokens": {"mean": workload.mean_image, "largest": workload.largest_image},
        "true_reply_tokens": {"mean": workload.mean_truth, "largest": workload.longest_truth},
    }


def _format_head(plan: Plan) -> str:
    """Say what is planned: model, samples, processes."""
    workload = plan.workload
    processes = f"{plan.layout.gpus} processes, each on a {plan.machine.name}"
    if plan.layout.gpus == 1:
        processes = f"one process on a {plan.machine.name}"
    elif plan.layout.sharding != "none":
        processes += f", in shards ({plan.layout.sharding})"
    completions = ""
    if plan.recipe.method == "grpo":
        completions = f" x {plan.recipe.rollout.group_size} completions"
    return "\n".join(
        [
            f"model    {plan.recipe.model.path}: {plan.model_type}, {plan.path} path, {_count(plan.num_parameters)} "
            f"weights, of which {_count(plan.num_trainable)} train",
            f"samples  prompts of {workload.mean_prompt:.0f} tokens ({len(workload.prompt.input_ids)} the longest), "
            f"{workload.mean_image:.0f} of them the image's ({workload.largest_image}); true replies of "
            f"{workload.mean_truth:.0f} ({workload.longest_truth})",
            f"step     {plan.num_samples} samples{completions} a process, in {plan.num_micro_batches} micro-batches",
            f"machine  {processes}",
        ]
    )


def _format_memory(plan: Plan) -> str:
    """List the memory of each kind of process by part, the largest first."""
    lines = []
    for process in plan.processes:
        title = f"memory of {_name_process(process.name, process.number)}, {process.where}"
        lines.append(f"{title}, GiB" + (f" (highest in the {process.phase}):" if process.phase else ":"))
        for part, size in sorted(process.parts.items(), key=lambda item: -item[1]):
            if size >= GIB / 1000:
                lines.append(f"  {part:<{NAME_WIDTH}} {size / GIB:9.3f}")
        lines.append(f"  {'total':<{NAME_WIDTH}} {process.total / GIB:9.3f}")
    verdict = "it fits" if plan.fits else "it does not fit"
    lines.append(f"{verdict}: {plan.peak / GIB:.2f} GiB of {plan.machine.memory / GIB:.2f}")
    return "\n".join(lines)


def _name_process(name: str, number: int) -> str:
    return f"a {name} process" if number == 1 else f"each of {number} {name} processes"


def _format_phases(plan: Plan) -> str:
    """List the phases of a step with their tokens, products, seconds and highest memory."""
    lines = [f"{'phase':<10} {'tokens':>9} {'TFLOP':>10} {'seconds':>9} {'GiB':>9}"]
    for phase in plan.phases:
        memory = f"{sum(phase.memory.values()) / GIB:9.3f}" if phase.memory else ""
        row = f"{phase.name:<10} {phase.tokens:9d} {phase.flops / 1e12:10.3f} {phase.seconds:9.3f} {memory}"
        lines.append(row.rstrip())
    tflop = sum(phase.flops for phase in plan.phases) / 1e12
    lines.append(f"{'step':<10} {'':9} {tflop:10.3f} {plan.step_seconds:9.3f}")
    if plan.workload.num_steps:
        hours = plan.workload.num_steps * plan.step_seconds / 3600
        lines.append(f"{plan.workload.num_steps} steps: {hours:.2f} hours")
    return "\n".join(lines)


def _format_changes(plan: Plan, changes: Sequence[Change]) -> str:
    """List the changes that help, each with what it leads to together with those above it."""
    if not changes:
        return "no change of the recipe makes it smaller: take a smaller model"
    lines = ["what would help, the least costly first, each with all above it (GiB at the peak, seconds a step):"]
    for change in changes:
        lines.append(f"  {change.plan.peak / GIB:9.3f} {change.plan.step_seconds:9.3f}  {change.name}")
        lines.append(f"  {'':19}  ({change.cost})")
    if not plan.fits:
        verdict = "with these it fits" if changes[-1].plan.fits else "with all of these it still does not fit"
        lines.append(verdict)
    return "\n".join(lines)


def _count(number: int) -> str:
    """Write a number of weights in words, such as "8.29 billion"."""
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.2f} {name}"
    return str(number)
