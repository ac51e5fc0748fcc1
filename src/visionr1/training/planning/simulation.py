"""One step of a recipe on one process, run by the trainer's own code on tensors without content.

Samples are all as large as the largest that was read, and completions as long as they may get, so that what is counted
is the most that a step takes. Of equal micro-batches two are run: the first, and one that finds gradients there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visionr1.errors import RecipeError
from visionr1.models.adapters import is_adapter_folder, vision_modules
from visionr1.models.loading import load_encoder, model_folder
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.rows import make_groups
from visionr1.models.trainable import make_trainable
from visionr1.rollout.settings import BY_VLLM
from visionr1.training.learners import Reinforced, Supervised, SupervisedWork
from visionr1.training.optimizers import Optimizer, make_optimizer
from visionr1.training.planning.engine import PlannedEngine
from visionr1.training.planning.machine import Machine
from visionr1.training.planning.meter import Meter, Work
from visionr1.training.planning.sized import like, reading_as, remove_content
from visionr1.training.planning.workload import Workload
from visionr1.training.recipe import Recipe

VISION = "vision tower"
LEAST_ROUNDED = 4096
"""Elements of a weight from which bitsandbytes rounds its moments."""
ROUNDED_BLOCK = 256
"""Moments that share a scale."""
HELD = ("weights", "4-bit weights", "reference", "optimizer state", "float32 copies", "gradients")
"""Parts that live from step to step, or are divided where ranks hold shards."""


@dataclass(frozen=True, slots=True)
class Units:
    """Bytes of the weights that FSDP2 puts together at a time."""

    root: float
    """Of those in no layer: they stay whole through a pass."""
    two_layers: float
    """Of the largest layer, twice: while one computes the next one is gathered."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a step of one process made."""

    events: Sequence[tuple[int, int]]
    """As in `Meter`."""
    labels: Sequence[str]
    spans: Mapping[str, Sequence[tuple[int, int]]]
    """The events of each phase, as pairs of first and end."""
    works: Mapping[str, Mapping[str, Work]]
    """The work of each phase by label, for all samples of the process, each as large as the largest."""
    decoding: Work
    """Decoding one token of all rows, on average."""
    num_parameters: int
    num_trainable: int
    num_micro_batches: int
    scored_tokens: int
    """Tokens of all micro-batches: what one scoring pass puts through the language model."""
    units: Units
    weight_bytes: float
    whole_bytes: float
    """Of the weights that each rank has whole while it samples, where they are sharded."""
    trainable_bytes: float
    """Of the gradients of all weights that train."""
    has_own_reference: bool
    """True if a second model is held for the KL."""
    quantized_bytes: float
    """Of the largest weight of those in 4 bits, as it is made anew for a product."""
    moments_scale: float
    """Bytes of the moments over those of AdamW in float32."""
    cache_scale_on_gpu: float
    """Bytes of the KV cache on a GPU over those counted: on a CPU the packed path keeps it in float32."""


def load_sized_policy(recipe: Recipe) -> Policy:
    """Return the recipe's model with weights that have no content, from its folder without the weights' files.

    Raises RecipeError if it is a folder of adapters.
    """
    if recipe.model.path == "tiny-random":
        raise RecipeError('model.path: expected a folder or "tiny" (of the same shape), found "tiny-random"')
    if is_adapter_folder(model_folder(recipe.model.path)):
        raise RecipeError(
            f"model.path: {recipe.model.path} holds adapters: plan with the model that they belong to, and lora.rank"
        )
    policy = load_encoder(
        recipe.model.path, dialect=recipe.model.dialect or None, max_pixels=recipe.model.max_pixels or None
    )
    policy.template = recipe.model.template or policy.template
    remove_content(policy.model, getattr(torch, recipe.model.dtype))
    policy.write_in(policy.dialect)  # its token ids had gone to the device of the weights
    policy.model.eval()
    return policy


def simulate(recipe: Recipe, workload: Workload, num_samples: int, machine: Machine) -> Simulation:
    """Run one step of `num_samples` samples; `workload` is of the recipe's model and data."""
    return _Step(recipe, workload, num_samples, machine).run()


