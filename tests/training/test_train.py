"""Training through the command line on a random model: what a run leaves, and that nothing is lost."""

import errno
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from support.training import GRPO, SFT, assert_same_update, killed_at, rows, weights
from visionr1.cli import main
from visionr1.data import read_source
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.saving import save_trained
from visionr1.training import sft
from visionr1.training.learners import GroupWork, Reinforced, Supervised, SupervisedWork

Run = Callable[..., int]


@pytest.mark.parametrize(
    ("text", "kills", "extra"),
    [
        (SFT, [(1, "metrics.jsonl"), (3, "metrics.jsonl"), (5, "metrics.jsonl")], []),
        (SFT, [(3, "metrics.jsonl")], ["--set", "workers=1"]),
        (GRPO, [(1, "rollouts.jsonl"), (3, "metrics.jsonl"), (4, "rollouts.jsonl")], []),
        (GRPO, [(3, "rollouts.jsonl")], ["--set", "grpo.beta=0", "--set", "grpo.updates_per_rollout=2"]),
        (GRPO, [(3, "metrics.jsonl")], ["--set", "lora.rank=2"]),
        (SFT, [(3, "metrics.jsonl")], ["--set", "model.dtype=bfloat16", "--set", "model.gradient_checkpointing=true"]),
    ],
    ids=["sft", "sft with a worker", "grpo with KL", "grpo off-policy without KL", "grpo, LoRA", "sft, bfloat16"],
)
def test_a_killed_run_ends_bit_equal(
    run: Run, tmp_path: Path, text: str, kills: list[tuple[int, str]], extra: list[str]
) -> None:
    assert run(text, "straight", *extra) == 0
    for number, kill in enumerate(kills):
        with killed_at(*kill):
            run(text, "killed", *extra, *(["--resume"] if number else []))
    assert run(text, "killed", *extra, "--resume") == 0
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert rows(straight) == rows(killed)
    assert all(torch.equal(tensor, weights(killed)[name]) for name, tensor in weights(straight).items())
    if text == GRPO:
        assert rows(straight, "rollouts.jsonl") == rows(killed, "rollouts.jsonl")


def test_what_a_run_leaves(run: Run, tmp_path: Path, qwen3_folder: Path) -> None:
    assert run(GRPO, "run", "--set", "checkpoint.keep=1") == 0
    folder = tmp_path / "run"
    metrics = rows(folder)
    assert [row["step"] for row in metrics] == [1, 2, 3, 4]
    assert metrics[-1]["progress"] == 1.0
    assert {
        "phase", "learning_rate", "loss", "grad_norm", "kl", "stage", "reward/total", "reward/format", "reward/recall",
        "reward/precision", "completion_length", "truncated_share", "groups_without_spread", "label_accuracy",
        "boxes_per_completion", "true_boxes", "watch/duplicates", "watch/whole_image", "watch/format_errors",
        "watch/valid_iou",
    } <= set(metrics[0])  # fmt: skip
    assert metrics[0]["kl"] == pytest.approx(0, abs=1e-9)  # the policy is still the reference
    assert metrics[-1]["kl"] > 0
    rollouts = rows(folder, "rollouts.jsonl")
    assert [(row["step"], row["index"]) for row in rollouts] == [
        (step, completion) for step in (1, 2, 3, 4) for _ in range(2) for completion in range(3)
    ]
    parts = {"format", "recall", "precision", "total", "advantage"}
    assert {"sample_id", "text", "truncated", "num_tokens", *parts} <= set(rollouts[0])
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_4"]
    assert main(["train", str(folder / "recipe.toml"), "--dry-run"]) == 0
    trained, before = load_policy(folder), load_policy(qwen3_folder)  # final/ is an ordinary folder
    assert trained.dialect is before.dialect
    model = AutoModelForImageTextToText.from_pretrained(
        folder / "final", trust_remote_code=False
    )  # for whoever has transformers alone
    assert torch.equal(model.lm_head.weight, trained.model.lm_head.weight)
    assert len(AutoTokenizer.from_pretrained(folder / "final", trust_remote_code=False)) == len(before.tokenizer)
    assert (
        AutoImageProcessor.from_pretrained(folder / "final", backend="pil", trust_remote_code=False).size
        == before.image_processor.size
    )
    assert not torch.equal(trained.model.lm_head.weight, before.model.lm_head.weight)


