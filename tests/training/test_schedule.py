from typing import Literal

import pytest

from visionr1.training.recipe import Phase
from visionr1.training.schedule import Position, learning_rate


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.775, 0.55, 0.325]),
        ("cosine", [0.5, 1.0, 1.0, 0.55 + 0.45 * 2**-0.5, 0.55, 0.55 - 0.45 * 2**-0.5]),
    ],
)
def test_learning_rates(schedule: Literal["constant", "linear", "cosine"], rates: list[float]) -> None:
    phase = Phase(learning_rate=1.0, final_learning_rate=0.1, warmup_steps=2, schedule=schedule)
    assert [learning_rate(phase, step, 6, step / 6) for step in range(6)] == pytest.approx(rates)


def test_time_brings_the_rate_down_where_it_is_further_than_the_steps() -> None:
    phase = Phase(learning_rate=1.0, minutes=1, warmup_steps=2)
    assert learning_rate(phase, 2, 10**9, 0.25) == pytest.approx(0.75)  # of time alone
    assert learning_rate(phase, 2, 4, 0.75) == pytest.approx(0.5)  # the last half is half over
    assert learning_rate(phase, 2, 4, 1.0) == 0.0


def test_a_phase_begins_at_its_first_step() -> None:
    position = Position(step=5, phase=0, phase_step=5, phase_seconds=2.0)
    position.enter(0)  # that of a resumed run
    assert position == Position(step=5, phase=0, phase_step=5, phase_seconds=2.0)
    position.enter(1)
    position.advance(0.5)
    assert position == Position(step=6, phase=1, phase_step=1, phase_seconds=0.5)