class _Step:
    """A step while it is run."""

    def __init__(self, recipe: Recipe, workload: Workload, num_samples: int, machine: Machine) -> None:
        self.recipe = recipe
        self.workload = workload
        self.num_samples = num_samples
        self.spans: dict[str, list[tuple[int, int]]] = {}
        self.works: dict[str, dict[str, Work]] = {}
        self.scored_tokens = 0
        self.meter = Meter(machine.seconds)

        # The model, as the trainer makes it; its checksums have nothing to add up.
        self.policy = load_sized_policy(recipe)
        with reading_as(0):
            make_trainable(self.policy, recipe.model, recipe.lora, seed=recipe.seed)
            self.engine = PlannedEngine(self.meter, copies_weights=recipe.rollout.engine in BY_VLLM)
            self.reference = self._make_reference()
            if recipe.method == "sft":
                self.learner: Any = Supervised(self.policy, recipe)
            else:
                self.learner = Reinforced(self.policy, recipe, self.reference, self.engine)
        self.trainable = [weight for weight in self.policy.model.parameters() if weight.requires_grad]

        self.meter.vocabulary = self.policy.config.get_text_config().vocab_size
        for policy in {id(self.policy): self.policy, id(self.reference): self.reference}.values():
            if policy is not None:
                self.meter.label_modules(_top_modules(policy.model), VISION)
        self.quantized = _quantized_weights(self.policy) if recipe.model.quantization != "none" else []
        self.meter.count(self.quantized, "4-bit weights")
        self.meter.count(_weights(self.policy), "weights")
        if self.reference is not None:
            self.meter.count(_weights(self.reference), "reference")

    def _make_reference(self) -> Policy | None:
        """Return the reference as `make_learner` does."""
        if self.recipe.method == "sft" or not self.recipe.grpo.beta:
            return None
        if self.recipe.lora.rank:
            return self.policy
        reference = load_sized_policy(self.recipe)
        reference.model.requires_grad_(False)
        return reference

    def run(self) -> Simulation:
        """Run the step and return what it made."""
        with self.meter:
            optimizer = self._make_optimizer()
            prompts, images = self._make_prompts()
            if self.recipe.method == "sft":
                work, num_run, num_parts = self._collect_supervised(prompts)
            else:
                work, num_run, num_parts = self._collect_reinforced(prompts)
            self._update(work, self.num_samples / num_run)
            self._step(optimizer)
            del images
        return self._result(num_parts)

    def _make_prompts(self) -> tuple[list[Prompt], list[Any]]:
        """Return the prompts of a step, and what the images of all but the first take.

        All share the first one's image: some models look at the pixels, so that it needs its content.
        """
        prompt = self.workload.prompt
        inputs = list(prompt.inputs.values())
        images = [like(value) for _ in range(self.num_samples - 1) for value in inputs]
        self.meter.count([*inputs, *images], "images")
        return [prompt] * self.num_samples, images

    def _make_optimizer(self) -> Optimizer:
        """Return the optimizer after a step, when it has its state."""
        with self.meter.part("optimizer state"):
            # 8-bit moments are counted by their sizes; bitsandbytes' kernels need content.
            settings = self.recipe.optimizer
            if settings.name == "adamw_8bit":
                settings = settings.with_changes(name="adamw")
            optimizer = make_optimizer(self.policy.model, settings)
            self.meter.relabel([copy for _, copy in optimizer.masters], "float32 copies")
            for weight in self.trainable:
                weight.grad = like(weight)
            optimizer.step()
            optimizer.zero_grad()
        return optimizer

    @contextmanager
    def _phase(self, name: str, scale: float = 1.0) -> Iterator[None]:
        """Note the events and the work of this block; in a whole step `scale` times as much is done."""
        begin = len(self.meter.events)
        precision = torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.model.autocast != "none")
        with self.meter.measured() as works, precision:
            yield
        self.spans[name] = [(begin, len(self.meter.events))]
        self.works[name] = {label: work * scale for label, work in works.items()}

    def _collect_reinforced(self, prompts: Sequence[Prompt]) -> tuple[list[Any], int, int]:
        """Roll out, then make the work of some of the prompts; return it, their number, and that of all parts."""
        group_size = self.recipe.rollout.group_size
        seeds = [(0, place) for place in range(len(prompts))]
        with torch.no_grad(), self._phase("rollout"):
            rolled, groups = self.learner.roll_out_all(prompts, seeds)

        # The tokens between the first and the last were skipped.
        begin, _ = self.spans["rollout"][0]
        self.spans["rollout"] = [(begin, self.engine.spans[0][0])]
        if self.recipe.rollout.engine == "builtin":  # others have memory of their own
            self.spans["rollout"] += self.engine.spans
        self.works["rollout"]["activations"] -= self.engine.decoded

        completions = [[completion.token_ids for completion in group] for group in groups]
        num_run, num_parts = self._choose_samples(completions, rolled)
        advantages = torch.ones(num_run, group_size)
        with torch.no_grad(), self._phase("scoring", len(prompts) / num_run):
            work = self.learner.make_work(rolled[:num_run], groups[:num_run], advantages, num_run)
        if self.reference is None:
            self.works.pop("scoring")
            self.spans.pop("scoring")
        return work, num_run, num_parts

    def _collect_supervised(self, prompts: Sequence[Prompt]) -> tuple[list[Any], int, int]:
        """Make the work of some prompts whose truth is as long as the longest."""
        truth = torch.zeros(self.workload.longest_truth, dtype=torch.long)
        num_run, num_parts = self._choose_samples([[truth] for _ in prompts], prompts)
        groups = make_groups(list(prompts[:num_run]), [(truth,) for _ in range(num_run)])
        path = self.policy.path
        rows = [path.pack(part) for part in path.micro_batches(groups, self.recipe.optimizer.tokens_per_forward)]
        work = [SupervisedWork(row, torch.full(row.targets.shape, 1 / num_run)) for row in rows]
        return work, num_run, num_parts

    def _choose_samples(self, completions: Sequence[Sequence[Tensor]], prompts: Sequence[Prompt]) -> tuple[int, int]:
        """Return how many samples make two full micro-batches, or how many there are; and the micro-batches of all."""
        tokens = self.recipe.optimizer.tokens_per_forward
        groups = make_groups(list(prompts), [tuple(group) for group in completions])
        parts = self.policy.path.micro_batches(groups, tokens)
        self.scored_tokens = sum(group.num_tokens for part in parts for group in part)
        return min(len(prompts), 2 * len(parts[0])), len(parts)

    def _update(self, work: Sequence[Any], scale: float) -> None:
        """Run forward and backward passes of two parts, whose gradients add up."""
        with self._phase("update", scale * len(work) / len(work[:2])):
            for part in work[:2]:
                loss = self.learner.loss(part)[0]
                with self.meter.part("backward pass"), torch.autocast("cpu", enabled=False):
                    loss.backward()
                gradients = [weight.grad for weight in self.trainable if weight.grad is not None]
                self.meter.relabel(gradients, "gradients")
                del loss, gradients

    def _step(self, optimizer: Optimizer) -> None:
        """Clip the gradients and move the weights."""
        with self._phase("optimizer"), self.meter.part("optimizer step"):
            torch.nn.utils.clip_grad_norm_(self.trainable, self.recipe.optimizer.max_grad_norm or float("inf"))
            optimizer.step()
            optimizer.zero_grad()

    def _computes_in_half(self) -> bool:
        """Return True if keys and values are bfloat16."""
        return "bfloat16" in (self.recipe.model.dtype, self.recipe.model.autocast)

    def _result(self, num_micro_batches: int) -> Simulation:
        """Return what was noted."""
        parameters = list(self.policy.model.parameters())
        return Simulation(
            events=self.meter.events,
            labels=self.meter.labels,
            spans=self.spans,
            works=self.works,
            decoding=(self.engine.first + self.engine.last) * 0.5,
            num_parameters=sum(parameter.numel() for parameter in parameters),
            num_trainable=sum(parameter.numel() for parameter in self.trainable),
            num_micro_batches=num_micro_batches,
            scored_tokens=self.scored_tokens,
            units=_units(self.policy.model),
            weight_bytes=sum(parameter.nbytes for parameter in parameters),
            whole_bytes=_num_weight_bytes(self.learner.whole_modules(), self.policy.model),
            trainable_bytes=sum(weight.nbytes for weight in self.trainable),
            has_own_reference=self.reference is not None and self.reference is not self.policy,
            quantized_bytes=max((weight.nbytes for weight in self.quantized), default=0),
            moments_scale=_moments_scale(self.policy.model, self.recipe),
            cache_scale_on_gpu=0.5 if self.policy.path.packs_rows and self._computes_in_half() else 1.0,
        )


