"""The paper's reward: the worked example, hard cases, and the properties any detection reward must have."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionr1.dialects import get_dialect
from visionr1.rewards import Reward, Score, Stage
from visionr1.rewards.criteria import MatchingRule, differentiate
from visionr1.rewards.stages import ADVANCED, BEGINNER
from visionr1.samples import Boxes, GroundTruth, Reply

SIZE = (100, 100)
CAT = '{"bbox_2d": [10, 10, 30, 30], "label": "cat"}'
FAR = '{"bbox_2d": [60, 60, 80, 80], "label": "cat"}'


def truth(*boxes: list[float], labels: tuple[str, ...] | None = None) -> GroundTruth:
    return GroundTruth(Boxes.of(list(boxes), labels or ("cat",) * len(boxes)), ("cat", "dog"), SIZE, SIZE)


ONE_CAT = truth([10, 10, 30, 30])


def parts(score: Score) -> tuple[float, float, float]:
    return score.parts["format"], score.parts["recall"], score.parts["precision"]


def boxes_of_ious(ious: list[float]) -> tuple[Boxes, Boxes]:
    """Predicted boxes whose IoUs with true boxes of their own are `ious`; none overlaps another's."""
    predicted = [[0, 20 * row, 10 * iou, 20 * row + 10] for row, iou in enumerate(ious)]
    true = [[0, 20 * row, 10, 20 * row + 10] for row in range(len(ious))]
    return Boxes.of(predicted, ["cat"] * len(ious)), Boxes.of(true, ["cat"] * len(ious))


def test_worked_example() -> None:
    """IoUs .6 .7 .8 .3 .9 .55 .2 .85 .4 .75 against 8 truths, xi0 .5, f off."""
    ious = [0.6, 0.7, 0.8, 0.3, 0.9, 0.55, 0.2, 0.85, 0.4, 0.75]
    predicted, true = boxes_of_ious(ious)
    kept = [0, 1, 2, 4, 5, 7, 9, 3]  # 8 true boxes: those of the seven valid ones and one more
    gt = GroundTruth(Boxes.of(true.xyxy[kept], ["cat"] * 8), ("cat",), (200, 200), (200, 200))
    for over, expected in (("predicted", 5.15 / 10), ("valid", 5.15 / 7)):
        score = Reward(differentiation=False, precision_over=over).score_reply(Reply(predicted), gt)  # type: ignore[arg-type]
        assert score.parts["recall"] == pytest.approx(7 / 8)
        assert score.parts["precision"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("x", "beginner", "advanced"),
    [
        (0.0, 0.0, 0.0),
        (0.499, 0.0, 0.0),  # below xi1
        (0.5, 0.5, 0.0),  # xi1 itself counts
        (0.6, 0.6, 0.0),
        (0.75, 1.0, 0.75),  # xi2 itself is full
        (0.899, 1.0, 0.899),
        (0.9, 1.0, 1.0),
    ],
)
def test_differentiation_is_equation_8(x: float, beginner: float, advanced: float) -> None:
    assert differentiate(x, BEGINNER) == beginner
    assert differentiate(x, ADVANCED) == advanced


