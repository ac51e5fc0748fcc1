"""Two processes over gloo against one: the same replies, loss curve and weights; what a death among them leaves."""

import re
import runpy
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.launching import EXAMPLES, accelerate, alone, arguments, launch
from support.more_shapes import build_by_name
from support.training import assert_same_run, rows
from visionr1.cli import main
from visionr1.errors import RecipeError, TrainingError
from visionr1.training.distributed import check_processes, explain_lost_ranks, make_accelerator
from visionr1.training.recipe import load_recipe
from visionr1.training.stream import share

SFT = """
method = "sft"
threads = 1
[model]
path = "{model}"
[train]
steps = 3
batch_size = 3
learning_rate = 1e-3
[checkpoint]
every = 2
[[data]]
source = "scenes"
scenes = {{ width = 120, height = 80, max_objects = 2 }}
"""
GRPO = (
    SFT.replace('"sft"', '"grpo"')
    + """
[rollout]
group_size = 3
max_new_tokens = 8
[reward]
adaptive = true
"""
)
EVALUATED = """
[eval]
every = 2
limit = 3
max_new_tokens = 8
"""
RECIPES = {
    "sft": SFT,
    "grpo": GRPO + "[optimizer]\ntokens_per_forward = 150\n",  # more passes on the process of two samples
    "sharded": GRPO + EVALUATED + "[optimizer]\ntokens_per_forward = 150\n",
    "offloaded": GRPO + "[optimizer]\ntokens_per_forward = 150\n",
    "adapters": GRPO + EVALUATED + "[lora]\nrank = 2\n",
    "plain": SFT.replace("{model}", "{plain}") + "[optimizer]\ntokens_per_forward = 1\n",  # weights without a gradient
    "decayed": SFT + "[optimizer]\nweight_decay = 0.1\n",
    "rounded": SFT.replace("[train]\nsteps = 3", 'autocast = "bfloat16"\n[train]\nsteps = 1')
    + "[optimizer]\ntokens_per_forward = 1\n",  # a sample a row, on any number of processes, so that all round alike
    "spoilt": SFT.replace("every = 2", "every = 1") + "[optimizer]\ntokens_per_forward = 1\n",
    "dying": SFT.replace("steps = 3", "steps = 4"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, qwen3_folder: Path) -> Path:
    """A folder of recipes."""
    folder = tmp_path_factory.mktemp("distributed")
    plain = build_by_name(folder / "llava", qwen3_folder, "llava")
    for name, text in RECIPES.items():
        filled = text.format(model=qwen3_folder.as_posix(), plain=plain.as_posix())
        (folder / f"{name}.toml").write_text(filled, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def two(root: Path) -> Path:
    """The runs of two processes, in one launch."""
    in_shards = {"shards": True}
    special: dict[str, dict[str, Any]] = {
        "spoilt": {"spoilt": 2},
        "sharded": in_shards,
        "adapters": in_shards,
        "offloaded": {**in_shards, "offloads": True},
    }
    jobs = [
        {"arguments": arguments(root, name, "two"), **special.get(name, {})}
        for name in (
            "sft",
            "grpo",
            "plain",
            "spoilt",
            "sharded",
            "adapters",
            "offloaded",
        )  # shards last: they stay what accelerate knows
    ]
    done = launch(root, jobs, accelerate("ddp"))
    assert done.returncode == 0, done.stderr
    (root / "stderr").write_text(done.stderr, encoding="utf-8")
    return root / "two"


@pytest.fixture(scope="module")
def zero(root: Path) -> Path:
    """The runs of two processes that share the optimizer by ZeRO-2, in one launch."""
    pytest.importorskip("deepspeed")
    alone(root, "decayed")
    jobs: list[dict[str, Any]] = [
        {"arguments": arguments(root, "decayed", "zero")},
        {"arguments": arguments(root, "rounded", "zero")},
        {"arguments": arguments(root, "grpo", "zero")},
        {"arguments": arguments(root, "adapters", "zero")},
        {"arguments": arguments(root, "spoilt", "zero"), "spoilt": 2},
        {"arguments": [*arguments(root, "spoilt", "zero"), "--resume"]},
        {"arguments": [*arguments(root, "decayed", "again"), "--resume"], "again": str(root / "zero/decayed")},
        {"arguments": [*arguments(root, "decayed", "taken"), "--resume"], "again": str(root / "one/decayed")},
    ]
    done = launch(root, jobs, accelerate("zero2"))
    assert done.returncode == 0, done.stderr
    (root / "zero/stderr").write_text(done.stderr, encoding="utf-8")
    return root / "zero"


@pytest.mark.parametrize("name", ["sft", "grpo", "plain", "sharded", "adapters", "offloaded"])
def test_two_processes_train_as_one(root: Path, two: Path, name: str) -> None:
    assert_same_run(alone(root, name), two / name)


def test_the_sample_whose_loss_is_no_number_is_named_wherever_it_was(root: Path, two: Path) -> None:
    message = (root / "stderr").read_text(encoding="utf-8")
    assert re.search(r"step 2: loss nan, .*; samples: scene-5\. The step changed no weight; .*spoilt.*step_1", message)
    assert len(rows(two / "spoilt")) == 1


def test_a_checkpoint_of_shards_goes_on_in_one_process(root: Path, two: Path) -> None:
    left = Path(shutil.copytree(two / "sharded", root / "left/sharded", ignore=shutil.ignore_patterns("final")))
    assert main(["train", *arguments(root, "sharded", "left"), "--resume"]) == 0  # its third step again
    assert_same_run(two / "sharded", left)


@pytest.mark.parametrize("name", ["decayed", "grpo", "adapters", "spoilt"])
def test_two_processes_train_as_one_by_zero(root: Path, zero: Path, name: str) -> None:
    assert_same_run(alone(root, name), zero / name)


def test_zero_changes_nothing_by_a_step_without_numbers(root: Path, zero: Path) -> None:
    message = (zero / "stderr").read_text(encoding="utf-8")
    assert re.search(r"step 2: loss nan, .*; samples: scene-\d.* The step changed no weight; .*spoilt.*step_1", message)
    assert_same_run(alone(root, "spoilt"), zero / "spoilt")  # which went on from there


def test_zero_computes_in_the_precision_of_the_recipe(root: Path, zero: Path) -> None:
    rounded, expected = (rows(folder)[0]["grad_norm"] for folder in (zero / "rounded", alone(root, "rounded")))
    exact = rows(zero / "decayed")[0]["grad_norm"]  # the same samples and weights, in float32
    assert abs(rounded - expected) < 0.1 * abs(exact - expected)


def test_zero_goes_on_bit_for_bit(root: Path, zero: Path) -> None:
    again = root / "again/decayed"
    assert rows(again) == rows(zero / "decayed")
    assert (again / "final/model.safetensors").read_bytes() == (zero / "decayed/final/model.safetensors").read_bytes()


def test_zero_and_one_process_go_on_from_each_other(root: Path, zero: Path) -> None:
    assert_same_run(root / "one/decayed", root / "taken/decayed")
    left = Path(shutil.copytree(zero / "decayed", root / "left/decayed", ignore=shutil.ignore_patterns("final")))
    assert main(["train", *arguments(root, "decayed", "left"), "--resume"]) == 0
    assert_same_run(zero / "decayed", left)


@pytest.mark.parametrize("size", [4, 7, 16])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_sample_with_its_group_belongs_to_one_process(size: int, count: int) -> None:
    parts = [share(range(size), index, count) for index in range(count)]
    assert [sample for part in parts for sample in part] == list(range(size))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_death_is_named_and_the_run_goes_on(root: Path) -> None:
    done = launch(root, [{"arguments": arguments(root, "dying", "two"), "dies": 4}])
    assert done.returncode != 0
    assert "another process of this run has ended or cannot be reached" in done.stderr
    assert "--resume" in done.stderr
    assert main(["train", *arguments(root, "dying", "two"), "--resume"]) == 0
    assert_same_run(alone(root, "dying"), root / "two/dying")


SHARDS = ["FSDP2", "ZeRO-2"]


@pytest.mark.parametrize(
    ("change", "kinds", "message"),
    [
        ("train.batch_size=1", ["MULTI_GPU"], "expected a sample for each of 2 processes or more, found 1"),
        ("model.dtype=bfloat16", SHARDS, 'model.dtype: in shards ({}) expected "float32", found "bfloat16"'),
        ("optimizer.name=muon", SHARDS, 'optimizer.name: in shards ({}) expected "adamw", found "muon"'),
        ("optimizer.offload=true", SHARDS, "optimizer.offload: in shards ({}) expected false, found true"),
        ("optimizer.name=adamw_8bit", SHARDS, 'optimizer.name: in shards ({}) expected "adamw", found "adamw_8bit"'),
        ("model.quantization=nf4", SHARDS, 'model.quantization: in shards ({}) expected "none", found "nf4"'),
        (
            "model.offload_reference=true",
            ["FSDP2"],
            "model.offload_reference: in shards (FSDP2) expected false, found true",
        ),
        ("rollout.compile=true", ["FSDP2"], "rollout.compile: in shards (FSDP2) expected false, found true"),
    ],
)
def test_a_recipe_that_does_not_suit_the_processes_is_refused(
    root: Path, change: str, kinds: list[str], message: str
) -> None:
    # A base of 4 bits needs adapters.
    adapters = ["lora.rank=2"] if "quantization" in change else []
    recipe = load_recipe(root / "grpo.toml", [change, *adapters])
    for kind in kinds:
        known_as = {"ZeRO-2": "DEEPSPEED"}.get(kind, kind)
        processes = SimpleNamespace(num_processes=2, is_fsdp2=kind == "FSDP2", distributed_type=known_as)
        with pytest.raises(RecipeError, match=re.escape(message.format(kind))):
            check_processes(recipe, processes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("ACCELERATE_USE_DEEPSPEED", 'install it with: pip install "visionr1[deepspeed]"'),
        ("ACCELERATE_USE_FSDP", "examples/accelerate/fsdp2.yaml"),
        ("ACCELERATE_DEEPSPEED_ZERO_STAGE", "zero_stage: expected 2, found true: examples/accelerate/zero2.yaml"),
        ("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "offload_param_device: expected none, found true"),
        ("ACCELERATE_DEEPSPEED_CONFIG_FILE", "config_file: expected none, found true"),
    ],
)
def test_what_a_launcher_asks_in_vain_is_refused(
    root: Path, variable: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "true")
    if "DEEPSPEED" in variable:
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    assert main(["train", *arguments(root, "sft", "refused")]) == 2
    assert message in capsys.readouterr().err


def test_processes_wait_while_one_writes_a_large_checkpoint() -> None:
    handler = make_accelerator("cpu").init_handler
    assert handler is not None
    assert handler.to_kwargs()["timeout"].total_seconds() >= 3600


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4711", TrainingError),
        ("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms", TrainingError),
        ("[gloo/transport/tcp/device.cc:84] Unable to find address for interface eth7", RuntimeError),
    ],
)
def test_only_what_a_lost_process_causes_is_called_so(message: str, kind: type[Exception]) -> None:
    with pytest.raises(kind), explain_lost_ranks():
        raise RuntimeError(message)


def test_the_package_runs_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["visionr1", "train", "demo", "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("visionr1", run_name="__main__")
    assert ended.value.code == 0
    assert 'method = "grpo"' in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_launcher_settings_are_accelerate_s(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    settings = load_config_from_file(str(path))
    assert settings.mixed_precision == "no"
    if path.stem == "fsdp2":
        assert settings.fsdp_config["fsdp_version"] == 2
        assert settings.fsdp_config["fsdp_cpu_ram_efficient_loading"] is False
    if path.stem == "zero2":
        assert settings.deepspeed_config["zero_stage"] == 2