def test_gradients_are_held_in_an_update_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []
    collect, loss = Reinforced.collect, Reinforced.loss

    def gradients(self: Reinforced) -> bool:
        return any(parameter.grad is not None for parameter in self.policy.model.parameters())

    def collecting(self: Reinforced, *arguments: Any) -> Any:
        held.append(gradients(self))
        return collect(self, *arguments)

    def losing(self: Reinforced, *arguments: Any) -> Any:
        held.append(gradients(self))
        return loss(self, *arguments)

    monkeypatch.setattr(Reinforced, "collect", collecting)
    monkeypatch.setattr(Reinforced, "loss", losing)
    part = ["--set", "optimizer.tokens_per_forward=1", "--set", "grpo.updates_per_rollout=2"]
    assert run(GRPO, "run", "--set", "train.steps=2", "--set", "train.batch_size=1", *part) == 0
    assert held == 2 * [False, *2 * [False, True, True]]  # rollout, then twice three completions by themselves


def test_what_a_run_of_adapters_leaves(run: Run, tmp_path: Path, qwen3_folder: Path) -> None:
    for text in (SFT, GRPO):
        folder = tmp_path / text.split('"')[1]
        assert run(text, folder.name, "--set", "lora.rank=2") == 0
        checkpoint = {path.name for path in (folder / "checkpoints/step_4").iterdir()}
        assert checkpoint == {"adapter_config.json", "adapter_model.safetensors", "trainer_state.pt", "visionr1.json"}
        trained, before = load_policy(folder).model.state_dict(), load_policy(qwen3_folder).model.state_dict()
        moved = {name for name, tensor in trained.items() if not torch.equal(tensor, before[name])}
        assert moved
        assert all("language_model.layers." in name and "proj" in name for name in moved)
        adapter = load_policy(folder / "final/adapter").model  # by itself, on its base
        assert {name for name, parameter in adapter.named_parameters() if parameter.requires_grad}
    metrics = rows(tmp_path / "grpo")
    assert metrics[0]["kl"] == 0.0
    assert metrics[-1]["kl"] > 0


def test_adapters_of_another_model_are_refused(
    run: Run, tmp_path: Path, qwen3_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(qwen3_folder, tmp_path / "model"))
    text = SFT.replace("{model}", model.as_posix())
    assert run(text, "run", "--set", "lora.rank=2") == 0
    tensors = load_file(model / "model.safetensors")
    save_file({n: 2 * t for n, t in tensors.items()}, model / "model.safetensors", metadata={"format": "pt"})
    shutil.rmtree(tmp_path / "run/final")
    assert run(text, "run", "--set", "lora.rank=2", "--resume") == 2
    assert "belong to a base model with other weights" in capsys.readouterr().err


def test_final_weights_in_bfloat16(run: Run, tmp_path: Path) -> None:
    assert run(SFT, "run", "--set", "model.save_dtype=bfloat16") == 0
    assert {tensor.dtype for tensor in weights(tmp_path / "run").values()} == {torch.bfloat16}
    config = json.loads((tmp_path / "run/final/config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "bfloat16"
    assert {p.dtype for p in load_policy(tmp_path / "run").model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("text", "steps"),
    [(SFT, ["--set", "phase.0.steps=1", "--set", "phase.1.steps=1"]), (GRPO, ["--set", "train.steps=2"])],
    ids=["sft", "grpo"],
)
def test_splitting_a_step_changes_nothing(run: Run, tmp_path: Path, text: str, steps: list[str]) -> None:
    assert run(text, "whole", *steps) == 0
    assert run(text, "parts", *steps, "--set", "optimizer.tokens_per_forward=1") == 0  # a row for each completion
    for whole, parts in zip(rows(tmp_path / "whole"), rows(tmp_path / "parts"), strict=True):
        assert whole["loss"] == pytest.approx(parts["loss"], rel=1e-4, abs=1e-6)
        assert whole["grad_norm"] == pytest.approx(parts["grad_norm"], rel=1e-3)
    assert_same_update(tmp_path / "whole", tmp_path / "parts")


def test_a_run_folder_in_use_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SFT, "run") == 0
    assert run(SFT, "run") == 2
    assert "holds a run already; continue it with --resume" in capsys.readouterr().err


def test_a_changed_recipe_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SFT, "run") == 0
    assert run(SFT, "run", "--resume", "--set", "seed=1") == 2
    message = capsys.readouterr().err
    assert "-seed = 0" in message
    assert "+seed = 1" in message


def test_data_that_have_changed_are_refused_by_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SFT.partition("[[data]]")[0] + '[[data]]\nsource = "bccd"\nlimit = 3\n'
    with killed_at(2, "metrics.jsonl"):
        run(text, "run", "--set", "checkpoint.every=1")
    samples = read_source("bccd", split="train")
    capsys.readouterr()
    monkeypatch.setattr("visionr1.training.stream.read_source", lambda *_, **__: samples[1:])
    assert run(text, "run", "--set", "checkpoint.every=1", "--resume") == 2
    message = capsys.readouterr().err
    assert re.search(r"phase\.0\.data\.0 \(bccd\) has changed since .*step_1 was written", message)
    assert re.search(r"it held 3 samples with checksum \w+, now 3 samples with", message)
    assert len(rows(tmp_path / "run")) == 2  # nothing was cut
    monkeypatch.undo()
    assert run(text, "run", "--set", "checkpoint.every=1", "--resume") == 0