@pytest.mark.parametrize(
    ("text", "gt", "expected"),
    [
        (f"[{CAT}]", ONE_CAT, (1, 1, 1)),  # right
        (
            f"[{CAT.replace('cat', 'dog')}]",
            ONE_CAT,
            (1, 1, 1),
        ),  # a wrong label changes nothing: box-only
        (f"[{CAT}, {FAR}]", ONE_CAT, (1, 1, 0.5)),  # a false box costs precision
        (f"[{CAT}, {CAT}]", ONE_CAT, (1, 1, 0.5)),  # so does a duplicate
        (
            "[" + ", ".join([CAT] + [FAR] * 9) + "]",
            ONE_CAT,
            (1, 1, 0.1),
        ),  # nine false boxes beside a right one
        (f"[{FAR}]", ONE_CAT, (1, 0, 0)),  # missed
        ("[]", ONE_CAT, (1, 0, 0)),  # objects and no box
        ("[]", truth(), (1, 1, 1)),  # nothing there, nothing said
        ("No cat.", truth(), (0, 0, 0)),  # nothing there, but not said in the dialect
        (f"[{FAR}]", truth(), (1, 0, 0)),  # a box where nothing is
        (f"[{CAT}", ONE_CAT, (0, 1, 1)),  # boxes count where the format is wrong
        (
            f'[{CAT}, {{"bbox_2d": [1, 2], "label": "cat"}}]',
            ONE_CAT,
            (0, 1, 0.5),
        ),  # a malformed item is a false box
        (f"[{CAT}, {FAR[:-3]}", ONE_CAT, (0, 1, 1)),  # a cut-off one does not count
        (
            "[" + CAT.replace("10, 10, 30", "-5, 10, 30") + "]",
            truth([0, 10, 30, 30]),
            (0, 1, 1),
        ),  # clipped for IoU
        (f"[{CAT}]", truth([10, 10, 30, 30], [60, 60, 80, 80]), (1, 0.5, 1)),  # half of them found
        (
            f"[{CAT}]",
            truth([10, 10, 30, 30], [60, 60, 80, 80], [0, 90, 5, 95]),
            (1, 0, 1),
        ),  # a third: f is 0
    ],
)
def test_hard_cases(text: str, gt: GroundTruth, expected: tuple[float, float, float]) -> None:
    assert parts(Reward().score(text, gt)) == pytest.approx(expected)


def test_precision_denominators() -> None:
    gt = truth([10, 10, 30, 30], [60, 60, 80, 80])
    loose = '{"bbox_2d": [60, 60, 80, 72], "label": "dog"}'  # IoU .6, wrong label
    text = f"[{CAT}, {loose}, {FAR.replace('60, 60, 80, 80', '0, 90, 5, 95')}]"
    values = {
        over: Reward(differentiation=False, wrong_label_voids=True, precision_over=over)
        .score(text, gt)
        .parts["precision"]  # type: ignore[arg-type]
        for over in ("predicted", "matched", "valid")
    }
    assert values == pytest.approx({"predicted": 1 / 3, "matched": 1 / 2, "valid": 1.0})


def test_label_matching_prefers_equal_labels_and_voiding_needs_them() -> None:
    gt = truth([10, 10, 30, 30], [10, 10, 30, 29], labels=("cat", "dog"))
    text = '[{"bbox_2d": [10, 10, 30, 30], "label": "dog"}, {"bbox_2d": [10, 10, 30, 29], "label": "cat"}]'
    by_box = Reward().score(text, gt)
    by_label = Reward(matching="iou+label").score(text, gt)
    assert [pair.label_correct for pair in by_box.pairs] == [False, False]
    assert [pair.label_correct for pair in by_label.pairs] == [True, True]
    assert Reward(wrong_label_voids=True).score(text, gt).parts["recall"] == 0
    assert by_box.label_accuracy == 0 and by_label.label_accuracy == 1


def test_count_is_the_ablation_of_table_4() -> None:
    reward = Reward(weights={"format": 1.0, "count": 2.0})
    assert reward.score(f"[{FAR}]", ONE_CAT).total == reward.maximum == 3.0
    assert reward.score(f"[{FAR}, {CAT}]", ONE_CAT).total == 1.0


def test_detr_matches_by_loss_not_by_overlap_alone() -> None:
    score = Reward(matching="detr").score(f"[{FAR}]", ONE_CAT)
    assert len(score.pairs) == 1 and not score.pairs[0].valid  # every box is matched, valid or not
    assert Reward().score(f"[{FAR}]", ONE_CAT).pairs == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"recal": 1.0}}, r"unknown criteria \['recal'\]; known: format, recall, precision, count"),
        ({"weights": {}}, "above 0"),
        ({"weights": {"recall": -1.0}}, r"finite and not negative, but found \{'recall': -1.0\}"),
        ({"weights": {"recall": float("nan")}}, "expected a finite number"),
        (
            {"matching": "hungarian"},
            "matching: expected one of iou, iou\\+label, detr, detr\\+label, found 'hungarian'",
        ),
        ({"precision_over": "all"}, "precision_over: expected one of predicted, matched, valid, found 'all'"),
    ],
)
def test_options_that_do_not_exist_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reward(**options)


