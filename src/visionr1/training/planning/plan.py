"""The plan of a run: memory by part and process, tokens and seconds by phase, and whether it fits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from visionr1.models.policy import Policy
from visionr1.rewards.stages import BEGINNER
from visionr1.rollout.settings import BY_VLLM
from visionr1.training.distributed import check_layout
from visionr1.training.learners import encode, make_rewards
from visionr1.training.planning.machine import Machine
from visionr1.training.planning.meter import Work
from visionr1.training.planning.processes import (
    Layout,
    Process,
    phase_memory,
    samples_by_vllm_here,
    training_process,
    worker_process,
)
from visionr1.training.planning.simulation import VISION, Simulation, load_sized_policy, simulate
from visionr1.training.planning.workload import Workload, assume_workload, read_workload
from visionr1.training.recipe import Recipe

ALWAYS = (
    "communication between GPUs takes no time, and evaluations and checkpoints are not counted",
    "the reference and the update run every completion; rows that end early leave the batch, which is not counted",
)


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of a step, of one process."""

    name: str
    tokens: int
    """That go through the language model, of a mean step."""
    flops: float
    seconds: float
    memory: Mapping[str, float]
    """Bytes by part at its peak, where samples are as large as the largest; empty where nothing runs on the device."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will take."""

    recipe: Recipe
    layout: Layout
    machine: Machine
    model_type: str
    path: str
    """How prompts share their prefix: "packed" or "generic"."""
    num_parameters: int
    num_trainable: int
    workload: Workload
    num_samples: int
    """Samples of a step on each process."""
    num_micro_batches: int
    processes: tuple[Process, ...]
    phases: tuple[Phase, ...]
    assumptions: tuple[str, ...]

    @property
    def peak(self) -> float:
        """Bytes of a training process at its peak."""
        return self.processes[0].total

    @property
    def changeable(self) -> float:
        """Bytes of that which a change of the run can make smaller."""
        return self.processes[0].changeable

    @property
    def fits(self) -> bool:
        """True if a training process has the memory that it takes."""
        return self.peak <= self.machine.memory

    @property
    def step_seconds(self) -> float:
        """Of a step."""
        return sum(phase.seconds for phase in self.phases)


