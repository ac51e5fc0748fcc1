from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from visionr1.errors import RecipeError
from visionr1.models.settings import LoRASection, ModelSection
from visionr1.rewards import PRESETS
from visionr1.rewards.paper import PAPER_WEIGHTS
from visionr1.training.recipe import Recipe, all_settings, load_recipe, parse_recipe, to_toml

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))

CURRICULUM = """
method = "sft"
seed = 3
[train]
batch_size = 4
learning_rate = 1
[[data]]
source = "scenes"
scenes = { max_objects = 3, cells = 0.5 }
[[phase]]
name = "first"
steps = 10
[[phase]]
name = "second"
minutes = 2.5
batch_size = 8
[[phase.data]]
source = "bccd"
weight = 2
[[phase.data]]
source = "scenes"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_phases_start_from_the_train_table(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, CURRICULUM))
    first, second = recipe.phases
    assert (first.name, first.steps, first.batch_size, first.learning_rate) == ("first", 10, 4, 1.0)
    assert (second.name, second.steps, second.minutes, second.batch_size) == ("second", 0, 2.5, 8)
    assert first.data[0].scenes == {"max_objects": 3, "cells": 0.5}
    assert [(data.source, data.weight) for data in second.data] == [("bccd", 2.0), ("scenes", 1.0)]


def test_no_table_at_all_is_the_paper_s_method() -> None:
    recipe = parse_recipe({})
    assert recipe == Recipe()
    assert (recipe.method, recipe.grpo.beta, recipe.phases[0].learning_rate) == ("grpo", 0.2, 1e-6)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_reads_and_comes_back_equal(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    assert load_recipe(written(tmp_path, to_toml(recipe))) == recipe


def test_the_resolved_recipe_states_every_value(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, CURRICULUM), ['model.path=C:\\models\\"x"'])
    text = to_toml(recipe)
    assert load_recipe(written(tmp_path, text)) == recipe
    assert recipe.model.path == 'C:\\models\\"x"'
    assert "learning_rate = 1.0" in text


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("seed=7", lambda r: r.seed == 7),
        ("train.learning_rate=2e-5", lambda r: r.phases[1].learning_rate == 2e-5),
        ("phase.0.steps=99", lambda r: r.phases[0].steps == 99),
        ("phase.1.data.0.weight=5", lambda r: r.phases[1].data[0].weight == 5),
        ("model.path=some/folder", lambda r: r.model.path == "some/folder"),  # text needs no quotes
        ("reward.weights.count=1", lambda r: r.reward.weights == {**PAPER_WEIGHTS, "count": 1}),
        ("reward.weights.precision=2", lambda r: r.reward.weights == {**PAPER_WEIGHTS, "precision": 2}),
        ("reward.weights={format=1}", lambda r: r.reward.weights == {"format": 1}),
        ("phase.first.steps=99", lambda r: r.phases[0].steps == 99 and r.phases[1].minutes == 2.5),
        ("phase.first.data.0.scenes.cells=1", lambda r: r.phases[0].data[0].scenes == {"max_objects": 3, "cells": 1}),
        ("train.schedule=cosine", lambda r: {phase.schedule for phase in r.phases} == {"cosine"}),
        ("optimizer.betas=[0.9, 0.95]", lambda r: r.optimizer.betas == (0.9, 0.95)),
        ("reward.adaptive=true", lambda r: r.reward.adaptive is True),
    ],
)
def test_set_overrides_one_value(tmp_path: Path, override: str, read: object) -> None:
    assert read(load_recipe(written(tmp_path, CURRICULUM), [override]))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nlerning_rate = 1", r"unknown key train\.lerning_rate; did you mean train\.learning_rate\?"),
        ("[modle]\npath = 'x'", "unknown key modle; did you mean model"),
        ("zzz = 1", "unknown key zzz; known keys: checkpoint"),
        ("[train]\nsteps = 1.5", "train.steps: expected a whole number, found 1.5"),
        ("[train]\nsteps = true", "train.steps: expected a whole number, found True"),
        ("[train]\nlearning_rate = 'high'", "train.learning_rate: expected a number, found 'high'"),
        ("method = 'ppo'", "method: expected one of sft, grpo, found 'ppo'"),
        ("model = 'x'", "model: expected a table, found 'x'"),
        ("phases = []", "unknown key phases; did you mean phase?"),
        ("phase = []", r"phase: expected \[\[phase\]\] tables"),
        ("data = []", "data: expected at least one source"),
        ("[rollout]\ngroup_size = 1", "rollout.group_size: expected 2 or more .* found 1"),
        ("[grpo]\nbeta = -1", "grpo.beta: expected 0 or more, found -1"),
        ("[train]\nlearning_rate = 0", "train.learning_rate: expected above 0, found 0"),
        ("[lora]\nrank = -1", "lora.rank: expected 0 .* or more, found -1"),
        ("[lora]\nalpha = 0", "lora.alpha: expected above 0, found 0"),
        ("[lora]\nvision = true\n[model]\nfreeze_vision = true", "lora.vision: expected false where"),
        ("[optimizer]\nbetas = [0.9]", "optimizer.betas: expected 2 values"),
        (
            "[[data]]\nsource = 'bccd'\nscenes = {cells = 1}",
            r'data\.0\.scenes: expected none where source is "bccd", found',
        ),
        ("[[data]]\nweight = 0", r"data\.0\.weight: expected above 0, found 0"),
        ("[reward.weights]\nformat = 'much'", "reward.weights.format: expected a number, found 'much'"),
        ("[reward.weights]\nprecison = 1", "unknown criteria .*precison.*; known: format, recall, precision, count"),
        ("[reward]\nweights = {}", "above 0"),
        ("[reward]\nweights = {recall = 0}", "above 0"),
        ("[reward.weights]\nformat = -1", "finite and not negative, but found .*format"),
        ("[reward]\nadaptive = true\nstage_step = 0.5", "reward.stage_step: expected 1 where reward.adaptive is true"),
        (
            "[[data]]\nsource = 'scenes'\nscenes = {widht = 1}",
            r"unknown key data\.0\.scenes\.widht; did you mean data\.0\.scenes\.width",
        ),
        ("[[data]]\nsource = 'scenes'\nscenes = {width = 8}", r"data\.0\.scenes\.width: expected 32 or more, found 8"),
        ("[eval]\nprotocol = ['qwen35vl']", "unknown protocol 'qwen35vl'; did you mean"),
        ("[optimizer]\nbetas = [0.9, 1.0]", r"optimizer\.betas\.1: expected below 1, found 1"),
        ("workers = -1", "workers: expected 0 or more, found -1"),
        ("[train]\nepochs = inf", "train.epochs: expected a finite number, found inf"),
        ("[[data]]\nweight = inf", r"data\.0\.weight: expected a finite number, found inf"),
        ("[train]\nseed = 1", r"unknown key train\.seed; did you mean seed\?"),
        ("[eval]\nprotocol = [1]", r"eval\.protocol\.0: expected text, found 1"),
        ("seed = '3'", "seed: expected a whole number, found '3'"),
        ("[train]\nlearning_rate = 1e-3\nfinal_learning_rate = 1", r"from 0 to learning_rate = 0\.001, found 1"),
        ("[rollout]\nengine = 'vllm'\ncompile = true", r"rollout\.compile: expected false \(vLLM compiles"),
        (f"[grpo]\nbeta = {10**400}", r"grpo\.beta: expected a .*number"),
        ("a = ", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(RecipeError, match=message) as raised:
        load_recipe(path)
    assert str(path) in str(raised.value)


TWO_PHASES = '[[phase]]\nname = "warm"\n{first}\n[[phase]]\n{second}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TWO_PHASES.format(first="steps = -1", second=""), r"phase\.warm\.steps: expected 0 \(from epochs\) or more"),
        (TWO_PHASES.format(first="", second="steps = -1"), r"phase\.1\.steps: expected"),  # it has no name
        (TWO_PHASES.format(first="", second='name = "warm"\nsteps = -1'), r"phase\.1\.steps: expected"),  # nor its own
        (TWO_PHASES.format(first="", second="stpes = 1"), r"key phase\.1\.stpes; did you mean phase\.1\.steps\?"),
        (
            TWO_PHASES.format(first="", second="[[phase.data]]\nlimit = -1"),
            r"phase\.1\.data\.0\.limit: expected 0 \(all\)",
        ),
        ("[train]\nsteps = -1\n" + TWO_PHASES.format(first="", second=""), r": train\.steps: expected"),  # of both
        (
            "[train]\nfinal_learning_rate = 1e-7\n" + TWO_PHASES.format(first="", second="learning_rate = 1e-8"),
            r"phase\.1\.final_learning_rate: expected from 0 to learning_rate = 1e-08, found 1e-07",
        ),
    ],
)
def test_the_phase_at_fault_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(written(tmp_path, text))


FLOATS = [key for key, setting in all_settings() if "number" in setting.type and "whole number" not in setting.type]


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize("key", [*FLOATS, "reward.weights.recall"])
def test_no_number_may_be_infinite_or_none(tmp_path: Path, key: str, value: str) -> None:
    assert len(FLOATS) > 15
    section, _, name = key.rpartition(".")
    text = f"[{section}]\n{name} = " + (f"[0.9, {value}]" if name == "betas" else value)
    path = written(tmp_path, text.replace("[data.0]", "[[data]]"))
    with pytest.raises(RecipeError, match=rf"{name}(\.1)?: expected a finite number, found {value}"):
        load_recipe(path)


@pytest.mark.parametrize("key", [key for key, setting in all_settings() if setting.type.startswith("whole number")])
@pytest.mark.parametrize("value", ["true", '"3"', "3.0", "inf"])
def test_a_whole_number_is_nothing_else(tmp_path: Path, key: str, value: str) -> None:
    section, _, name = key.rpartition(".")
    table = f"[{section}]\n".replace("[data.0]", "[[data]]") if section else ""
    with pytest.raises(RecipeError, match=rf"{name}: expected a whole number, found"):
        load_recipe(written(tmp_path, f"{table}{name} = {value}"))


def test_every_setting_is_explained() -> None:
    settings = dict(all_settings())
    assert {"seed", "train.steps", "data.0.source", "grpo.beta", "lora.targets"} <= set(settings)
    assert not [key for key, setting in settings.items() if not setting.text or not setting.type]
    assert settings["lora.rank"].type == "whole number, 0 (no adapters) or more"
    assert settings["rollout.top_p"].type == "number, above 0 and at most 1"
    assert (settings["lora.targets"].type, settings["optimizer.betas"].type) == ("list of text", "2 of number")
    assert settings["method"].type == "sft | grpo"


def test_sections_are_checked_where_they_are_made_too() -> None:
    with pytest.raises(RecipeError, match=r"^alpha: expected above 0, found -1"):
        LoRASection(alpha=-1)
    with pytest.raises(RecipeError, match=r"^unknown key rnk; did you mean rank\?"):
        LoRASection(rnk=1)  # type: ignore[call-arg]
    with pytest.raises(RecipeError, match=r"^phases: expected at least one phase, found \[\]"):
        Recipe(phases=())
    with pytest.raises(RecipeError, match=r"^seed: expected 0 or more"):
        Recipe().with_changes(seed=-1)
    with pytest.raises(ValidationError):
        Recipe().seed = 1  # type: ignore[misc]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot read recipe .*none\.toml"):
        load_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "expected section.key=value"),
        ("=1", "expected section.key=value"),
        ("phase.7.steps=1", "expected first, second, a number below 2 in place of '7'"),
        ("phase.x.steps=1", "expected first, second, a number below 2 in place of 'x'"),
        ("seed.deeper=1", "seed is not a table"),
        ("train.steps=2", r"the phases of .* differ in steps; set phase\.first\.steps or phase\.second\.steps"),
        ("data.0.weight=2", r"differ in data; set phase\.first\.data\.0\.weight or phase\.second\.data\.0\.weight"),
        ("train={steps = 2}", "expected section.key=value"),
        ("train.stpes=2", r"unknown key train\.stpes; did you mean train\.steps"),
        ('model.path="x', "this value is not TOML"),
        ("optimizer.betas=[0.9, 0.95", "this value is not TOML"),
        ("optimizer.learning_rate=1e-5", r"unknown key optimizer.learning_rate; did you mean train\.learning_rate\?"),
        ("max_new_tokens=9", r"did you mean rollout\.max_new_tokens or eval\.max_new_tokens\?"),
        ("reward.weights.fromat=1", r"reward\.weights: unknown criteria \['fromat'\]"),
        ("eval.protocol=nonsense", r"eval\.protocol: unknown protocol 'nonsense'"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(written(tmp_path, CURRICULUM), [override])


@pytest.mark.parametrize("override", ["train.steps=7", "phase.0.steps=7", "phase.train.steps=7"])
def test_one_phase_is_set_in_a_recipe_as_it_was_written_back_too(tmp_path: Path, override: str) -> None:
    first = load_recipe(written(tmp_path, "[train]\nsteps = 40\n[[data]]\nlimit = 5\n"))
    again = written(tmp_path, to_toml(first))
    assert load_recipe(again, [override]) == parse_recipe({"train": {"steps": 7}, "data": [{"limit": 5}]})
    assert load_recipe(again, ["data.0.limit=6"]).phases[0].data[0].limit == 6


def test_what_one_phase_is_given_is_its_own(tmp_path: Path) -> None:
    text = '[[data]]\nlimit = 5\n[[phase]]\nname = "a"\n[[phase]]\nname = "b"\n'
    changes = ["data.0.split=all", "phase.a.data.0.limit=6"]
    first, second = (phase.data[0] for phase in load_recipe(written(tmp_path, text), changes).phases)
    assert (first.limit, second.limit) == (6, 5)
    assert first.split == second.split == "all"


def test_data_from_the_command_line_keeps_the_source_s_settings() -> None:
    own = {"source": "mine", "split": "all", "limit": 5, "augment": True}
    data = parse_recipe({"data": [own, {"source": "scenes"}]}).with_data("yours").phases[0].data
    assert data == parse_recipe({"data": [{**own, "source": "yours"}]}).phases[0].data
    with pytest.raises(RecipeError, match=r"phase train mixes mine, bccd; change data\.source"):
        parse_recipe({"data": [own, {"source": "bccd"}]}).with_data("yours")


def test_data_and_model_from_the_command_line(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, CURRICULUM)).with_data("my/boxes").with_model("my/model")
    assert [[data.source for data in phase.data] for phase in recipe.phases] == [["my/boxes"], ["my/boxes"]]
    assert recipe.model.path == "my/model"


def test_a_template_needs_a_place_for_the_categories() -> None:
    with pytest.raises(RecipeError, match=r"template: expected \{\} where the categories stand, found 'find cats'"):
        ModelSection(template="find cats")


def test_a_value_that_is_nested_too_deep_is_no_crash(tmp_path: Path) -> None:
    deep = "[" * 5000 + "]" * 5000
    file = tmp_path / "deep.toml"
    file.write_text(f"seed = {deep}", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"deep\.toml is not TOML"):
        load_recipe(file)
    file.write_text("", encoding="utf-8")
    with pytest.raises(RecipeError, match="this value is not TOML"):
        load_recipe(file, [f"seed={deep}"])


OWN = """
def reward(text, letters=3, table={"a b": 1}): return 1.0
def other(text, most: int): return 1.0
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    """The place of a file with two rewards."""
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    return (tmp_path / "own.py").as_posix()


