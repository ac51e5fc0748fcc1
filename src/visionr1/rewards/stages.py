"""Progressive rule refinement (Vision-R1, section 3.3): thresholds that tighten as training goes on."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Stage:
    """The thresholds in force: a pair is valid from IoU `xi0`; f maps below `xi1` to 0 and from `xi2` to 1 (Eq. 8)."""

    xi0: float
    xi1: float
    xi2: float

    def __post_init__(self) -> None:
        if not (0 < self.xi0 <= 1 and 0 <= self.xi1 <= self.xi2 <= 1):
            raise ValueError(f"a stage needs 0 < xi0 <= 1 and 0 <= xi1 <= xi2 <= 1, but is {self}")


BEGINNER = Stage(0.5, 0.5, 0.75)
ADVANCED = Stage(0.75, 0.75, 0.9)


class Stages(Protocol):
    """Which stage is in force, and what moves it on."""

    def at(self, progress: float) -> Stage:
        """The stage at `progress`, the share of training done, in [0, 1]."""

    def observe(self, recall: float, precision: float) -> None:
        """Told after each training step: the step's mean recall and precision before f (Eq. 5, 6)."""

    def state_dict(self) -> dict[str, object]:
        """What a checkpoint must keep."""

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from what a checkpoint kept."""


@dataclass(frozen=True, slots=True)
class FixedStages:
    """The paper's switch: the beginner stage while progress < `step`, then the advanced one.

    The paper takes STEP 1/2 for a strong base and 1 (never) for a weak one such as Qwen2.5-VL (section 4.4).
    """

    step: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.step <= 1:
            raise ValueError(f"step is a share of training in [0, 1], but is {self.step}")

    def at(self, progress: float) -> Stage:
        """See `Stages.at`. With `step` 1 the beginner stage never ends."""
        return BEGINNER if progress < self.step or self.step == 1 else ADVANCED

    def observe(self, recall: float, precision: float) -> None:
        """Nothing moves these stages but progress."""

    def state_dict(self) -> dict[str, object]:
        """No state."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """No state."""


WINDOW = 20
"""Steps that `AdaptiveStages` looks back on."""
THRESHOLD = 0.75
"""What both means must reach over them."""


@dataclass(slots=True)
class AdaptiveStages:
    """Moves on by itself once mean recall and mean precision over the last `WINDOW` steps both reach `THRESHOLD`.

    The paper leaves the moment open; both means are taken before f (Eq. 5, 6), at the stage's own xi0.
    """

    advanced: bool = field(init=False, default=False)
    recent: deque[tuple[float, float]] = field(init=False, default_factory=lambda: deque(maxlen=WINDOW))

    def at(self, progress: float) -> Stage:
        """See `Stages.at`."""
        return ADVANCED if self.advanced else BEGINNER

    def observe(self, recall: float, precision: float) -> None:
        """See `Stages.observe`."""
        self.recent.append((recall, precision))
        means = [sum(values) / len(self.recent) for values in zip(*self.recent, strict=True)]
        self.advanced |= len(self.recent) == WINDOW and min(means) >= THRESHOLD

    def state_dict(self) -> dict[str, object]:
        """Whether the switch has happened, and the steps that decide it."""
        return {"advanced": self.advanced, "recent": [list(pair) for pair in self.recent]}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """See `Stages.load_state_dict`."""
        self.advanced = bool(state["advanced"])
        self.recent = deque(((float(r), float(p)) for r, p in state["recent"]), WINDOW)  # type: ignore[attr-defined]