class Planner:
    """Plans of one recipe and of changes to it: a step that was run once is not run again."""

    def __init__(self, machine: Machine, image_wh: tuple[int, int] | None = None) -> None:
        """`image_wh` takes the place of the recipe's data, which are not read then."""
        self.machine = machine
        self.image_wh = image_wh
        self._workloads: dict[str, tuple[Policy, Workload]] = {}
        self._simulations: dict[str, Simulation] = {}

    def plan(self, recipe: Recipe, layout: Layout) -> Plan:
        """Return the plan of `recipe` for processes laid out so.

        Raises CheckpointError, DataError or RecipeError if model, data or recipe cannot be used.
        """
        check_layout(recipe, layout.gpus, layout.sharding)
        policy, workload = self._open(recipe)
        num_samples = -(-max(phase.batch_size for phase in recipe.phases) // layout.gpus)
        simulation = self._simulate(recipe, workload, num_samples)
        memory = phase_memory(simulation, recipe, layout, self.machine)

        phases = [
            replace(phase, memory=memory.get(phase.name, {}))
            for phase in _phases(recipe, policy, workload, simulation, num_samples, self.machine)
        ]
        prepared = num_samples * sum(value.nbytes for value in workload.prompt.inputs.values())
        processes = [training_process(memory, layout, self.machine), worker_process(recipe, layout, prepared)]
        return Plan(
            recipe=recipe,
            layout=layout,
            machine=self.machine,
            model_type=policy.config.model_type,
            path="packed" if policy.path.packs_rows else "generic",
            num_parameters=simulation.num_parameters,
            num_trainable=simulation.num_trainable,
            workload=workload,
            num_samples=num_samples,
            num_micro_batches=simulation.num_micro_batches,
            processes=tuple(process for process in processes if process is not None),
            phases=tuple(phases),
            assumptions=(*workload.assumptions, *_assumptions(recipe, layout), *self.machine.assumptions),
        )

    def _open(self, recipe: Recipe) -> tuple[Policy, Workload]:
        """Return the model without content and the workload, of a recipe's model and data."""
        data = [phase.data for phase in recipe.phases]
        key = repr((recipe.model.path, recipe.model.max_pixels, recipe.model.template, recipe.model.dialect, data))
        if key not in self._workloads:
            policy = load_sized_policy(recipe)
            if self.image_wh is None:
                workload = read_workload(policy, recipe)
            else:
                workload = assume_workload(policy, recipe, self.image_wh)
            self._workloads[key] = policy, workload
        return self._workloads[key]

    def _simulate(self, recipe: Recipe, workload: Workload, num_samples: int) -> Simulation:
        """Return the step of so many samples, from before if it was run."""
        sections = (recipe.method, recipe.model, recipe.lora, recipe.optimizer, recipe.rollout, recipe.grpo)
        key = repr((*sections, len(workload.prompt.input_ids), num_samples))
        if key not in self._simulations:
            self._simulations[key] = simulate(recipe, workload, num_samples, self.machine)
        return self._simulations[key]


def plan(
    recipe: Recipe, machine: Machine, layout: Layout | None = None, image_wh: tuple[int, int] | None = None
) -> Plan:
    """Return the plan of `recipe` on `machine`; see `Planner`, which plans changes of it too."""
    return Planner(machine, image_wh).plan(recipe, layout or Layout())


def _phases(
    recipe: Recipe, policy: Policy, workload: Workload, simulation: Simulation, num_samples: int, machine: Machine
) -> list[Phase]:
    """Return the phases of a mean step on one process, in order, without their memory."""
    # A mean sample over the largest, in tokens.
    is_sft = recipe.method == "sft"
    group = 1 if is_sft else recipe.rollout.group_size
    longest = workload.longest_truth if is_sft else recipe.rollout.max_new_tokens
    reply = min(workload.mean_truth, longest)
    prompt_tokens = num_samples * workload.mean_prompt
    reply_tokens = num_samples * group * reply
    text_ratio = (workload.mean_prompt + group * reply) / (len(workload.prompt.input_ids) + group * longest)

    def scaled(phase: str, ratio: float) -> Work:
        """Return the work of a phase for mean samples."""
        total = Work()
        for label, work in simulation.works[phase].items():
            total += work * (workload.pixels_ratio if label == VISION else ratio)
        return total

    phases = [Phase("images", 0, 0.0, _image_seconds(recipe, workload, num_samples), {})]
    if not is_sft:
        prefill = scaled("rollout", workload.mean_prompt / len(workload.prompt.input_ids))
        work = prefill + simulation.decoding * reply
        seconds = work.seconds
        if recipe.rollout.engine in BY_VLLM:
            seconds = max(work.flops / machine.flops_half, work.num_bytes / machine.bandwidth)
        phases.append(Phase("rollout", round(prompt_tokens + reply_tokens), work.flops, seconds, {}))
        phases.append(Phase("reward", 0, 0.0, _reward_seconds(recipe, policy, workload) * num_samples * group, {}))
    for name in ("scoring", "update", "optimizer"):
        if name in simulation.works:
            work = scaled(name, 1.0 if name == "optimizer" else text_ratio)
            tokens = 0 if name == "optimizer" else round(prompt_tokens + reply_tokens)
            phases.append(Phase(name, tokens, work.flops, work.seconds, {}))
    return phases


def _image_seconds(recipe: Recipe, workload: Workload, num_samples: int) -> float:
    """Return how long a step waits for its images: workers prepare them beside the rest."""
    return 0.0 if recipe.workers else workload.seconds_per_sample * num_samples


def _reward_seconds(recipe: Recipe, policy: Policy, workload: Workload) -> float:
    """Return how long the reward takes for a completion: the true reply of a sample is scored, and timed."""
    sample = workload.samples[0]
    prompt = encode(policy, sample)
    truth = sample.ground_truth(prompt.input_size_wh)
    text = policy.dialect.render(sample.truth, size_wh=sample.size_wh, input_size_wh=prompt.input_size_wh)
    reward = make_rewards(recipe, policy.dialect)[sample.reward]
    reward.score(text, truth, BEGINNER)  # the first one loads what it needs
    began = time.perf_counter()
    reward.score(text, truth, BEGINNER)
    return time.perf_counter() - began


def _describe_engine(engine: str) -> str:
    """Say what is counted of an engine that is not in the training process, or that is not known."""
    if engine in BY_VLLM:
        return (
            "the vLLM server's memory is not counted; its time is that of its products or weights alone, on one GPU "
            "like these for each process"
        )
    return f"of the engine {engine} no memory is counted, and its time is that of the built-in one"


def _assumptions(recipe: Recipe, layout: Layout) -> list[str]:
    """Say what the plan takes for granted, in words."""
    words = []
    if recipe.method == "grpo":
        words.append(
            f"memory: every completion reaches rollout.max_new_tokens = {recipe.rollout.max_new_tokens}; time: replies "
            "are as long as the true ones"
        )
    if samples_by_vllm_here(recipe):
        words.append("vLLM takes rollout.vllm_memory of the GPU, and its time is that of its products or weights alone")
    elif recipe.method == "grpo" and recipe.rollout.engine != "builtin":
        words.append(_describe_engine(recipe.rollout.engine))
    if recipe.model.offload_activations:
        words.append("model.offload_activations is not counted: what it takes off a GPU comes off the activations")
    if recipe.optimizer.name == "adamw_8bit" or recipe.model.quantization != "none":
        words.append("bitsandbytes' numbers are counted by their sizes, its own workspaces are not")
    if layout.sharding == "zero2":
        words.append("DeepSpeed's memory is computed by its defaults, and not measured")
    if recipe.eval.every:
        words.append("evaluation during training takes no more than a rollout (eval.batch_size)")
    return [*words, *ALWAYS]