def test_another_preset_drops_the_options_of_the_one_before_wherever_it_stands(tmp_path: Path, own: str) -> None:
    text = f"""
    [reward]
    preset = "{own}:reward"
    letters = 5
    [[data]]
    reward = {{ preset = "{own}:reward", letters = 6 }}
    """
    path = written(tmp_path, text)
    # Its own options may stand before it, and blanks around the key.
    overrides = ["reward.most=7", f"reward.preset ={own}:other", "data.0.reward.preset=release"]
    recipe = load_recipe(path, overrides)
    assert recipe.reward.options == {"most": 7}
    assert recipe.phases[0].data[0].reward.options == PRESETS.known("release").options().model_dump()  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match=r"--set reward.preset=release: reward is not a table"):
        load_recipe(written(tmp_path, 'reward = "paper"'), ["reward.preset=release"])


def test_options_that_toml_can_hold_are_written_and_others_refused(tmp_path: Path, own: str) -> None:
    recipe = load_recipe(written(tmp_path, f'[reward]\npreset = "{own}:reward"'))
    assert load_recipe(written(tmp_path, to_toml(recipe))) == recipe
    (tmp_path / "odd.py").write_text("def reward(text, by=len): return 1.0\n", encoding="utf-8")
    recipe = load_recipe(written(tmp_path, f'[reward]\npreset = "{(tmp_path / "odd.py").as_posix()}:reward"'))
    with pytest.raises(RecipeError, match="a recipe cannot hold <built-in function len>"):
        to_toml(recipe)


def test_adaptive_stages_need_some_source_that_tells_recall_and_precision() -> None:
    blind = {"source": "bccd", "reward": {"preset": "vlm_r1"}}
    both = parse_recipe({"reward": {"adaptive": True}, "data": [blind, {"source": "bccd"}]})
    assert both.reward.adaptive
    with pytest.raises(RecipeError, match=r"reward.adaptive: expected false, for no data source of phase train"):
        parse_recipe({"reward": {"adaptive": True}, "data": [blind]})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"model": {"dialect": "qwen2"}}, r"model.dialect: unknown dialect 'qwen2'; did you mean 'qwen25'"),
        ({"model": {"dialect": "no.py:D"}}, "model.dialect: dialect 'no.py:D': cannot import no.py"),
        ({"rollout": {"engine": "no.py:e"}}, "engine 'no.py:e': cannot import no.py"),
        ({"data": [{"reader": "no.py:R"}]}, r"data.0.reader: reader 'no.py:R': cannot import no.py"),
        ({"eval": {"reader": "coca"}}, r"eval.reader: unknown reader 'coca'; did you mean 'coco'"),
    ],
)
def test_code_that_cannot_be_had_is_named_before_a_model_is_loaded(table: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(table)
