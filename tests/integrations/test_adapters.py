"""The adapters as their hosts call them, without the hosts; `tests/integrations/real` runs them inside."""

from __future__ import annotations

import logging
import subprocess
import sys
import types
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionr1.dialects import get_dialect
from visionr1.errors import DataError, RecipeError
from visionr1.integrations import core, easyr1, openrlhf, to_json, trl, verl
from visionr1.rewards import Reward
from visionr1.rewards.published.vision_r1_release import ReleaseReward, ReleaseStep
from visionr1.rewards.stages import ADVANCED, BEGINNER
from visionr1.samples import Boxes, GroundTruth

TRUTH = GroundTruth(
    Boxes.of([[10, 20, 110, 220], [200, 100, 300, 200]], ["cat", "dog"]), ("cat", "dog"), (640, 480), (644, 476)
)
ROW = to_json(TRUTH)
RIGHT = get_dialect("qwen25").render(TRUTH.boxes, size_wh=TRUTH.size_wh, input_size_wh=TRUTH.input_size_wh)
HALF = RIGHT.replace("[10, 20, ", "[10, 60, ")  # the cat's box at IoU about 0.8
NOISE = "There is a cat."


def state(step: int, last: int) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, max_steps=last)


def test_the_core_scores_as_the_reward_does() -> None:
    expected = Reward().score(HALF, TRUTH)
    assert core.score(HALF, ROW) == core.HostScore(expected.total, expected.parts, 3.0)
    assert 0.75 < expected.pairs[0].iou < 0.9


def test_the_stage_follows_progress_and_step() -> None:
    beginner, advanced = (
        core.HostScore(found.total, found.parts, 3.0)
        for found in (Reward().score(HALF, TRUTH, stage=stage) for stage in (BEGINNER, ADVANCED))
    )
    assert beginner != advanced
    assert core.score(HALF, ROW) == beginner
    assert core.score(HALF, ROW, step=0.5, progress=0.4) == beginner
    assert core.score(HALF, ROW, step=0.5, progress=0.5) == advanced
    assert core.score(HALF, to_json(TRUTH, progress=0.6), step=0.5) == advanced  # the row's own
    assert core.score(HALF, to_json(TRUTH, progress=0.6), step=0.5, progress=0.1) == beginner  # the host's first
    assert core.score(HALF, ROW, step=0) == advanced


@pytest.mark.parametrize("step_and_mode", [(1.0, None), (0.5, 0), (0.0, 1500)])
def test_preset_release_scores_as_the_public_code(step_and_mode: tuple[float, ReleaseStep]) -> None:
    step, mode = step_and_mode
    expected = ReleaseReward(mode).score(HALF, TRUTH)
    found = core.score(HALF, to_json(TRUTH, preset="release"), step=step, progress=0.2)
    assert found == core.HostScore(expected.total, expected.parts, 3.0)


def test_preset_vlm_r1_has_parts_of_its_own() -> None:
    row = to_json(TRUTH, preset="vlm_r1")
    completion = f"<think>two animals</think><answer>{RIGHT}</answer>"
    assert core.score(completion, row) == core.HostScore(2.0, {"odLength": 1.0, "format": 1.0}, 2.0)
    assert openrlhf.reward_func([decoded(completion)], [PROMPT], [row])["scores"] == 1.0
    functions = trl.reward_functions(preset="vlm_r1")
    assert [function.__name__ for function in functions] == ["visionr1_odLength", "visionr1_format"]
    assert [function(completions=[[{"content": completion}]], ground_truth=[row]) for function in functions] == [
        [1.0]
    ] * 2
    with pytest.raises(RecipeError, match="has the parts odLength, format, but a reward for recall is in use"):
        trl.reward_functions()[1](completions=[[{"content": completion}]], ground_truth=[row])
    with pytest.raises(RecipeError, match="unknown preset 'latin'"):
        trl.reward_functions(preset="latin")


def test_a_step_without_progress_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"step=0\.5 needs to know how far training is"):
        core.score(HALF, ROW, step=0.5)


