"""Memory by part and process: what a simulated step holds where several processes train one model.

A part that ranks hold in shards is divided by their number; what they put together for a while is added. The peak is
found anew for each layout, for it may be at another moment.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from visionr1.training.distributed import Sharding
from visionr1.training.planning.engine import CACHE
from visionr1.training.planning.machine import COLLECTIVE_BYTES, CONTEXT_BYTES, FRAGMENTATION, GIB, Machine
from visionr1.training.planning.simulation import HELD, Simulation
from visionr1.training.recipe import Recipe

SHARDED: Mapping[Sharding, tuple[str, ...]] = {
    "none": (),
    "fsdp2": HELD,
    "zero2": ("gradients", "optimizer state"),
}
"""The parts of which each rank holds its share."""
CUDA, PYTHON, VLLM = "CUDA and libraries", "Python and libraries", "vLLM"
FIXED = (CUDA, PYTHON, VLLM)
"""Parts that are the same whatever model, samples and settings are."""
OFFLOADED = ("optimizer state", "float32 copies", "optimizer step")
"""Parts that `optimizer.offload` puts into the CPU's memory."""
NF4_BITS = 4.127
"""Of a weight in 4 bits with its scales, rounded twice."""
WEIGHT_BYTES = {"float32": 4, "bfloat16": 2}
ZERO_BUCKET = 5e8
"""Elements of DeepSpeed's buckets, its default."""
PYTHON_BYTES = 0.5 * GIB
"""Of a process with torch and transformers, before any tensor."""
PREFETCHED = 2
"""Steps that torch's DataLoader has each worker prepare ahead."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How processes train one model."""

    gpus: int = 1
    """Processes, one for each GPU; one on a CPU."""
    sharding: Sharding = "none"
    """As the launcher's configuration says."""


@dataclass(frozen=True, slots=True)
class Process:
    """Processes of one kind and the memory of each."""

    name: str
    number: int
    where: str
    """The memory that it takes: "GPU" or "CPU"."""
    parts: Mapping[str, float]
    """Bytes by part at the peak."""
    phase: str = ""
    """When the peak is."""

    @property
    def total(self) -> float:
        """Bytes of all parts."""
        return sum(self.parts.values())

    @property
    def changeable(self) -> float:
        """Bytes of the parts that a change of the run can make smaller."""
        return sum(size for part, size in self.parts.items() if part not in FIXED)


def phase_memory(
    simulation: Simulation, recipe: Recipe, layout: Layout, machine: Machine
) -> dict[str, dict[str, float]]:
    """Return the bytes of a training process by part, at the peak of each phase."""
    scales = _scales(simulation, recipe, layout, machine)
    memory = {}
    for phase, parts in _peaks(simulation, scales).items():
        parts = {**parts, **_gathered(simulation, layout, phase)}
        parts["weight made of 4 bits"] = simulation.quantized_bytes
        if machine.is_gpu and recipe.model.offload_reference and phase != "scoring":
            parts["reference"] = 0.0
        if samples_by_vllm_here(recipe) and (phase == "rollout" or not recipe.rollout.vllm_sleep):
            parts[VLLM] = recipe.rollout.vllm_memory * machine.memory

        # What a step makes and frees again is cut into pieces.
        if machine.is_gpu:
            made = sum(size for part, size in parts.items() if part not in (*HELD, *FIXED, "images"))
            parts["fragmentation"] = FRAGMENTATION * made
            parts[CUDA] = CONTEXT_BYTES + (COLLECTIVE_BYTES if layout.gpus > 1 else 0)
        else:
            parts[PYTHON] = PYTHON_BYTES
        memory[phase] = {part: size for part, size in parts.items() if size}
    return memory


def samples_by_vllm_here(recipe: Recipe) -> bool:
    """Return True if vLLM shares the training process's memory."""
    return recipe.method == "grpo" and recipe.rollout.engine == "vllm"


