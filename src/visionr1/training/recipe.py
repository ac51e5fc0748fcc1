"""A recipe: everything a training run depends on, read from TOML into frozen records.

`load_recipe(path, overrides)` reads a file and the command line's `--set section.key=value`;
`to_toml` writes the resolved recipe back with every value. An unknown key, a value of the wrong
type or out of range raises RecipeError naming the file, the key, and the nearest key that exists.

`[train]` holds the settings of the whole run; where there are `[[phase]]` tables, each is one part
of the run in order and overrides any of them (a curriculum: its own data, batch, learning rate).
`--set train.steps=9` sets all phases that agree in it, `--set phase.NAME.steps=9` (or its number) one.

Sections stand beside the code they configure (`models/settings.py`, `rollout/settings.py`, ...); those of training
itself stand here.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from visionr1.data.settings import DataSource
from visionr1.errors import RecipeError, naming
from visionr1.evaluation.settings import EvalSection
from visionr1.models.settings import LoRASection, ModelSection
from visionr1.rewards import PRESETS
from visionr1.rewards.settings import RewardSection
from visionr1.rollout.settings import RolloutSection
from visionr1.settings import Expected, FromList, ListOrOne, Section, Setting, SettingError, dotted, refuse
from visionr1.toml import toml_key, toml_value

Table = dict[str, Any]
"""A table of a TOML document."""
PRESET_KEYS = ["reward", "preset"]
"""The end of the keys of a preset: that of the run, or of a data source."""


class Phase(Section):
    """One part of a run: its data and its schedule."""

    name: str = "train"
    """Name of the phase in the metrics."""
    data: Annotated[ListOrOne[DataSource], Field(min_length=1), Expected("at least one source")] = (DataSource(),)
    """Where the samples come from; several are mixed by weight."""
    steps: Annotated[int, Field(ge=0), Expected("0 (from epochs) or more")] = 0
    """Optimizer steps; 0 means from `epochs`."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Where `steps` is 0, as many draws as so many passes over all data have; a source gives each sample once before
    any twice, and with several sources their weights say how often each has its turn."""
    minutes: Annotated[float, Field(ge=0), Expected("0 (no budget) or more")] = 0.0
    """A time budget: when it is spent, the phase ends and its rate has decayed; 0 is none."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Samples per optimizer step."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-6
    """Learning rate at its peak."""
    final_learning_rate: Annotated[float, Field(ge=0), Expected("from 0 to learning_rate")] = 0.0
    """Learning rate at the end of the schedule."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate goes from its peak to final_learning_rate, over the steps after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises linearly from 0 to its peak."""

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.final_learning_rate > self.learning_rate:
            expected = f"from 0 to learning_rate = {self.learning_rate}"
            raise refuse("final_learning_rate", expected, self.final_learning_rate)
        return self


Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSection(Section):
    """How gradients become updates."""

    name: Literal["adamw", "adamw_8bit", "muon"] = "adamw"
    """"muon" takes fewer steps from random weights; "adamw" is what pretrained ones are tuned with, "adamw_8bit" the
    same with moments in a quarter of the memory (bitsandbytes)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of matrices; biases and norms have none."""
    betas: Annotated[tuple[Beta, Beta], FromList] = (0.9, 0.999)
    """Decay rates of AdamW's running means of the gradient and of its square."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradients are scaled down to this norm; 0 leaves them as they are."""
    offload: bool = False
    """Keep moments and float32 copies of what trains in the CPU's memory, and do the optimizer's step there."""
    tokens_per_forward: Annotated[int, Field(ge=1)] = 8192
    """Padded tokens in one forward pass; a step takes as many passes as it needs."""


class SFTSection(Section):
    """The supervised baseline, for method = "sft"."""

    coordinate_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the tokens of a number, relative to all others."""
    answer_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the tokens of an answer in words, relative to those of boxes: it has far fewer of them."""
    box_order: Literal["given", "reading", "columns"] = "given"
    """Write the true boxes as annotated, from top to bottom (then left to right), or from left to
    right (then top to bottom)."""


class GRPOSection(Section):
    """The loss of Vision-R1, for method = "grpo"."""

    beta: Annotated[float, Field(ge=0)] = 0.2
    """Weight of the KL to the reference model; 0 keeps no reference."""
    updates_per_rollout: Annotated[int, Field(ge=1)] = 1
    """Optimizer steps on one rollout; 1 is strictly on-policy."""
    mean_over: Literal["completion", "batch"] = "completion"
    """Average the tokens' terms over each completion first, or over all tokens of the batch alike."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The ratio is held within 1 -+ clip where a rollout is used more than once."""


class CheckpointSection(Section):
    """What a killed run resumes from."""

    every: Annotated[int, Field(ge=0)] = 100
    """Steps between checkpoints; 0 writes one on an interrupt alone."""
    keep: Annotated[int, Field(ge=1)] = 2
    """How many of the newest checkpoints are kept."""


