"""The section of a recipe that says what a completion is rewarded for."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from visionr1.rewards.criteria import Denominator, Matching
from visionr1.rewards.score import PAPER_WEIGHTS, RewardOptions
from visionr1.settings import Section, refuse


class RewardSection(Section):
    """The reward, and when its thresholds rise."""

    weights: Mapping[str, float] = Field(default_factory=lambda: dict(PAPER_WEIGHTS))
    """Which criteria count, and how much: format, recall, precision, count."""
    matching: Matching = "iou"
    """How predicted boxes find their true ones (Eq. 3)."""
    precision_over: Denominator = "predicted"
    """M of Eq. 6."""
    wrong_label_voids: bool = False
    """A pair of different labels is not valid."""
    differentiation: bool = True
    """f of Eq. 8."""
    stage_step: Annotated[float, Field(ge=0, le=1)] = 1.0
    """STEP: the share of training after which the thresholds rise; 1 is never."""
    adaptive: bool = False
    """They rise instead once mean recall and precision, before f and over 20 steps, have both reached .75."""

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, weights: Mapping[str, float]) -> Mapping[str, float]:
        RewardOptions(weights=weights)  # raises RecipeError
        return weights

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        if self.adaptive and self.stage_step != 1:
            raise refuse("stage_step", "1 where reward.adaptive is true", self.stage_step)
        return self

    def options(self) -> RewardOptions:
        """Return the options of the reward itself."""
        return RewardOptions(
            weights=self.weights,
            matching=self.matching,
            precision_over=self.precision_over,
            wrong_label_voids=self.wrong_label_voids,
            differentiation=self.differentiation,
        )