def training_process(memory: Mapping[str, Mapping[str, float]], layout: Layout, machine: Machine) -> Process:
    """Return the training process at its highest phase."""
    phase = max(memory, key=lambda name: sum(memory[name].values()))
    return Process("training", layout.gpus, "GPU" if machine.is_gpu else "CPU", memory[phase], phase)


def worker_process(recipe: Recipe, layout: Layout, prepared_bytes: float) -> Process | None:
    """Return the processes that prepare images; `prepared_bytes` are those of a step of one rank."""
    if not recipe.workers:
        return None
    parts = {"prepared images": PREFETCHED * prepared_bytes, PYTHON: PYTHON_BYTES}
    return Process("data worker", recipe.workers * layout.gpus, "CPU", parts, "always")


def _scales(simulation: Simulation, recipe: Recipe, layout: Layout, machine: Machine) -> dict[str, float]:
    """Return what a part's bytes are multiplied with, where it is not 1."""
    scales = dict.fromkeys(SHARDED[layout.sharding], 1 / layout.gpus)
    scales["4-bit weights"] = NF4_BITS / (8 * WEIGHT_BYTES[recipe.model.dtype])
    scales["optimizer state"] = scales.get("optimizer state", 1.0) * simulation.moments_scale
    if machine.is_gpu:
        scales[CACHE] = simulation.cache_scale_on_gpu
        if recipe.optimizer.offload:
            scales.update(dict.fromkeys(OFFLOADED, 0.0))
    return scales


def _peaks(simulation: Simulation, scales: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return the bytes by part at the peak of each phase."""
    # Every storage's scale, looked up once.
    factors = [scales.get(label, 1.0) for label in simulation.labels]
    phase_at: dict[int, tuple[str, int]] = {}
    for phase, spans in simulation.spans.items():
        for begin, end in spans:
            phase_at[begin] = (phase, end)

    peaks: dict[str, float] = {}
    peak_places: dict[str, int] = {}
    total = 0.0
    phase, phase_end = "", 0
    for place, (number, size) in enumerate(simulation.events):
        if place in phase_at:
            phase, phase_end = phase_at[place]
            if total > peaks.get(phase, -1.0):
                peaks[phase], peak_places[phase] = total, place
        total += factors[number] * size
        if place < phase_end and total > peaks.get(phase, -1.0):
            peaks[phase], peak_places[phase] = total, place + 1
    return {name: _parts_at(simulation, factors, place) for name, place in peak_places.items()}


def _parts_at(simulation: Simulation, factors: list[float], place: int) -> dict[str, float]:
    """Return the bytes by part after the first `place` events."""
    parts: dict[str, float] = {}
    for number, size in simulation.events[:place]:
        label = simulation.labels[number]
        parts[label] = parts.get(label, 0.0) + factors[number] * size
    return {label: size for label, size in parts.items() if size > 0.5}


def _gathered(simulation: Simulation, layout: Layout, phase: str) -> dict[str, float]:
    """Return what the ranks put together or exchange in a phase."""
    trainable = simulation.trainable_bytes
    if layout.sharding == "zero2":
        # DeepSpeed reduces gradients in a bucket, and keeps a float32 copy of its shard of the weights.
        bucket = min(ZERO_BUCKET * 4, trainable)
        return {"ZeRO's bucket": bucket, "ZeRO's copy of weights": trainable / layout.gpus}
    if layout.sharding == "none":
        # DDP's buckets hold every gradient a second time.
        return {"all-reduce buckets": trainable if layout.gpus > 1 else 0.0}

    units = simulation.units
    together = units.root + units.two_layers
    if phase == "optimizer":
        return {}
    if phase == "update":
        share = trainable / simulation.weight_bytes
        return {"layers put together": together, "gradients of these": together * share}
    gathered = {"weights put together": simulation.whole_bytes}
    if phase == "scoring" and simulation.has_own_reference:
        gathered["layers of the reference"] = together
    return gathered
