"""Signs of reward hacking: each is raised by what it names, and not by a sound run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from visionr1.dialects import get_dialect
from visionr1.rewards import Reward
from visionr1.rewards.hacking import RULES, count, measure, num_duplicates, signs
from visionr1.samples import Boxes, GroundTruth

SIZE = (640, 480)
TRUTH = GroundTruth(Boxes.of([[100, 100, 200, 200], [300, 300, 400, 400]], ["cat", "cat"]), ("cat",), SIZE, SIZE)


def completion(*boxes: list[float]) -> str:
    return get_dialect("qwen25").render(Boxes.of(list(boxes), ["cat"] * len(boxes)), size_wh=SIZE, input_size_wh=SIZE)


def measured(*texts: str) -> dict[str, float | None]:
    return measure([count(Reward().score(text, TRUTH), TRUTH) for text in texts])


RIGHT = completion([100, 100, 200, 200], [300, 300, 400, 400])


def test_a_right_reply_shows_nothing() -> None:
    assert measured(RIGHT) == {
        "watch/duplicates": 0.0,
        "watch/whole_image": 0.0,
        "watch/format_errors": 0.0,
        "watch/valid_iou": 1.0,
    }


@pytest.mark.parametrize(
    ("boxes", "number"),
    [
        ([], 0),
        ([[0, 0, 10, 10]], 0),
        ([[0, 0, 10, 10], [0, 0, 10, 10]], 1),  # the copy, not the original
        ([[0, 0, 10, 10]] * 4, 3),
        ([[0, 0, 100, 100], [0, 0, 100, 91]], 1),  # IoU .91
        ([[0, 0, 100, 100], [0, 0, 100, 90]], 0),  # IoU .9 exactly
        ([[0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 10]], 1),
    ],
)
def test_duplicates_are_boxes_that_repeat_an_earlier_one(boxes: list[list[float]], number: int) -> None:
    assert num_duplicates(np.array(boxes, dtype=np.float64).reshape(-1, 4)) == number


def test_shares_are_of_all_boxes_of_the_step() -> None:
    copies = completion([100, 100, 200, 200], [100, 100, 200, 200])
    assert measured(copies, RIGHT)["watch/duplicates"] == 1 / 4
    assert measured(completion([0, 0, 640, 480]), RIGHT)["watch/whole_image"] == 1 / 3
    assert measured("nothing here", RIGHT)["watch/format_errors"] == 1 / 2


def test_a_box_around_the_whole_image_is_right_where_the_object_fills_it() -> None:
    truth = GroundTruth(Boxes.of([[0, 0, 640, 470]], ["cat"]), ("cat",), SIZE, SIZE)
    score = Reward().score(completion([0, 0, 640, 480]), truth)
    assert measure([count(score, truth)])["watch/whole_image"] == 0.0


def test_without_a_box_there_is_no_iou() -> None:
    assert measured("nothing here")["watch/valid_iou"] is None
    assert measured("nothing here")["watch/duplicates"] == 0.0


def run(length: int = 100, **changed: Any) -> list[dict[str, Any]]:
    """Rows of a sound run; `changed` are functions of the share of it that is done."""
    sound = {
        "boxes_per_completion": lambda t: 9 + t,
        "true_boxes": lambda t: 10,
        "groups_without_spread": lambda t: 0.1 + 0.2 * t,
        "reward/recall": lambda t: 0.4 + 0.3 * t,
        "kl": lambda t: 0.02 * t,
        "watch/duplicates": lambda t: 0.01,
        "watch/whole_image": lambda t: 0.0,
        "watch/format_errors": lambda t: 0.08 * (1 - t),
        "watch/valid_iou": lambda t: 0.7 + 0.05 * t,
    }
    columns = sound | {name.replace("__", "/"): function for name, function in changed.items()}
    return [{"step": i + 1} | {name: f(i / length) for name, f in columns.items()} for i in range(length)]


def test_a_sound_run_raises_no_sign() -> None:
    found = signs(run())
    assert [sign.name for sign in found] == [rule.name for rule in RULES]
    assert [sign.name for sign in found if sign.raised or sign.steps] == []


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("boxes_beyond_objects", {"boxes_per_completion": lambda t: 8 + 20 * t}),
        ("duplicates", {"watch__duplicates": lambda t: 0.2 * t}),
        ("whole_image", {"watch__whole_image": lambda t: 0.2 * t}),
        ("format_errors", {"watch__format_errors": lambda t: 0.3}),
        ("no_spread", {"groups_without_spread": lambda t: t}),
        ("recall_for_iou", {"watch__valid_iou": lambda t: 0.75 - 0.1 * t}),
        ("kl_jump", {"kl": lambda t: 0.5 if t == 0.9 else 0.02}),
    ],
)
def test_each_sign_is_raised_by_what_it_names_and_alone(name: str, changed: dict[str, Any]) -> None:
    raised = [sign for sign in signs(run(**changed)) if sign.raised]
    assert [sign.name for sign in raised] == [name]
    assert raised[0].value > raised[0].threshold
    assert raised[0].steps[-1] == 100


def test_a_sign_that_went_away_is_remembered_but_not_raised() -> None:
    found = {sign.name: sign for sign in signs(run(watch__format_errors=lambda t: 0.5 if t < 0.5 else 0.0))}
    sign = found["format_errors"]
    assert not sign.raised
    assert (sign.worst, sign.steps[0]) == (0.5, 20)
    assert "first at step 20" in sign.line()


def test_falling_iou_is_no_sign_where_recall_falls_too() -> None:
    rows = run(watch__valid_iou=lambda t: 0.75 - 0.1 * t, **{"reward/recall": lambda t: 0.5 - 0.1 * t})
    assert not any(sign.raised for sign in signs(rows))


def test_rows_without_rollouts_tell_nothing() -> None:
    assert signs([{"step": 1, "loss": 2.0}]) == ()
    assert signs([]) == ()


def test_metrics_that_are_missing_leave_their_sign_out() -> None:
    rows = [{name: value for name, value in row.items() if name not in ("kl", "watch/valid_iou")} for row in run()]
    assert {sign.name for sign in signs(rows)} == {rule.name for rule in RULES} - {"kl_jump", "recall_for_iou"}


def test_a_run_shorter_than_the_window_is_read_as_a_whole() -> None:
    found = {sign.name: sign for sign in signs(run(5, watch__duplicates=lambda t: 0.5))}
    assert found["duplicates"].steps == (5,)