def test_another_reference_model_is_refused(
    run: Run, tmp_path: Path, qwen3_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(qwen3_folder, tmp_path / "model"))
    text = GRPO.replace("{model}", model.as_posix())
    assert run(text, "run") == 0
    tensors = load_file(model / "model.safetensors")
    save_file({n: 2 * t for n, t in tensors.items()}, model / "model.safetensors", metadata={"format": "pt"})
    shutil.rmtree(tmp_path / "run/final")
    assert run(text, "run", "--resume") == 2
    assert "is not the one that this run started from" in capsys.readouterr().err


def test_a_run_that_never_began_can_be_started_again(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SFT, "run", "--set", "model.path=nowhere") == 2
    assert "no model in nowhere" in capsys.readouterr().err
    assert run(SFT, "run") == 0


def test_a_device_that_is_not_there_is_named_with_another(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SFT, "run", "--set", "model.device=cuda:99") == 2
    assert "found 'cuda:99'" in (message := capsys.readouterr().err)
    assert "--set model.device=cpu" in message


def test_data_of_a_late_phase_is_opened_first(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SFT, "run", "--set", 'phase.1.data=[{source = "nowhere.json"}]') == 2
    message = capsys.readouterr().err
    assert "nowhere.json" in message
    assert "step 1" not in message


def test_nothing_to_resume(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SFT, "run", "--resume") == 2
    assert "there is no run in" in capsys.readouterr().err