integer_boxes = st.builds(
    lambda x, y, w, h: [float(x), float(y), float(x + w), float(y + h)],
    *(st.integers(0, 40), st.integers(0, 40), st.integers(1, 40), st.integers(1, 40)),
)
scenes = st.tuples(st.lists(integer_boxes, max_size=6), st.lists(integer_boxes, max_size=6))
stages = st.sampled_from([BEGINNER, ADVANCED, Stage(0.3, 0.4, 0.9)])
matchings: st.SearchStrategy[MatchingRule] = st.sampled_from(["iou", "iou+label", "detr", "detr+label"])


def labelled(boxes: list[list[float]]) -> Boxes:
    return Boxes.of(boxes, [("cat", "dog")[int(box[0]) % 2] for box in boxes])


@given(scenes, stages, matchings, st.randoms())
def test_order_never_matters(scene: tuple, stage: Stage, matching: MatchingRule, random: object) -> None:
    predicted, true = scene
    reward = Reward(matching=matching, wrong_label_voids=True)
    before = reward.score_reply(
        Reply(labelled(predicted)), GroundTruth(labelled(true), ("cat",), SIZE, SIZE), stage=stage
    )
    random.shuffle(predicted)  # type: ignore[attr-defined]
    random.shuffle(true)  # type: ignore[attr-defined]
    after = reward.score_reply(
        Reply(labelled(predicted)), GroundTruth(labelled(true), ("cat",), SIZE, SIZE), stage=stage
    )
    assert after.parts == pytest.approx(before.parts, abs=1e-12)


@given(scenes, stages, integer_boxes)
def test_a_box_that_reaches_no_true_box_never_raises_the_score(scene: tuple, stage: Stage, extra: list[float]) -> None:
    predicted, true = map(labelled, scene)
    gt = GroundTruth(true, ("cat",), SIZE, SIZE)
    alone = Reward().score_reply(Reply(labelled([extra])), gt, stage=stage)
    if alone.pairs:
        return
    both = Boxes.of(np.concatenate([predicted.xyxy, [extra]]), (*predicted.labels, "cat"))
    before, after = (Reward().score_reply(Reply(boxes), gt, stage=stage) for boxes in (predicted, both))
    assert after.total <= before.total
    assert after.pairs == before.pairs


@given(st.lists(integer_boxes, max_size=8), stages, matchings)
def test_a_rendered_truth_scores_the_maximum(true: list[list[float]], stage: Stage, matching: MatchingRule) -> None:
    boxes = labelled(true)
    gt = GroundTruth(boxes, ("cat", "dog"), SIZE, SIZE)
    text = get_dialect("qwen25").render(boxes, size_wh=SIZE, input_size_wh=SIZE)
    reward = Reward(matching=matching)
    assert reward.score(text, gt, stage=stage).total == reward.maximum


@given(scenes, stages, matchings, st.sampled_from(["predicted", "matched", "valid"]))
def test_no_score_leaves_its_range(scene: tuple, stage: Stage, matching: MatchingRule, over: str) -> None:
    predicted, true = map(labelled, scene)
    reward = Reward(matching=matching, precision_over=over)  # type: ignore[arg-type]
    score = reward.score_reply(Reply(predicted, num_malformed=1), GroundTruth(true, ("cat",), SIZE, SIZE), stage=stage)
    assert all(0 <= part <= 1 for part in score.parts.values())
    assert 0 <= score.total <= reward.maximum
