"""One step of each learner: what it runs, against what it should have run."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from support.random_models import plain_logprobs, sharpen
from visionr1.dialects import get_dialect
from visionr1.errors import DataError
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.trainable import make_trainable
from visionr1.rewards import Score
from visionr1.rollout.engine import Completion
from visionr1.samples import Boxes, GroundTruth, Sample
from visionr1.training.learners import GroupWork, Reinforced, Supervised, make_learner
from visionr1.training.outcomes import OVERLAP_STEPS, ZERO_STEPS, Outcome, OverlapWatch, Question, ZeroRewardWatch
from visionr1.training.recipe import Recipe, parse_recipe
from visionr1.training.stream import open_stream

SEEDS = [(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 0, 2)]
SCENES = {"source": "scenes", "scenes": {"width": 120, "height": 80, "max_objects": 2}}


def make_recipe(**tables: object) -> Recipe:
    return parse_recipe(
        {
            "data": [SCENES],
            "train": {"batch_size": 3},
            "rollout": {"group_size": 3, "max_new_tokens": 12},
            **tables,
        }
    )


def samples(recipe: Recipe) -> list[Sample]:
    return open_stream(recipe.phases[0], (0, 0)).batch(0)


@pytest.fixture
def reinforced(qwen25_folder: Path) -> Callable[..., Reinforced]:
    """GRPO's learner by a recipe with these tables."""

    def make(**tables: object) -> Reinforced:
        recipe = make_recipe(**tables)
        policy = sharpen(load_policy(qwen25_folder), 2.0)
        make_trainable(policy, recipe.model, recipe.lora)
        learner = make_learner(policy, recipe, lambda: sharpen(load_policy(qwen25_folder), 2.0))
        assert isinstance(learner, Reinforced)
        return learner

    return make


def collect(learner: Reinforced) -> list[GroupWork]:
    return learner.collect(learner.prepare(samples(learner.recipe)), SEEDS, 0.0).work


@pytest.mark.parametrize("tables", [{}, {"model": {"freeze_vision": True}}], ids=["vision trains", "frozen"])
def test_a_rollout_in_parts_draws_the_same_replies(
    reinforced: Callable[..., Reinforced], tables: dict[str, object]
) -> None:
    rows, calls = [], []
    for batch_size in (0, 2, 1):
        learner = reinforced(rollout={"group_size": 3, "max_new_tokens": 12, "batch_size": batch_size}, **tables)
        engine, sizes = learner.engine, []

        def counted(policy: Policy, prompts: list[Prompt], *how: Any) -> list[list[Completion]]:
            sizes.append(len(prompts))  # noqa: B023
            return engine(policy, prompts, *how)  # noqa: B023

        learner.engine = counted
        rows.append(learner.collect(learner.prepare(samples(learner.recipe)), SEEDS, 0.0).rollouts)
        calls.append(sizes)
    assert calls == [[3], [2, 1], [1, 1, 1]]
    assert rows[0] == rows[1] == rows[2]


def test_the_gap_between_what_was_sampled_and_what_is_scored(reinforced: Callable[..., Reinforced]) -> None:
    learner = reinforced(optimizer={"tokens_per_forward": 90}, grpo={"updates_per_rollout": 2})
    work = collect(learner)
    for part in work:
        learner.loss(part)
    gaps = learner.post_update_metrics(work)
    assert 0 < gaps["sampling/gap"] < gaps["sampling/largest_gap"] < 1e-4
    work[0].sampled[1] -= 5  # an engine that computes otherwise
    with torch.no_grad():
        learner.policy.model.lm_head.weight.mul_(1.5)  # the second update is compared with the rollout's policy too
    for part in work:
        learner.loss(part)
    gaps = learner.post_update_metrics(work)
    assert gaps["sampling/largest_gap"] == pytest.approx(5, abs=1e-3)
    assert gaps["sampling/gap"] == pytest.approx(5 / sum(len(part.sampled) for part in work), rel=1e-2)


def reference_logprobs(work: list[GroupWork]) -> Tensor:
    return torch.cat([part.reference for part in work if part.reference is not None])


def test_adapters_off_are_the_reference(reinforced: Callable[..., Reinforced]) -> None:
    whole, adapted = reinforced(), reinforced(lora={"rank": 2})
    assert adapted.reference is adapted.policy  # no second model in memory
    before = collect(adapted)
    assert torch.equal(reference_logprobs(before), reference_logprobs(collect(whole)))
    assert sum(float(adapted.loss(part)[1]["kl"]) for part in before) == 0.0
    with torch.no_grad():
        for name, parameter in adapted.policy.model.named_parameters():
            if "lora_B" in name:
                parameter += 0.05
    for part in before:
        loss, sums = adapted.loss(part)  # on what was sampled before
        assert sums["kl"] > 0
        loss.backward()
        with torch.no_grad():
            base = (whole.reference or whole.policy).token_logprobs(part.rows)
        torch.testing.assert_close(part.reference, base, atol=1e-6, rtol=0)
    trained = [name for name, p in adapted.policy.model.named_parameters() if p.grad is not None]
    assert trained
    assert all("lora" in name for name in trained)