class Recipe(Section):
    """All settings of a run."""

    method: Literal["sft", "grpo"] = "grpo"
    """"grpo" (Vision-R1) or "sft" (the supervised baseline)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the data order, of sampling and of new weights."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that prepare images ahead of the model; 0 prepares them in between."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of torch; 0 leaves its own choice."""
    trackers: ListOrOne[Literal["tensorboard", "wandb", "mlflow"]] = ()
    """Where metrics are sent besides metrics.jsonl; each is an extra of its name to install."""
    model: ModelSection = ModelSection()
    lora: LoRASection = LoRASection()
    optimizer: OptimizerSection = OptimizerSection()
    sft: SFTSection = SFTSection()
    rollout: RolloutSection = RolloutSection()
    grpo: GRPOSection = GRPOSection()
    reward: RewardSection = RewardSection()
    checkpoint: CheckpointSection = CheckpointSection()
    eval: EvalSection = EvalSection()
    phases: Annotated[ListOrOne[Phase], Field(min_length=1), Expected("at least one phase")] = (Phase(),)
    """At least one; in the file `[train]` and `[[data]]`, then `[[phase]]`."""

    @model_validator(mode="after")
    def _check_sections_agree(self) -> Self:
        if self.lora.vision and self.model.freeze_vision:
            raise SettingError("expected false where model.freeze_vision is true, found true", ("lora", "vision"))
        if self.model.quantization != "none" and not self.lora.rank:
            where = f'where model.quantization is "{self.model.quantization}" (4-bit weights do not train)'
            raise SettingError(f"expected 1 or more {where}, found 0", ("lora", "rank"))
        if self.model.quantization != "none" and self.rollout.compile:
            raise SettingError("expected false where model.quantization is set, found true", ("rollout", "compile"))
        if self.model.offload_reference and (self.lora.rank or not self.grpo.beta or self.method == "sft"):
            where = 'where there is no reference model (method "sft", lora.rank above 0, or grpo.beta 0)'
            raise SettingError(f"expected false {where}, found true", ("model", "offload_reference"))
        if self.rollout.compile and self.model.autocast != "none" and self.model.dtype != "bfloat16":
            where = "where rollout.compile and model.autocast are set (float32 weights would be cast at every token)"
            raise SettingError(f'expected "bfloat16" {where}, found {self.model.dtype}', ("model", "dtype"))
        return self

    @model_validator(mode="after")
    def _check_adaptive_stages(self) -> Self:
        """Adaptive stages move on by recall and precision, which a phase must have from some of its samples."""
        if not self.reward.adaptive:
            return self
        for phase in self.phases:
            rewards = [source.reward or self.reward for source in phase.data]
            if not any(reward.find_preset().has_adaptive_stages for reward in rewards):
                raise SettingError(
                    f"expected false, for no data source of phase {phase.name} has a reward that tells recall and "
                    "precision before f, found true",
                    ("reward", "adaptive"),
                )
        return self

    def check_ends(self) -> None:
        """Raise RecipeError if a phase would go on without end."""
        for phase in self.phases:
            if not (phase.steps or phase.minutes) and any(data.source == "scenes" for data in phase.data):
                raise RecipeError(f"phase {phase.name}: scenes never end, so set train.steps or train.minutes")

    def with_data(self, path: str, images: str = "") -> Self:
        """Return this recipe with every phase on the one data source `path`, and evaluations during training too.

        `images` is the folder of its images, where that cannot be told. The source takes the place of the phase's own,
        whose other settings hold for it; scenes are left out. Raises RecipeError if a phase has several, of which it
        cannot stand for one.
        """
        phases = []
        for phase in self.phases:
            # A phase of scenes alone has no settings to keep and takes the defaults.
            sources = [data for data in phase.data if data.source != "scenes"] or [DataSource()]
            if len(sources) > 1:
                mixed = ", ".join(data.source for data in sources)
                raise RecipeError(f"--data: phase {phase.name} mixes {mixed}; change data.source in the recipe instead")

            phases.append(phase.with_changes(data=(sources[0].with_changes(source=path, images=images),)))
        return self.with_changes(phases=tuple(phases), eval=self.eval.with_changes(source=path, images=images))

    def with_model(self, path: str) -> Self:
        """Return this recipe starting from the model in folder `path`."""
        return self.with_changes(model=self.model.with_changes(path=path))


