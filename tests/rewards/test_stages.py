"""When thresholds tighten, and that a checkpoint remembers."""

import pytest

from visionr1.rewards import AdaptiveStages, FixedStages, Stage
from visionr1.rewards.stages import ADVANCED, BEGINNER, WINDOW


def test_the_papers_thresholds() -> None:
    assert Stage(0.5, 0.5, 0.75) == BEGINNER
    assert Stage(0.75, 0.75, 0.9) == ADVANCED


@pytest.mark.parametrize(
    ("step", "progress", "stage"),
    [
        (0.5, 0.0, BEGINNER),
        (0.5, 0.499, BEGINNER),
        (0.5, 0.5, ADVANCED),  # the switch itself
        (1.0, 1.0, BEGINNER),  # STEP 1 is never
        (0.0, 0.0, ADVANCED),  # from the start
    ],
)
def test_fixed_stages(step: float, progress: float, stage: Stage) -> None:
    assert FixedStages(step).at(progress) == stage


def test_adaptive_stages_need_a_full_window_of_both() -> None:
    stages = AdaptiveStages()
    for _ in range(WINDOW - 1):
        stages.observe(0.9, 0.75)
    assert stages.at(1.0) == BEGINNER  # the window is not full
    stages.observe(0.9, 0.5)
    assert stages.at(1.0) == BEGINNER  # precision lags
    for _ in range(WINDOW - 1):
        stages.observe(0.9, 0.75)
        assert stages.at(1.0) == BEGINNER  # by what it was in one step of the window
    stages.observe(0.9, 0.75)
    assert stages.at(0.0) == ADVANCED
    stages.observe(0.0, 0.0)
    assert stages.at(0.0) == ADVANCED  # never back


def test_adaptive_stages_survive_a_checkpoint() -> None:
    stages, resumed = AdaptiveStages(), AdaptiveStages()
    for _ in range(WINDOW - 1):
        stages.observe(0.9, 0.9)
    resumed.load_state_dict(stages.state_dict())
    resumed.observe(0.8, 0.8)
    assert resumed.at(0.0) == ADVANCED


@pytest.mark.parametrize("bad", [(0.0, 0.5, 0.75), (0.5, 0.8, 0.75), (0.5, 0.5, 1.5)])
def test_a_stage_that_makes_no_sense_is_refused(bad: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="a stage needs"):
        Stage(*bad)