def test_the_reference_is_known_again(reinforced: Callable[..., Reinforced]) -> None:
    whole, adapted = reinforced(), reinforced(lora={"rank": 2})
    assert whole.state_dict()["reference"] == adapted.state_dict()["reference"] != 0
    assert reinforced(grpo={"beta": 0}).state_dict()["reference"] == 0


@pytest.mark.parametrize(
    ("tables", "calls_of_policy", "calls_of_reference"),
    [
        ({"model": {"freeze_vision": True}}, 1, 0),  # of the whole step, however often it is split
        ({"lora": {"rank": 2}}, 1, 0),
        ({}, 1 + 3, 3),  # rollout, then each of three parts in the policy and in the reference
    ],
    ids=["frozen", "adapters", "vision trains"],
)
def test_the_vision_tower_runs_once_where_it_is_frozen(
    reinforced: Callable[..., Reinforced], tables: dict[str, object], calls_of_policy: int, calls_of_reference: int
) -> None:
    learner = reinforced(**tables, optimizer={"tokens_per_forward": 90})
    counts = [count_calls(learner.policy)]
    if learner.reference is not learner.policy:
        assert learner.reference is not None
        counts.append(count_calls(learner.reference))
    work = collect(learner)
    assert len(work) == 3
    for part in work:
        learner.loss(part)[0].backward()
    assert [len(count) for count in counts] == [calls_of_policy, calls_of_reference][: len(counts)]


def count_calls(policy: Policy) -> list[int]:
    """A list that grows by one with each call of the vision tower."""
    calls: list[int] = []
    policy.model.model.visual.register_forward_hook(lambda *_: calls.append(1))
    return calls