def named_sections(recipe: Recipe) -> dict[str, Section]:
    """Return each section of `recipe` by the key that `--set` takes for it; that of the recipe itself is ""."""
    sections: dict[str, Section] = {"": recipe}

    # A single phase is the tables [train] and [[data]]; several go by their numbers.
    for index, phase in enumerate(recipe.phases):
        phase_key = f"phase.{index}"
        data_key = f"phase.{index}.data"
        if len(recipe.phases) == 1:
            phase_key = "train"
            data_key = "data"
        sections[phase_key] = phase
        for place, source in enumerate(phase.data):
            _add_sections(f"{data_key}.{place}", source, sections)

    for key, value in recipe:
        if isinstance(value, Section):
            _add_sections(key, value, sections)
    return sections


def _add_sections(key: str, section: Section, sections: dict[str, Section]) -> None:
    """Add a section, and those inside it, such as the parts of a reward."""
    sections[key] = section
    for inner_key, value in section:
        if isinstance(value, Section):
            _add_sections(f"{key}.{inner_key}", value, sections)
        elif _is_list_of_sections(value):
            for place, entry in enumerate(value):
                _add_sections(f"{key}.{inner_key}.{place}", entry, sections)


def all_settings() -> Iterator[tuple[str, Setting]]:
    """Yield every setting that a recipe of one phase can have, after its full key, "section.key"."""
    for name, section in named_sections(Recipe()).items():
        for setting in section.explain():
            full_key = f"{name}.{setting.key}" if name else setting.key
            yield full_key, setting

        # Another preset has other options beside it.
        if name == "reward":
            for _, setting in options_of_other_presets():
                yield f"reward.{setting.key}", setting


def options_of_other_presets() -> Iterator[tuple[str, Setting]]:
    """Yield the options of every preset but the default one, after its name."""
    default = Recipe().reward.preset
    for name in PRESETS:
        if name != default:
            for option in PRESETS.known(name).options.describe():
                yield name, replace(option, text=f"Preset {name}: {option.text}")


# Reading


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe in TOML file `path`, with `overrides` ("section.key=value") put over it."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read recipe {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # among them a number of more digits than Python reads
        raise RecipeError(f"recipe {path} is not TOML: {error}") from error

    # Overrides name the phases, which are therefore made whole first.
    with naming(f"recipe {path}"):
        table = _with_whole_phases(table)

    # Another preset comes first, for it drops the options of the file's, which later overrides may set anew.
    for override in sorted(overrides, key=_sets_no_preset):
        _apply_override(table, override)

    with naming(f"recipe {path}"):
        return parse_recipe(table)


def parse_recipe(table: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a parsed TOML document; keys that it lacks have their defaults."""
    table = _with_whole_phases(table)
    phase_tables = table.pop("phase")

    # The field of the record has another name than the table of the file, and would pass as a key.
    if "phases" in table:
        raise RecipeError("unknown key phases; did you mean phase?")

    try:
        phases = [_parse_phase(phase_tables, index) for index in range(len(phase_tables))]
        return Recipe(**table, phases=tuple(phases))
    except SettingError as error:
        if error.known:
            raise _name_other_section(error) from None
        raise


def _with_whole_phases(table: Mapping[str, Any]) -> Table:
    """Put the keys of `[train]` and `[[data]]` into each phase, which is then whole; there is at least one."""
    rest = deepcopy(dict(table))  # the caller's table stays as it is
    shared = _table(rest.pop("train", {}), "train")
    if "data" in rest:
        shared = {**shared, "data": rest.pop("data")}

    phases = rest.get("phase", [{}])
    if not isinstance(phases, list) or not phases:
        raise RecipeError("phase: expected [[phase]] tables")
    whole_phases = []
    for index, phase in enumerate(phases):
        # A deep copy: an override of one phase must not reach the others through a shared list.
        whole_phases.append(deepcopy({**shared, **_table(phase, f"phase.{index}")}))
    return {**rest, "phase": whole_phases}


def _table(value: Any, key: str) -> Table:
    if not isinstance(value, dict):
        raise RecipeError(f"{key}: expected a table, found {value!r}")
    return value


def _parse_phase(tables: Sequence[Table], index: int) -> Phase:
    """Return phase `index`; an error names what is wrong by the key that `--set` takes."""
    try:
        return Phase(**tables[index])
    except SettingError as error:
        # A value that all phases share stands in [train] or [[data]], and the first phase has raised for it.
        key = str(error.path[0])
        shared = index == 0 and all(table.get(key) == tables[0].get(key) for table in tables)
        if not shared:
            raise error.inside("phase", _phase_names(tables)[index]) from None
        if key == "data":
            raise
        raise error.inside("train") from None


def _phase_names(tables: Sequence[Table]) -> list[str]:
    """Return a unique name of each phase: its own or, where it shares that or has none, its number."""
    names = [table.get("name") for table in tables]
    unique_names = []
    for index, name in enumerate(names):
        if name and names.count(name) == 1:
            unique_names.append(str(name))
        else:
            unique_names.append(str(index))
    return unique_names


def _name_other_section(error: SettingError) -> RecipeError:
    """Point to the sections that do have the unknown key, if there are any."""
    others = [key for key, setting in all_settings() if setting.key == error.path[-1]]
    if not others:
        return error
    return RecipeError(f"unknown key {dotted(error.path)}; did you mean {' or '.join(others)}?")


# Overriding


def _keys(override: str) -> list[str]:
    return override.partition("=")[0].strip().split(".")


def _sets_no_preset(override: str) -> bool:
    return _keys(override)[-2:] != PRESET_KEYS


def _apply_override(table: Table, override: str) -> None:
    """Put "a.b.0.c=value", as `--set` gives it, into `table`, whose phases are whole."""
    path, equals, text = override.partition("=")
    keys = _keys(override)
    if not equals or not path or keys == ["train"]:
        raise RecipeError(f"--set {override}: expected section.key=value")
    value = _parse_value(text, override)

    if keys[0] not in ("train", "data"):
        _put(table, keys, value, override)
        return

    # "train.steps" and "data.0.limit" change every phase.
    if keys[0] == "train":
        keys = keys[1:]
    _check_phases_agree(table["phase"], keys, override)
    for phase in table["phase"]:
        _put(phase, keys, deepcopy(value), override)


def _check_phases_agree(phases: Sequence[Table], keys: Sequence[str], override: str) -> None:
    """Raise RecipeError if the phases differ in what an override would set in all of them."""
    values = [phase.get(keys[0]) for phase in phases]
    if all(value == values[0] for value in values):
        return

    choices = []
    for index, phase in enumerate(phases):
        choices.append(f"phase.{phase.get('name', index)}.{'.'.join(keys)}")
    raise RecipeError(f"--set {override}: the phases of this recipe differ in {keys[0]}; set {' or '.join(choices)}")


def _parse_value(text: str, override: str) -> Any:
    """Read a value as TOML or, where it is none, as text, which then needs no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError) as error:
        # An opening quote or bracket shows that TOML was meant.
        if text.strip()[:1] in ("'", '"', "[", "{"):
            raise RecipeError(f"--set {override}: this value is not TOML: {error}") from error
        return text