def test_a_finished_run_resumed_stays_as_it_is(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(GRPO, "run", "--set", "checkpoint.every=0") == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert not (tmp_path / "run/checkpoints").exists()
    capsys.readouterr()
    assert run(GRPO, "run", "--set", "checkpoint.every=0", "--resume") == 0
    folder = tmp_path / "run"
    said = f"{folder} is finished already: {len(rows(folder))} steps; the trained model is in {folder}/final\n"
    assert capsys.readouterr().out == said
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert run(GRPO, "run", "--set", "train.steps=9", "--resume") == 2  # not finished by that
    assert "with a changed recipe" in capsys.readouterr().err


def test_a_full_disk_keeps_the_checkpoint_before(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(policy: Policy, folder: Path, *arguments: Any) -> None:
        save_trained(policy, folder, *arguments)
        if "step_4" in folder.name:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("visionr1.training.run_folder.save_trained", full)
    assert run(SFT, "run") == 2
    message = capsys.readouterr().err
    assert "No space left on device" in message
    assert "step_2, is kept" in message
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step_2"]


def test_a_full_disk_under_the_metrics(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = Path.open

    def full(self: Path, *arguments: Any, **settings: Any) -> Any:
        if self.name == "metrics.jsonl":
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(self, *arguments, **settings)

    monkeypatch.setattr(Path, "open", full)
    assert run(SFT, "run") == 2
    assert re.search(r"cannot write .*metrics\.jsonl: .*No space left on device", capsys.readouterr().err)


def test_a_loss_that_is_no_number_stops_the_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loss, calls = Supervised.loss, iter(range(100))

    def spoilt(self: Supervised, work: SupervisedWork) -> tuple[torch.Tensor, dict[str, Any]]:
        value, sums = loss(self, work)
        third = next(calls) >= 2 * 3 and work.rows.completion[0] == 1  # the steps' second samples, a part each
        return value * (float("nan") if third else 1), sums

    monkeypatch.setattr(Supervised, "loss", spoilt)
    parts = ["--set", "optimizer.tokens_per_forward=1", "--set", "checkpoint.every=2"]
    assert run(SFT, "run", *parts) == 2
    message = capsys.readouterr().err
    assert re.search(r"step 4: loss nan.*samples: scene-3\. The step changed no weight; last .*step_2", message)
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2, 3]
    monkeypatch.setattr(Supervised, "loss", loss)
    assert run(SFT, "run", *parts, "--resume") == 0
    assert run(SFT, "straight", *parts) == 0
    assert rows(tmp_path / "run") == rows(tmp_path / "straight")
    assert all(torch.equal(t, weights(tmp_path / "run")[name]) for name, t in weights(tmp_path / "straight").items())


def test_a_loss_that_is_no_number_keeps_the_checkpoints_and_says_which_updates_were_made(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loss, calls = Reinforced.loss, iter(range(100))

    def spoilt(self: Reinforced, work: GroupWork) -> tuple[torch.Tensor, dict[str, Any]]:
        value, sums = loss(self, work)
        return value * (float("nan") if next(calls) == at else 1), sums

    monkeypatch.setattr(Reinforced, "loss", spoilt)
    settings = ["--set", "grpo.updates_per_rollout=2", "--set", "checkpoint.every=1", "--set", "checkpoint.keep=1"]
    for at, samples, said in (
        (5, "scene-4, scene-5", "made 1 update before; last checkpoint: .*step_2"),
        (2, "scene-2, scene-3", "changed no weight; last checkpoint: .*step_1"),
    ):
        calls = iter(range(100))
        assert run(GRPO, f"run{at}", *settings) == 2
        assert re.search(rf"samples: {samples}\. The step {said}", capsys.readouterr().err)
        assert [path.name for path in (tmp_path / f"run{at}/checkpoints").iterdir()] == [said[-6:]]


def test_a_gradient_that_is_no_number_changes_no_weight(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loss = sft.loss
    monkeypatch.setattr(sft, "loss", lambda logprobs, w: loss(logprobs, w) + (0 * logprobs.sum()).sqrt())
    assert run(SFT, "run") == 2
    message = capsys.readouterr().err
    assert re.search(r"step 1: loss \d.*gradient norm nan; samples: scene-0, scene-1.*last checkpoint: none", message)
    assert not (tmp_path / "run/metrics.jsonl").exists()
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_reward_that_raises_names_sample_and_completion(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (
        "calls = iter(range(100))",
        "def reward(text):",
        "    if next(calls) == 4:  # the second completion of the second sample",
        "        raise ZeroDivisionError('no boxes')",
        "    return 0.0",
    )
    (tmp_path / "raising.py").write_text("\n".join(lines), encoding="utf-8")
    changes = ["--set", f"reward.preset={tmp_path / 'raising.py'}:reward", "--set", "reward.adaptive=false"]
    assert run(GRPO, "run", *changes) == 2
    message = capsys.readouterr().err
    place = f"({tmp_path / 'raising.py'}:4)"
    assert f"the reward raised ZeroDivisionError('no boxes') {place} at sample scene-1, completion 1: '" in message


def test_an_image_too_large_for_the_context_names_the_sample(
    run: Run, tmp_path: Path, qwen3_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(qwen3_folder, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["max_position_embeddings"] = 16
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for workers in (0, 1):
        assert run(SFT.replace("{model}", model.as_posix()), "run", "--set", f"workers={workers}") == 2
        message = capsys.readouterr().err
        assert re.search(r"sample scene-0: the prompt for an image of 120x80 pixels takes \d+ tokens", message)
        assert "but the model's context holds 16" in message
        shutil.rmtree(tmp_path / "run")


def test_an_interrupt_writes_a_checkpoint(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = sft.loss

    def interrupting(*arguments: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return loss(*arguments)

    monkeypatch.setattr(sft, "loss", interrupting)
    assert run(SFT, "run") == 130
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step_1"]
    monkeypatch.setattr(sft, "loss", loss)
    assert run(SFT, "run", "--resume") == 0
    assert run(SFT, "straight") == 0
    assert rows(tmp_path / "run") == rows(tmp_path / "straight")


def test_a_checkpoint_without_its_weights_is_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(SFT, "run") == 0
    file = tmp_path / "run/checkpoints/step_4/model.safetensors"
    tensors = load_file(file)
    dropped = next(name for name in tensors if "mlp" in name)
    del tensors[dropped]
    save_file(tensors, file, metadata={"format": "pt"})
    shutil.rmtree(tmp_path / "run/final")
    assert run(SFT, "run", "--resume") == 2
    assert "do not fit its config.json" in capsys.readouterr().err


def test_a_completion_that_cannot_fit_names_the_sample(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(GRPO, "run", "--set", "rollout.max_new_tokens=100000") == 2
    message = capsys.readouterr().err
    assert re.search(r"sample scene-0: its prompt takes \d+ tokens and its completion up to 100000", message)


def test_scenes_need_an_end(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(GRPO, "run", "--set", "train.steps=0") == 2
    assert "scenes never end, so set train.steps or train.minutes" in capsys.readouterr().err


@pytest.mark.parametrize(("steps", "said"), [(0, "1 steps; "), (4, "1 steps of 4, which train.minutes cut off; ")])
def test_time_ends_a_phase(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], steps: int, said: str) -> None:
    assert run(GRPO, "run", "--set", f"train.steps={steps}", "--set", "train.minutes=0.0001") == 0
    (row,) = rows(tmp_path / "run")
    assert row["progress"] == 1.0
    assert capsys.readouterr().out.startswith(said)


def test_bccd_by_epochs(run: Run, tmp_path: Path) -> None:
    text = SFT.partition("[[data]]")[0] + '[[data]]\nsource = "bccd"\nlimit = 3\n'
    assert run(text, "run", "--set", "train.epochs=2") == 0
    assert len(rows(tmp_path / "run")) == 3  # 2 epochs of 3 samples, 2 a step
