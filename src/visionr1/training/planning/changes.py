"""Changes to a recipe that make its run smaller, in the order of what they cost, each computed.

First what changes no result, then what changes the arithmetic a little, then what trains less of the model or a smaller
part of the data.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter

from visionr1.errors import RecipeError
from visionr1.training.distributed import NEEDED
from visionr1.training.planning.plan import Plan, Planner
from visionr1.training.planning.processes import Layout, samples_by_vllm_here
from visionr1.training.recipe import Recipe

NO_REFERENCE = {"model.offload_reference": False}
"""What a change needs that leaves no reference model to offload."""
LEAST_GAIN = 0.01
"""Share of what can be changed below which a change is not worth a line."""
MOST_GPUS = 64
LORA_RANK = 16
LEAST_TOKENS = 1024
"""Of optimizer.tokens_per_forward, below which passes become too small to be quick."""
LEAST_PIXELS = 200_704
"""Of model.max_pixels: 256 image tokens of a Qwen."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was computed to help."""

    name: str
    """As a user makes it, such as "--set model.gradient_checkpointing=true"."""
    cost: str
    """What is lost by it, in words."""
    plan: Plan
    """With this change and all before it."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A change that may help."""

    name: str
    cost: str
    settings: Mapping[str, object]
    """Settings of the recipe by key; those beside the change itself are what it does not go without."""
    layout: Layout | None = None
    """How processes are laid out with it; None leaves that as it is."""


def find_changes(planner: Planner, base: Plan) -> list[Change]:
    """Return changes, the least costly first, that add up until the run of `base` fits.

    Each is computed with those before it, and one that brings less than a hundredth is left out. Where `base` fits
    already, or nothing makes it fit, all that help are returned.
    """
    changes: list[Change] = []
    best = base
    for candidate in _candidates(base):
        if best.fits and not base.fits:
            break
        try:
            recipe = _with_settings(best.recipe, candidate.settings)
            changed = planner.plan(recipe, candidate.layout or best.layout)
        except RecipeError:
            continue  # the recipe does not go together with it
        if changed.peak < best.peak - LEAST_GAIN * best.changeable:
            changes.append(Change(_name_change(candidate, best.recipe), candidate.cost, changed))
            best = changed
    return changes


def _candidates(base: Plan) -> Iterator[_Candidate]:
    """Yield the changes that a recipe has room for, in the order of what they cost."""
    recipe = base.recipe
    yield from _smaller_passes(recipe, base.num_samples)
    if not recipe.model.gradient_checkpointing:
        yield _set("model.gradient_checkpointing", True, "the update takes about a third longer")
    yield from _shards(base)
    yield from _other_memory(base)
    yield from _fewer_weights(recipe)
    yield from _fewer_tokens(base)
    yield from _more_gpus(base)