def _put(table: Table, keys: Sequence[str], value: Any, override: str) -> None:
    """Set the entry of `table` that `keys` lead to; tables on the way that are not there are made."""
    node: Any = table
    default: Any = Recipe()
    for key in keys[:-1]:
        # A table of free keys, such as reward.weights, starts from its default: its other entries stay.
        default = getattr(default, key, None)
        if isinstance(node, list):
            node = node[_index(node, key, override)]
        elif isinstance(default, Mapping):
            node = node.setdefault(key, dict(default))
        else:
            node = node.setdefault(key, {})
        if not isinstance(node, dict | list):
            raise RecipeError(f"--set {override}: {key} is not a table")

    last = keys[-1]
    if isinstance(node, list):
        node[_index(node, last, override)] = value
        return

    # The options that stand beside a preset are its own, and mean nothing to another one.
    if list(keys[-2:]) == PRESET_KEYS:
        for key in set(node) - set(RewardSection.model_fields):
            del node[key]
    node[last] = value


def _index(entries: list[Any], key: str, override: str) -> int:
    """Return the place of the entry that has this number or, alone, this name."""
    names = [entry.get("name") for entry in entries if isinstance(entry, dict)]
    if names.count(key) == 1:
        return names.index(key)

    if not key.isdecimal() or int(key) >= len(entries):
        listed = "".join(f"{name}, " for name in names if name)
        raise RecipeError(f"--set {override}: expected {listed}a number below {len(entries)} in place of {key!r}")
    return int(key)


# Writing


def to_toml(recipe: Recipe) -> str:
    """Return the recipe as TOML with every value; `parse_recipe` reads it back equal."""
    lines: list[str] = []
    _write_section(recipe, "", lines)
    return "\n".join(lines).lstrip("\n") + "\n"


def _write_section(section: Section, name: str, lines: list[str]) -> None:
    """Append the lines of a section: its own values first, as TOML wants it, then its tables."""
    tables = []
    for key, value in section:
        if isinstance(value, Section) or _is_list_of_sections(value):
            tables.append((key, value))
        elif value is not None:  # TOML has no null: what is not set is left out
            lines.append(f"{toml_key(key)} = {toml_value(value)}")

    for key, value in tables:
        if key == "phases":
            key = "phase"
        path = f"{name}.{key}" if name else key
        if isinstance(value, Section):
            lines.append(f"\n[{path}]")
            _write_section(value, path, lines)
            continue
        for entry in value:
            lines.append(f"\n[[{path}]]")
            _write_section(entry, path, lines)


def _is_list_of_sections(value: object) -> bool:
    # An empty list has no table to stand in: it is written as a value.
    return isinstance(value, tuple) and bool(value) and isinstance(value[0], Section)
