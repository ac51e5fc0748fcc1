"""How far a run is, and the learning rate there: functions of the recipe and the run's position."""

import math
from dataclasses import dataclass

from visionr1.training.recipe import Phase, Recipe
from visionr1.training.stream import Stream

UNLIMITED = 10**9
"""The number of steps of a phase that only time ends."""


@dataclass(slots=True)
class Position:
    """The place that a run has reached: its state besides weights, optimizer and learner."""

    step: int = 0
    """Steps done, over all phases."""
    phase: int = 0
    phase_step: int = 0
    phase_seconds: float = 0.0

    def check(self, num_phases: int) -> None:
        """Raise ValueError if a run of `num_phases` cannot be there."""
        numbers = (self.step, self.phase, self.phase_step)
        if not all(isinstance(number, int) and number >= 0 for number in numbers) or self.phase_seconds < 0:
            raise ValueError(f"expected a position of whole numbers from 0 on, found {self}")
        if self.phase >= num_phases:
            raise ValueError(f"expected a position in one of {num_phases} phases, found phase {self.phase}")

    def enter(self, phase: int) -> None:
        """Go on to the beginning of `phase`, unless it is the one that the run is in."""
        if phase > self.phase:
            self.phase = phase
            self.phase_step = 0
            self.phase_seconds = 0.0

    def advance(self, seconds: float) -> None:
        """Count one more step, which took `seconds`."""
        self.step += 1
        self.phase_step += 1
        self.phase_seconds += seconds


def num_steps(phase: Phase, stream: Stream) -> int:
    """Return the phase's limit of steps: its own, or from its epochs, or none where only time limits it."""
    if phase.steps:
        return phase.steps
    if phase.minutes:
        return UNLIMITED
    assert stream.num_samples is not None  # Recipe.check_ends has refused an endless phase
    return math.ceil(phase.epochs * stream.num_samples / phase.batch_size)


def phase_progress(phase: Phase, position: Position, steps: int) -> float:
    """Return the share of the phase that is done, in steps or in time, whichever is further."""
    share = position.phase_step / steps
    if phase.minutes:
        share = max(share, position.phase_seconds / (60 * phase.minutes))
    return min(1.0, share)


def overall_progress(recipe: Recipe, position: Position, steps: int) -> float:
    """Return the share of the whole run that is done; phases count alike."""
    done = phase_progress(recipe.phases[position.phase], position, steps)
    return (position.phase + done) / len(recipe.phases)


def learning_rate(phase: Phase, step: int, steps: int, progress: float) -> float:
    """Return the rate for step `step` of a phase of `steps`, of which the share `progress` is done.

    It rises to the peak in the warm-up, then follows the schedule over all that remains. In a phase of minutes the
    share that its warm-up takes is not known, and counts as 0.
    """
    peak = phase.learning_rate
    final = phase.final_learning_rate
    if step < phase.warmup_steps:
        return peak * (step + 1) / phase.warmup_steps

    # The share of the way from peak to end, counted from the end of the warm-up.
    warmup = phase.warmup_steps / steps
    decayed = max(0.0, (progress - warmup) / (1 - warmup))
    remaining = {
        "constant": 1.0,
        "linear": 1.0 - decayed,
        "cosine": (1 + math.cos(math.pi * decayed)) / 2,
    }[phase.schedule]
    return final + (peak - final) * remaining
