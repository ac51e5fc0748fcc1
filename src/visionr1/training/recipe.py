"""A recipe: everything a training run depends on, read from TOML into frozen records.

`load_recipe(path, overrides)` reads a file and the command line's `--set section.key=value`;
`to_toml` writes the resolved recipe back, every value stated. An unknown key, a value of the wrong
type or out of range raises RecipeError naming the file, the key, and the nearest key that exists.

`[train]` holds the settings of the whole run; where there are `[[phase]]` tables, each is one part
of the run in order and overrides any of them (a curriculum: its own data, batch, learning rate).
`--set train.steps=9` sets all phases that agree in it, `--set phase.NAME.steps=9` (or its number) one.
"""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from visionr1.data.scenes import SceneConfig
from visionr1.errors import RecipeError, naming
from visionr1.evaluation.protocols import read_protocol
from visionr1.rewards import RewardOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSection:
    path: str = "tiny"
    """A transformers folder, "tiny" (the model that ships) or "tiny-random" (it, untrained)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights in memory; the optimizer keeps what trains in float32 all the same."""
    autocast: Literal["none", "bfloat16"] = "none"
    """Precision of the matrix products over float32 weights."""
    device: str = "cpu"
    """"cpu", "cuda", "cuda:1"."""
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights in final/; checkpoints always keep the precision in memory."""
    freeze_vision: bool = False
    """Train the language model alone; each image then goes through the vision tower once a step."""
    gradient_checkpointing: bool = False
    """Keep each layer's input alone for the gradient and compute the rest again: less memory, slower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoRASection:
    rank: int = 0
    """Of the adapters; 0 has none and trains the model's own weights."""
    alpha: float = 32.0
    """Their output counts alpha / rank times."""
    targets: tuple[str, ...] = ()
    """Names of the linear layers that get one, such as "q_proj"; none is every one in a layer."""
    vision: bool = False
    """Give the vision tower adapters too; without, it is frozen (see model.freeze_vision)."""

    def __post_init__(self) -> None:
        _check(self.rank >= 0, "lora.rank", "0 (no adapters) or more", self.rank)
        _check(self.alpha > 0, "lora.alpha", "above 0", self.alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    source: str = "bccd"
    """"scenes", an embedded set ("bccd"), a COCO JSON file or a folder that holds one, a Pascal VOC folder, or VLM-R1's
    rows (.jsonl)."""
    split: str = "train"
    """Which part of an embedded set or of a folder."""
    weight: float = 1.0
    """Share of the samples, relative to the other sources: alike unless set; sizes as weights pass over all alike."""
    limit: int = 0
    """Use the first so many samples; 0 is all."""
    augment: bool = False
    """Show a random view of each image, cropped, mirrored and recoloured (see visionr1.data.augment)."""
    scenes: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the scenes, for source = "scenes" (see visionr1.data.scenes)."""

    def __post_init__(self) -> None:
        _check(0 < self.weight < math.inf, "data.weight", "above 0", self.weight)
        _check(self.limit >= 0, "data.limit", "0 (all) or more", self.limit)
        if self.scenes and self.source != "scenes":
            raise RecipeError(f'data.scenes is set, but data.source is "{self.source}"')
        build_record(SceneConfig, self.scenes, "data.scenes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    name: str = "train"
    """Shown in the metrics."""
    data: tuple[DataSource, ...] = field(default_factory=lambda: (DataSource(),))
    """Where the samples come from; several are mixed by weight."""
    steps: int = 0
    """Optimizer steps; 0 means from `epochs`."""
    epochs: float = 1.0
    """Where `steps` is 0, as many draws as so many passes over all data have; a source gives each sample once before
    any twice, and with several sources their weights say how often each has its turn."""
    minutes: float = 0.0
    """A time budget: when it is spent, the phase ends and its rate has decayed; 0 is none."""
    batch_size: int = 16
    """Samples per optimizer step."""
    learning_rate: float = 1e-6
    """Peak learning rate."""
    final_learning_rate: float = 0.0
    """Where the schedule ends."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """From the peak to the end, over the steps after the warm-up."""
    warmup_steps: int = 0
    """Linear from 0 to the peak."""

    def __post_init__(self) -> None:
        _check(self.steps >= 0, "train.steps", "0 (from epochs) or more", self.steps)
        _check(0 < self.epochs < math.inf, "train.epochs", "above 0", self.epochs)
        _check(self.minutes >= 0, "train.minutes", "0 (no budget) or more", self.minutes)
        _check(self.batch_size >= 1, "train.batch_size", "1 or more", self.batch_size)
        _check(self.learning_rate > 0, "train.learning_rate", "above 0", self.learning_rate)
        _check(
            0 <= self.final_learning_rate <= self.learning_rate,
            "train.final_learning_rate",
            f"from 0 to learning_rate = {self.learning_rate}",
            self.final_learning_rate,
        )
        _check(self.warmup_steps >= 0, "train.warmup_steps", "0 or more", self.warmup_steps)
        _check(len(self.data) > 0, "data", "at least one source", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSection:
    name: Literal["adamw", "muon"] = "adamw"
    """"muon" takes fewer steps from random weights; "adamw" is what pretrained ones are tuned with."""
    weight_decay: float = 0.0
    """On matrices only."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of AdamW."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them as they are."""
    tokens_per_forward: int = 8192
    """Padded tokens in one forward pass; a step takes as many passes as it needs."""

    def __post_init__(self) -> None:
        _check(self.weight_decay >= 0, "optimizer.weight_decay", "0 or more", self.weight_decay)
        _check(min(self.betas) >= 0 and max(self.betas) < 1, "optimizer.betas", "from 0 to below 1", self.betas)
        _check(self.max_grad_norm >= 0, "optimizer.max_grad_norm", "0 or more", self.max_grad_norm)
        _check(self.tokens_per_forward > 0, "optimizer.tokens_per_forward", "1 or more", self.tokens_per_forward)


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTSection:
    coordinate_weight: float = 1.0
    """Weight of the tokens of a number, relative to all others."""
    box_order: Literal["given", "reading", "columns"] = "given"
    """Write the true boxes as annotated, from top to bottom (then left to right), or from left to
    right (then top to bottom)."""

    def __post_init__(self) -> None:
        _check(self.coordinate_weight > 0, "sft.coordinate_weight", "above 0", self.coordinate_weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSection:
    group_size: int = 4
    """G, completions of one sample."""
    max_new_tokens: int = 512
    """A completion that reaches it without an end counts as truncated."""
    temperature: float = 1.0
    """Of the policy: in sampling and in every log-probability alike."""
    top_p: float = 1.0
    """Sample from the most probable tokens that hold this mass; 1 is all."""
    top_k: int = 0
    """Sample from so many most probable tokens; 0 is all."""
    engine: Literal["builtin", "vllm"] = "builtin"
    """"vllm" samples with vLLM, on a GPU (see visionr1.rollout.vllm); evaluation stays with the built-in one."""
    compile: bool = False
    """Compile the built-in engine's decode step (see visionr1.rollout.compiled): needs a C++ compiler, keeps the memory
    of keys and values between steps, and is not for float32 weights under model.autocast, which it would cast at every
    token: set model.dtype = "bfloat16". Evaluation during training decodes without."""
    vllm_memory: float = 0.3
    """Share of the GPU's memory that vLLM takes for its copy of the weights and its cache."""
    batch_size: int = 0
    """Samples at once, of a process; 0 is all of its share. Fewer take less memory and draw the same replies."""

    def __post_init__(self) -> None:
        _check(
            self.group_size >= 2,
            "rollout.group_size",
            "2 or more (one completion has no group to be compared with)",
            self.group_size,
        )
        _check(self.max_new_tokens >= 1, "rollout.max_new_tokens", "1 or more", self.max_new_tokens)
        _check(self.temperature > 0, "rollout.temperature", "above 0", self.temperature)
        _check(0 < self.top_p <= 1, "rollout.top_p", "above 0 and at most 1", self.top_p)
        _check(self.top_k >= 0, "rollout.top_k", "0 (all) or more", self.top_k)
        _check(0 < self.vllm_memory < 1, "rollout.vllm_memory", "between 0 and 1", self.vllm_memory)
        _check(self.batch_size >= 0, "rollout.batch_size", "0 (all) or more", self.batch_size)
        if self.engine == "vllm":
            _check(not self.compile, "rollout.compile", "false (vLLM compiles by itself)", self.compile)
            _check(self.batch_size == 0, "rollout.batch_size", "0 (vLLM sees to it by itself)", self.batch_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class GRPOSection:
    beta: float = 0.2
    """Weight of the KL to the reference model; 0 keeps no reference."""
    updates_per_rollout: int = 1
    """Optimizer steps on one rollout; 1 is strictly on-policy."""
    mean_over: Literal["completion", "batch"] = "completion"
    """Average the tokens' terms over each completion first, or over all tokens of the batch alike."""
    clip: float = 0.2
    """The ratio is held within 1 -+ clip where a rollout is used more than once."""

    def __post_init__(self) -> None:
        _check(self.beta >= 0, "grpo.beta", "0 or more", self.beta)
        _check(self.updates_per_rollout >= 1, "grpo.updates_per_rollout", "1 or more", self.updates_per_rollout)
        _check(0 < self.clip < 1, "grpo.clip", "between 0 and 1", self.clip)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSection(RewardOptions):
    """Besides the reward's own options (see visionr1.rewards.score):"""

    stage_step: float = 1.0
    """STEP: the share of training after which the thresholds rise; 1 is never."""
    adaptive: bool = False
    """They rise instead once mean recall and precision, before f and over 20 steps, have both reached .75."""

    def __post_init__(self) -> None:
        with naming("reward.weights"):  # build_record has seen to the others
            RewardOptions.__post_init__(self)
        _check(0 <= self.stage_step <= 1, "reward.stage_step", "from 0 to 1", self.stage_step)
        if self.adaptive:
            _check(self.stage_step == 1, "reward.stage_step", "1 where reward.adaptive is true", self.stage_step)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSection:
    every: int = 100
    """Steps between checkpoints; 0 writes none but on an interrupt."""
    keep: int = 2
    """How many of the newest are kept."""

    def __post_init__(self) -> None:
        _check(self.every >= 0, "checkpoint.every", "0 or more", self.every)
        _check(self.keep >= 1, "checkpoint.keep", "1 or more", self.keep)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSection:
    every: int = 0
    """Steps between evaluations during training; 0 is never."""
    source: str = "bccd"
    """An embedded set ("bccd"), a COCO JSON file or a folder that holds one."""
    split: str = "valid"
    """Which part of it."""
    limit: int = 0
    """Use so many images, evenly spaced over the split; 0 is all."""
    protocol: tuple[str, ...] = ()
    """As for `visionr1 eval --protocol`: a name, then single fields."""
    metric: Literal["AP", "AP50", "AP75", "precision", "recall", "F1", "AP strict"] = "AP"
    """Which figure is best when it is highest: the model that has it is kept in best/."""
    patience: int = 0
    """End training after so many evaluations in a row without a better one; 0 is never."""
    max_new_tokens: int = 0
    """Of a reply; 0 is the protocol's, or 1024."""
    batch_size: int = 16
    """Images at once, on each process."""

    def __post_init__(self) -> None:
        _check(self.every >= 0, "eval.every", "0 (never) or more", self.every)
        _check(self.limit >= 0, "eval.limit", "0 (all) or more", self.limit)
        _check(self.patience >= 0, "eval.patience", "0 (never) or more", self.patience)
        _check(self.max_new_tokens >= 0, "eval.max_new_tokens", "0 (the protocol's) or more", self.max_new_tokens)
        _check(self.batch_size >= 1, "eval.batch_size", "1 or more", self.batch_size)
        with naming("eval.protocol"):
            read_protocol(self.protocol)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    method: Literal["sft", "grpo"] = "grpo"
    """"grpo" (Vision-R1) or "sft" (the supervised baseline)."""
    seed: int = 0
    """Of data order, sampling and new weights."""
    workers: int = 0
    """Processes that prepare images ahead of the model; 0 prepares them in between."""
    threads: int = 0
    """CPU threads of torch; 0 leaves its own choice."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Where metrics are sent besides metrics.jsonl; each is an extra of its name to install."""
    model: ModelSection = field(default_factory=ModelSection)
    lora: LoRASection = field(default_factory=LoRASection)
    optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    sft: SFTSection = field(default_factory=SFTSection)
    rollout: RolloutSection = field(default_factory=RolloutSection)
    grpo: GRPOSection = field(default_factory=GRPOSection)
    reward: RewardSection = field(default_factory=RewardSection)
    checkpoint: CheckpointSection = field(default_factory=CheckpointSection)
    eval: EvalSection = field(default_factory=EvalSection)
    phases: tuple[Phase, ...] = field(default_factory=lambda: (Phase(),))
    """At least one; in the file `[train]` and `[[data]]`, then `[[phase]]`."""

    def __post_init__(self) -> None:
        for name in ("seed", "workers", "threads"):
            _check(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        if self.lora.vision and self.model.freeze_vision:
            raise RecipeError("lora.vision: expected false where model.freeze_vision is true, found true")
        if self.rollout.compile and self.model.autocast != "none":
            where = "where rollout.compile and model.autocast are set (float32 weights would be cast at every token)"
            _check(self.model.dtype == "bfloat16", "model.dtype", f'"bfloat16" {where}', self.model.dtype)

    def check_ends(self) -> None:
        """Raise RecipeError if a phase would go on without end."""
        for phase in self.phases:
            if not (phase.steps or phase.minutes) and any(data.source == "scenes" for data in phase.data):
                raise RecipeError(f"phase {phase.name}: scenes never end, so set train.steps or train.minutes")

    def with_data(self, path: str) -> "Recipe":
        """This recipe with every phase on the one data source `path`, and evaluations during training too.

        It takes the place of the phase's own, whose other settings hold for it; scenes are left out. RecipeError if a
        phase has several, of which it cannot stand for one.
        """

        def moved(phase: Phase) -> Phase:
            own = [data for data in phase.data if data.source != "scenes"] or [DataSource()]
            if len(own) > 1:
                found = ", ".join(data.source for data in own)
                raise RecipeError(f"--data: phase {phase.name} mixes {found}; change data.source in the recipe instead")
            return replace(phase, data=(replace(own[0], source=path),))

        return replace(self, phases=tuple(map(moved, self.phases)), eval=replace(self.eval, source=path))

    def with_model(self, path: str) -> "Recipe":
        """This recipe starting from the model in folder `path`."""
        return replace(self, model=replace(self.model, path=path))


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in TOML file `path`, with `overrides` ("section.key=value") put over it."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} is not TOML: {error}") from error
    with naming(f"recipe {path}"):
        table = _spread(table)
    for override in overrides:
        _set(table, override)
    with naming(f"recipe {path}"):
        return parse_recipe(table)


def parse_recipe(table: Mapping[str, Any]) -> Recipe:
    """The recipe that a parsed TOML document states."""
    rest = _spread(table)
    phases = rest.pop("phase")
    if "phases" in rest:
        raise RecipeError("unknown key phases; did you mean phase?")
    recipe: Recipe = build_record(Recipe, rest, "", also=("train", "data", "phase"))
    whole = (build_record(Phase, phase, f"phase.{i}" if i else "train") for i, phase in enumerate(phases))
    return replace(recipe, phases=tuple(whole))


def _spread(table: Mapping[str, Any]) -> dict[str, Any]:
    """`table` with what `[train]` and `[[data]]` say put into each phase, which is then whole; at least one."""
    rest = deepcopy(dict(table))
    base = _table(rest.pop("train", {}), "train")
    if "data" in rest:
        base = {**base, "data": rest.pop("data")}
    phases = rest.get("phase", [{}])
    if not isinstance(phases, list) or not phases:
        raise RecipeError("phase: expected [[phase]] tables")
    return {**rest, "phase": [deepcopy({**base, **_table(phase, f"phase.{i}")}) for i, phase in enumerate(phases)]}


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML, every value stated; `parse_recipe` reads it back equal."""
    lines: list[str] = []
    _write(recipe, "", lines)
    return "\n".join(lines).lstrip("\n") + "\n"


def _write(record: Any, name: str, lines: list[str]) -> None:
    tables = []
    for item in fields(record):
        value = getattr(record, item.name)
        if is_dataclass(value) or (isinstance(value, tuple) and value and is_dataclass(value[0])):
            tables.append((item.name, value))
        else:
            lines.append(f"{item.name} = {_value(value)}")
    for key, value in tables:
        key = {"phases": "phase"}.get(key, key)
        path = f"{name}.{key}" if name else key
        for entry in value if isinstance(value, tuple) else (value,):
            lines.append(f"\n[[{path}]]" if isinstance(value, tuple) else f"\n[{path}]")
            _write(entry, path, lines)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _set(table: dict[str, Any], override: str) -> None:
    """Put "a.b.0.c=value" into `table`, whose phases are whole; the value is TOML, or else the text itself."""
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not path or keys == ["train"]:
        raise RecipeError(f"--set {override}: expected section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        if text.strip()[:1] in ("'", '"', "[", "{"):
            raise RecipeError(f"--set {override}: this value is not TOML: {error}") from error
        value = text
    if keys[0] not in ("train", "data"):
        _put(table, keys, value, override)
        return
    key, *_ = keys = keys[keys[0] == "train" :]
    phases = table["phase"]
    if any(phase.get(key) != phases[0].get(key) for phase in phases):
        ways = " or ".join(f"phase.{phase.get('name', i)}.{'.'.join(keys)}" for i, phase in enumerate(phases))
        raise RecipeError(f"--set {override}: the phases of this recipe differ in {key}; set {ways}")
    for phase in phases:
        _put(phase, keys, deepcopy(value), override)


def _put(node: Any, keys: Sequence[str], value: Any, override: str) -> None:
    *parents, last = keys
    unset: Any = Recipe()
    for key in parents:
        unset = getattr(unset, key, None)
        whole = dict(unset) if isinstance(unset, Mapping) else {}  # what the file leaves out keeps its other entries
        node = node[_index(node, key, override)] if isinstance(node, list) else node.setdefault(key, whole)
        if not isinstance(node, dict | list):
            raise RecipeError(f"--set {override}: {key} is not a table")
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    else:
        node[last] = value


def _index(node: list[Any], key: str, override: str) -> int:
    """The place of the entry that has this number or, alone, this name."""
    names = [entry.get("name") for entry in node if isinstance(entry, dict)]
    if names.count(key) == 1:
        return names.index(key)
    if not key.isdecimal() or int(key) >= len(node):
        named = "".join(f"{name}, " for name in names if name)
        raise RecipeError(f"--set {override}: expected {named}a number below {len(node)} in place of {key!r}")
    return int(key)


def build_record(kind: Any, table: Mapping[str, Any], where: str, also: tuple[str, ...] = ()) -> Any:
    """A `kind` record from `table`; every key must name a field and hold a value of its type."""
    types = get_type_hints(kind)
    known = (*types, *also)
    for key in table:
        if key not in known:
            elsewhere = [name for name in _all_keys() if name.endswith(f".{key}")]
            near = elsewhere or get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known keys: {', '.join(sorted(known))}"
            raise RecipeError(f"unknown key {_join(where, key)}; {hint}")
    return kind(**{key: _convert(types[key], value, _join(where, key)) for key, value in table.items()})


def _all_keys() -> list[str]:
    """Every section.key that a recipe can have."""
    sections = {name: kind for name, kind in get_type_hints(Recipe).items() if is_dataclass(kind)}
    sections |= {"train": Phase, "data": DataSource}
    return [f"{name}.{item.name}" for name, kind in sections.items() for item in fields(kind)]


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return build_record(kind, _table(value, where), where)
    if kind is Any:
        return value
    if origin is Literal:
        if value in arguments:
            return value
        raise RecipeError(f"{where}: expected one of {', '.join(arguments)}, found {value!r}")
    if origin is tuple and arguments[-1] is Ellipsis:
        entries = value if isinstance(value, list) else [value]
        return tuple(_convert(arguments[0], e, f"{where}.{i}") for i, e in enumerate(entries))
    if origin is tuple:
        if not isinstance(value, list) or len(value) != len(arguments):
            raise RecipeError(f"{where}: expected {len(arguments)} values, found {value!r}")
        return tuple(_convert(k, v, where) for k, v in zip(arguments, value, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        return {key: _convert(arguments[1], item, _join(where, key)) for key, item in _table(value, where).items()}
    if kind is float and type(value) is int:
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise RecipeError(f"{where}: expected {_name(kind)}, found {value!r}")
    return value


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RecipeError(f"{where}: expected a table, found {value!r}")
    return value


def _name(kind: Any) -> str:
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[kind]


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _check(holds: bool, key: str, expected: str, found: object) -> None:
    if not holds:
        raise RecipeError(f"{key}: expected {expected}, found {found}")