def _smaller_passes(recipe: Recipe, num_samples: int) -> Iterator[_Candidate]:
    """Yield smaller micro-batches, of the update and of sampling: nothing changes but the time."""
    tokens = recipe.optimizer.tokens_per_forward
    if tokens > LEAST_TOKENS:
        size = max(LEAST_TOKENS, tokens // 4)
        yield _set("optimizer.tokens_per_forward", size, "nothing but some time: the same gradient in more passes")
    at_once = recipe.rollout.batch_size or num_samples
    if recipe.method == "grpo" and recipe.rollout.engine == "builtin" and at_once > 1:
        yield _set("rollout.batch_size", max(1, at_once // 4), "nothing but some time: the same replies")


def _shards(base: Plan) -> Iterator[_Candidate]:
    """Yield shards over the GPUs that there are."""
    gpus = base.layout.gpus
    if base.layout.sharding != "fsdp2" and gpus > 1:
        name = f"FSDP2 over the {gpus} GPUs (examples/accelerate/fsdp2.yaml)"
        yield _Candidate(name, "weights are gathered for every pass", NEEDED["fsdp2"], Layout(gpus, "fsdp2"))


def _other_memory(base: Plan) -> Iterator[_Candidate]:
    """Yield what keeps the same weights, moments and reference in less of the memory that is short."""
    recipe = base.recipe
    if recipe.optimizer.name == "adamw":
        yield _set("optimizer.name", "adamw_8bit", "moments are rounded")
    if not base.machine.is_gpu:
        return
    if samples_by_vllm_here(recipe) and not recipe.rollout.vllm_sleep:
        yield _set("rollout.vllm_sleep", True, "vLLM's weights and cache are built anew for each rollout")
    if not recipe.model.offload_reference:
        yield _set("model.offload_reference", True, "the reference is copied to the GPU in every step")
    if not recipe.optimizer.offload:
        yield _set("optimizer.offload", True, "the optimizer's step runs on the CPU")


def _more_gpus(base: Plan) -> Iterator[_Candidate]:
    """Yield shards over more and more GPUs."""
    gpus = max(2, 2 * base.layout.gpus)
    while base.machine.is_gpu and gpus <= MOST_GPUS:
        name = f"FSDP2 over {gpus} GPUs (examples/accelerate/fsdp2.yaml)"
        yield _Candidate(name, "more GPUs", NEEDED["fsdp2"], Layout(gpus, "fsdp2"))
        gpus *= 2


def _fewer_weights(recipe: Recipe) -> Iterator[_Candidate]:
    """Yield ways to train fewer weights, or to keep them in less."""
    if not recipe.model.freeze_vision and not recipe.lora.rank:
        yield _set("model.freeze_vision", True, "the vision tower stays as it is")
    if not recipe.lora.rank:
        yield _set("lora.rank", LORA_RANK, "adapters train in place of the weights", NO_REFERENCE)
    if recipe.model.dtype == "float32":
        yield _set("model.dtype", "bfloat16", "weights are rounded; what trains keeps a float32 copy")
    if recipe.model.quantization == "none":
        yield _set("model.quantization", "nf4", "the language model below the adapters is rounded to 4 bits")
    if recipe.method == "grpo" and recipe.grpo.beta and not recipe.lora.rank:
        cost = "nothing holds the policy near the model that it started from"
        yield _set("grpo.beta", 0.0, cost, NO_REFERENCE)


def _fewer_tokens(base: Plan) -> Iterator[_Candidate]:
    """Yield shorter replies and smaller images."""
    recipe = base.recipe
    if recipe.method == "grpo":
        longest = recipe.rollout.max_new_tokens
        shorter = max(longest // 2, round(1.25 * base.workload.longest_truth))
        if shorter < longest:
            yield _set("rollout.max_new_tokens", shorter, "replies that are longer are cut off")
    pixels = recipe.model.max_pixels or 4 * LEAST_PIXELS
    while pixels > LEAST_PIXELS:
        pixels = max(LEAST_PIXELS, pixels // 2)
        yield _set("model.max_pixels", pixels, "small objects are seen less well")


def _set(
    key: str, value: bool | int | float | str, cost: str, needed: Mapping[str, object] | None = None
) -> _Candidate:
    """Return the change of one setting of a recipe, with those that it does not go without."""
    return _Candidate(_write_setting(key, value), cost, {key: value, **(needed or {})})


def _write_setting(key: str, value: object) -> str:
    """Return a setting as the command line takes it."""
    written = str(value).lower() if isinstance(value, bool) else str(value)
    return f"--set {key}={written}"


def _name_change(candidate: _Candidate, recipe: Recipe) -> str:
    """Return a change as a user makes it, with the settings of `recipe` that it takes back."""
    names = [candidate.name]
    for key, value in candidate.settings.items():
        setting = _write_setting(key, value)
        if setting != candidate.name and attrgetter(key)(recipe) != value:
            names.append(setting)
    return " ".join(names)


def _with_settings(recipe: Recipe, settings: Mapping[str, object]) -> Recipe:
    """Return the recipe with settings changed, all at once; RecipeError where it refuses one."""
    sections: dict[str, dict[str, object]] = {}
    for key, value in settings.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    changed = {section: getattr(recipe, section).with_changes(**values) for section, values in sections.items()}
    return recipe.with_changes(**changed)