def _weights(policy: Policy) -> list[Tensor]:
    """Return parameters and buffers of a policy's model."""
    return [*policy.model.parameters(), *policy.model.buffers()]


def _num_weight_bytes(modules: Iterable[nn.Module] | None, model: nn.Module) -> float:
    """Return the bytes of the weights in `modules`, each counted once; None is all of `model`."""
    weights = {}
    for module in [model] if modules is None else modules:
        for weight in module.parameters():
            weights[id(weight)] = weight.nbytes
    return sum(weights.values())


def _quantized_weights(policy: Policy) -> list[Tensor]:
    """Return the weights that a base in 4 bits rounds: those of the linear layers in the language model's blocks."""
    weights = []
    for module in policy.decoder.layers.modules():
        if isinstance(module, nn.Linear) and not module.weight.requires_grad:
            weights.append(module.weight)
    return weights


def _moments_scale(model: nn.Module, recipe: Recipe) -> float:
    """Return the bytes of the moments over AdamW's 8 a weight; see `optimizers` for those that stay float32."""
    if recipe.optimizer.name != "adamw_8bit":
        return 1.0
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    rounded = total = 0
    for weight in model.parameters():
        if weight.requires_grad:
            total += weight.numel()
            if id(weight) not in tables and weight.numel() >= LEAST_ROUNDED:
                rounded += weight.numel()
    # Two bytes and two scales of float32 a block.
    bytes_rounded = 2 + 8 / ROUNDED_BLOCK
    return (8 * (total - rounded) + bytes_rounded * rounded) / (8 * total)


def _top_modules(model: Any) -> list[nn.Module]:
    """Return the modules that make image features and lie in no other one that does."""
    modules = vision_modules(model)
    inner = {id(child) for module in modules for child in module.children()}
    return [module for module in modules if id(module) not in inner]


def _units(model: Any) -> Units:
    """Return the bytes of weights that FSDP2 puts together, by the layers that the model's class names."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    sizes = [sum(weight.nbytes for weight in layer.parameters()) for layer in layers]
    total = sum(weight.nbytes for weight in model.parameters())
    return Units(root=max(0, total - sum(sizes)), two_layers=2 * max(sizes, default=0))