def test_trl_gets_one_function_per_part() -> None:
    functions = trl.reward_functions(step=0.5)
    assert [function.__name__ for function in functions] == ["visionr1_format", "visionr1_recall", "visionr1_precision"]
    completions = [[{"role": "assistant", "content": text}] for text in (RIGHT, NOISE)]
    call: dict[str, Any] = {
        "prompts": [[], []],
        "completions": completions,
        "completion_ids": [[1], [2]],
        "ground_truth": [ROW, ROW],
        "trainer_state": state(0, 10),
        "log_metric": None,
    }
    assert [function(**call) for function in functions] == [[1.0, 0.0]] * 3
    call["completions"] = [RIGHT, NOISE]  # of prompts that are text
    assert [function(**call) for function in functions] == [[1.0, 0.0]] * 3


def test_trl_stage_comes_from_the_trainer_state() -> None:
    precision = trl.reward_functions(step=0.5)[2]
    completion = [[{"content": HALF}]]
    early = precision(completions=completion, ground_truth=[ROW], trainer_state=state(4, 10))
    late = precision(completions=completion, ground_truth=[ROW], trainer_state=state(5, 10))
    assert early == [1.0]  # IoU above xi2 = .75
    assert 0.85 < late[0] < 0.95  # the cat's IoU counts as it is


def test_verl_gets_total_and_parts() -> None:
    assert verl.compute_score("visionr1", RIGHT, ROW, {}) == {
        "score": 3.0,
        "format": 1.0,
        "recall": 1.0,
        "precision": 1.0,
    }
    extra = {"num_turns": 1, "rollout_reward_scores": {}, "max_global_steps": 5}
    late = verl.compute_score("visionr1", HALF, ROW, extra, step=0.5, total_steps=10, reward_router_address="x")
    assert late["precision"] < 1.0
    early = verl.compute_score("visionr1", HALF, ROW, extra, step=0.5, total_steps=11)
    assert early["precision"] == 1.0
    with pytest.raises(RecipeError):
        verl.compute_score("visionr1", HALF, ROW, {}, step=0.5, total_steps=10)


def test_easyr1_scores_a_batch_and_counts_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(easyr1, "_calls", iter(range(4)))
    batch = [{"response": HALF, "response_length": 9, "ground_truth": ROW}]
    calls = [easyr1.compute_score(batch, step=0.5, total_calls=4)[0] for _ in range(4)]
    assert [call["precision"] == 1.0 for call in calls] == [True, True, False, False]
    assert easyr1.compute_score(batch) == [{"overall": 3.0, "format": 1.0, "recall": 1.0, "precision": 1.0}]


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """What the adapter uses of `swift.rewards`; the real one is used in `tests/integrations/real`."""
    rewards = types.ModuleType("swift.rewards")
    rewards.ORM, rewards.orms = object, {}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "swift", types.ModuleType("swift"))
    monkeypatch.setitem(sys.modules, "swift.rewards", rewards)
    monkeypatch.delitem(sys.modules, "visionr1.integrations.ms_swift", raising=False)
    return rewards


def test_ms_swift_gets_one_class_per_part(swift: types.ModuleType) -> None:
    from visionr1.integrations import ms_swift

    ms_swift.register(step=0.5)
    assert list(swift.orms) == ["visionr1_format", "visionr1_recall", "visionr1_precision"]
    precision = swift.orms["visionr1_precision"]()
    assert type(precision).__name__ == "VisionR1Precision"
    assert precision([RIGHT, NOISE], ground_truth=[ROW, ROW], trainer_state=state(0, 2), images=[]) == [1.0, 0.0]
    assert precision([HALF], ground_truth=[ROW], trainer_state=state(1, 2))[0] < 1.0


PROMPT = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Locate<|im_end|>\n<|im_start|>assistant\n"


def decoded(completion: str) -> str:
    """As OpenRLHF decodes it: image placeholders many times, special tokens kept."""
    return PROMPT.replace("<|image_pad|>", "<|image_pad|>" * 9) + completion