class LargestLogits(TorchDispatchMode):
    """Rows of the largest tensor, forward or backward, whose last axis is the vocabulary."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.vocabulary, self.width, self.rows, self.whole = vocabulary, width, 0, 0

    def __torch_dispatch__(self, func: object, types: object, args: object = (), kwargs: object = None) -> object:
        output = func(*args, **(kwargs or {}))  # type: ignore[operator, misc]
        if isinstance(output, Tensor) and output.ndim > 1 and output.shape[-1] == self.vocabulary:
            count = output.numel() // self.vocabulary
            if count != self.width:  # else it is the output layer's weight, transposed
                self.rows = max(self.rows, count)
        return output


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_logits_are_never_held_over_a_whole_row(
    qwen25_folder: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    recipe = make_recipe(method=method, rollout={"group_size": 4, "max_new_tokens": 40})
    policy = load_policy(qwen25_folder)
    vocabulary, width = policy.model.lm_head.weight.shape
    monkeypatch.setattr("visionr1.models.paths.scoring.LOGITS_PER_CHUNK", 7 * vocabulary)
    learner = make_learner(policy, recipe, lambda: load_policy(qwen25_folder))
    work = learner.collect(learner.prepare(samples(recipe)), SEEDS, 0.0).work
    assert max(len(part.rows.targets) for part in work) > 4 * 7
    largest = LargestLogits(vocabulary, width)
    with largest:
        for part in work:
            learner.loss(part)[0].backward()
    assert largest.rows == 7


def test_supervised_loss_is_that_of_the_completions_alone(qwen25_folder: Path) -> None:
    policy = sharpen(load_policy(qwen25_folder), 2.0)
    recipe = make_recipe(method="sft")
    learner = make_learner(policy, recipe, lambda: pytest.fail("SFT has no reference"))
    assert isinstance(learner, Supervised)
    chosen = samples(recipe)
    work = learner.collect(learner.prepare(chosen), SEEDS, 0.0).work
    loss = sum(learner.loss(part)[0] for part in work)

    logprobs = []
    policy.suppressed_ids = policy.suppressed_ids[:0]  # which the truth may hold
    for sample in chosen:
        prompt = policy.encode(sample.load_image(), sample.query)
        truth = policy.dialect.render(sample.truth, size_wh=sample.size_wh, input_size_wh=prompt.input_size_wh)
        logprobs.append(plain_logprobs(policy, prompt, policy.encode_reply(truth)))
    torch.testing.assert_close(loss, -torch.cat(logprobs).mean(), atol=1e-5, rtol=0)


QUESTIONS = {"source": "scenes", "scenes": {"width": 120, "height": 80, "queries": {"question": 1}}}


def test_answers_are_learnt_and_their_few_tokens_count_as_the_recipe_says(qwen25_folder: Path) -> None:
    policy = sharpen(load_policy(qwen25_folder), 2.0)
    recipe = make_recipe(method="sft", sft={"answer_weight": 4.0})
    learner = make_learner(policy, recipe, lambda: pytest.fail("SFT has no reference"))
    (question,) = samples(make_recipe(data=[QUESTIONS], train={"batch_size": 1}))
    chosen = [question, samples(recipe)[0]]
    assert question.answer and chosen[1].truth
    work = learner.collect(learner.prepare(chosen), SEEDS[:2], 0.0).work
    loss = sum(learner.loss(part)[0] for part in work)

    policy.suppressed_ids = policy.suppressed_ids[:0]  # which the truth may hold
    prompts = [policy.encode(sample.load_image(), sample.query) for sample in chosen]
    boxes = policy.dialect.render(chosen[1].truth, size_wh=chosen[1].size_wh, input_size_wh=prompts[1].input_size_wh)
    answer = plain_logprobs(policy, prompts[0], policy.encode_reply(question.answer))
    reply = plain_logprobs(policy, prompts[1], policy.encode_reply(boxes))
    expected = -(4 * answer.sum() + reply.sum()) / (4 * len(answer) + len(reply))
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)


def test_a_question_has_no_boxes_that_a_reward_could_compare(reinforced: Callable[..., Reinforced]) -> None:
    learner = reinforced(data=[QUESTIONS])
    with pytest.raises(
        DataError, match=r'sample scene-0:.* expected a query for boxes, found the question .*method = "sft"'
    ):
        learner.prepare(samples(learner.recipe))


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_worker_that_is_no_fork_prepares_without_the_model(qwen25_folder: Path, method: str) -> None:
    recipe = make_recipe(method=method)
    learner = make_learner(load_policy(qwen25_folder), recipe, lambda: load_policy(qwen25_folder))
    learner.prepare(samples(recipe))  # fills what is kept of prompts
    sent = pickle.dumps(learner)
    weights = sum(weight.nbytes for weight in learner.policy.model.parameters())
    assert len(sent) < len(pickle.dumps(learner.policy.tokenizer)) + weights / 10
    there, here = pickle.loads(sent).prepare(samples(recipe)), learner.prepare(samples(recipe))
    if method == "sft":
        there, here = there.parts, here.parts
    for one, other in zip(there, here, strict=True):
        prompt, same = (one, other) if method == "sft" else (one.prompt, other.prompt)
        assert prompt.input_ids.tolist() == same.input_ids.tolist()
        assert torch.equal(prompt.inputs["pixel_values"], same.inputs["pixel_values"])
        assert getattr(prompt, "image", None) is None


def test_only_the_built_in_engine_gets_no_images(reinforced: Callable[..., Reinforced]) -> None:
    learner = reinforced()
    chosen = samples(learner.recipe)
    assert [question.prompt.image for question in learner.prepare(chosen)] == [None] * 3
    learner.recipe = make_recipe(rollout={"engine": "vllm"})
    assert [question.prompt.image for question in learner.prepare(chosen)] == [sample.image for sample in chosen]


def test_a_run_that_earns_nothing_says_so_once(
    reinforced: Callable[..., Reinforced], caplog: pytest.LogCaptureFixture
) -> None:
    """The untrained model writes no <answer> tags, without which the default weights of vlm_r1 give 0."""
    learner = reinforced(reward={"preset": "vlm_r1"}, rollout={"group_size": 2, "max_new_tokens": 2})
    for _ in range(ZERO_STEPS - 1):
        collect(learner)
    assert not caplog.messages

    for _ in range(2):
        collect(learner)
    (message,) = caplog.messages
    assert "earned a reward of 0" in message
    assert "no <answer>..</answer>" in message


def test_one_reward_keeps_a_run_quiet(caplog: pytest.LogCaptureFixture) -> None:
    earns_nothing = Outcome({"total": 0.0}, {}, {}, None)
    earns = Outcome({"total": 0.5}, {}, {}, None)
    scores = [[Score(0.0, {}, notes=("fault",))]]
    watch = ZeroRewardWatch()
    watch.observe([earns_nothing, earns], scores)
    for _ in range(ZERO_STEPS):
        watch.observe([earns_nothing], scores)
    assert not caplog.messages


def test_a_run_whose_boxes_are_in_another_space_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    truth = GroundTruth(Boxes.of([[64, 48, 128, 96]], ["cat"]), ("cat",), (640, 480), (1288, 952))
    text = get_dialect("qwen3").render(truth.boxes, size_wh=truth.size_wh, input_size_wh=truth.input_size_wh)
    question = Question("1", 1, prompt=Any, truth=truth, reward="")  # type: ignore[arg-type]
    wrong = Completion(torch.zeros(1, dtype=torch.long), text, torch.zeros(1), truncated=False)

    # The first steps alone are looked at, and one warning is enough.
    watch = OverlapWatch(get_dialect("qwen25"))
    for _ in range(OVERLAP_STEPS + 2):
        watch.observe([question], [[wrong, wrong]])
    (record,) = caplog.records
    assert "in all 6 completions of the first 3 steps no box overlaps a true one" in record.message
    assert "replies look like dialect qwen3 (0-1000)" in record.message

    # A box that meets a true one ends it.
    caplog.clear()
    watch = OverlapWatch(get_dialect("qwen3"))
    for _ in range(OVERLAP_STEPS):
        watch.observe([question], [[wrong]])
    assert not caplog.records