@pytest.mark.parametrize(
    ("written", "completion"),
    [
        (RIGHT + "<|im_end|>", RIGHT),
        (RIGHT + "<|im_end|>\n", RIGHT),
        (RIGHT + "<|im_end|><|endoftext|>", RIGHT),
        (RIGHT, RIGHT),  # truncated: no end token
        ("", ""),
        ("<|im_start|>assistant\n" + RIGHT, "<|im_start|>assistant\n" + RIGHT),  # the model writes the header once more
        (RIGHT + "<|im_end|>\n<|im_start|>assistant\n[]", RIGHT + "<|im_end|>\n<|im_start|>assistant\n[]"),
    ],
)
def test_openrlhf_completion_is_what_comes_after_the_prompt(written: str, completion: str) -> None:
    assert openrlhf.completion_of(decoded(written), PROMPT) == completion


def test_openrlhf_gets_reward_score_and_logs() -> None:
    out = openrlhf.reward_func([decoded(RIGHT + "<|im_end|>")], [PROMPT], [ROW])
    assert out == {"rewards": 3.0, "scores": 1.0, "extra_logs": {"format": 1.0, "recall": 1.0, "precision": 1.0}}
    late = openrlhf.make_reward_func(step=0.5, progress=0.9)([decoded(HALF)], [PROMPT], [ROW])
    assert late["extra_logs"]["precision"] < 1.0


INTERNVL_ROW = to_json(TRUTH, dialect="internvl")
STRIPPED = "cat[[16, 42, 172, 458]]\ndog[[313, 208, 469, 417]]"


@pytest.mark.parametrize(
    "score_by_host",
    [
        lambda: [part([STRIPPED], ground_truth=[INTERNVL_ROW])[0] for part in trl.reward_functions()],
        lambda: list(verl.compute_score("", STRIPPED, INTERNVL_ROW).values())[1:],
        lambda: list(easyr1.compute_score([{"response": STRIPPED, "ground_truth": INTERNVL_ROW}])[0].values())[1:],
    ],
    ids=["trl", "verl", "easyr1"],
)
def test_internvl_without_its_tags_keeps_its_boxes_and_the_host_is_named_once(
    score_by_host: Any, caplog: pytest.LogCaptureFixture
) -> None:
    core._warn_stripped_tags.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert score_by_host() == pytest.approx([0, 1, 1], abs=0.02)
        score_by_host()
    assert len(caplog.records) == 1 and "without special tokens" in caplog.text


OPENED = "I look.</think>\n<answer>" + RIGHT + "</answer>"


@pytest.mark.parametrize("preset", ["paper", "vlm_r1"])
def test_a_thought_that_the_prompt_opened_is_paid_once(preset: str) -> None:
    def total(text: str, dialect: str) -> float:
        return core.score(text, to_json(TRUTH, dialect=dialect, preset=preset)).total

    best = 3.0 if preset == "paper" else 2.0
    assert total(OPENED, "open-think+qwen25") == best
    assert total("<think>" + OPENED, "think+qwen25") == best
    assert total(OPENED, "think+qwen25") == best - 1
    if preset == "paper":  # VLM-R1's pattern takes a second tag for the thought's own words
        assert total("<think>" + OPENED, "open-think+qwen25") == best - 1


def test_openrlhf_says_why_before_its_host_swallows_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(DataError, match="field boxen: expected no such field"):
        openrlhf.reward_func([decoded(RIGHT)], [PROMPT], [ROW.replace("boxes", "boxen")])
    assert "no reward for this completion" in caplog.text
    with pytest.raises(DataError, match="expected it to hold the end of the prompt"):
        openrlhf.reward_func(["something else"], [PROMPT], [ROW])


@given(text=st.text())
def test_model_text_never_raises(text: str) -> None:
    completions = [[{"content": text}]]
    for function in trl.reward_functions():
        assert 0.0 <= function(completions=completions, ground_truth=[ROW])[0] <= 1.0
    assert 0.0 <= verl.compute_score("", text, ROW)["score"] <= 3.0
    assert 0.0 <= easyr1.compute_score([{"response": text, "ground_truth": ROW}])[0]["overall"] <= 3.0
    assert 0.0 <= openrlhf.reward_func([decoded(text)], [PROMPT], [ROW])["rewards"] <= 3.0


def test_no_adapter_loads_its_host_or_torch() -> None:
    code = (
        "import sys; from visionr1.integrations import trl, verl, easyr1, openrlhf; "
        "print([name for name in ('torch', 'transformers', 'swift', 'ray') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
