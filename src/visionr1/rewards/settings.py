"""The `reward` section of a recipe, and the `reward` of a data source."""

from collections.abc import Generator, Iterator
from typing import Annotated, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from visionr1.dialects import Dialect
from visionr1.rewards import PRESETS
from visionr1.rewards.parts import RewardPart, add_parts
from visionr1.rewards.presets import Preset
from visionr1.rewards.score import Scorer
from visionr1.settings import ListOrOne, Section, Setting, SettingError, refuse


class RewardChoice(Section):
    """Choose a reward: a preset, its options beside it, and criteria that are added."""

    model_config = ConfigDict(extra="allow")

    preset: str = "paper"
    """"paper", "release", "vlm_r1", or a reward of your own: "module:object" or "file.py:object"; its options stand
    beside it."""
    parts: ListOrOne[RewardPart] = ()
    """Criteria to add to the preset, each by its weight."""

    @field_validator("preset")
    @classmethod
    def _check_preset(cls, preset: str) -> str:
        PRESETS.resolve(preset)  # raises RecipeError
        return preset

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        """Check what stands beside the section's own keys as options of the preset, and state those left out."""
        try:
            options = self.find_preset().options(**self.options)
        except SettingError as error:
            # Someone who misspelt a key may have meant one of the preset's options or of the section's own.
            known: tuple[str, ...] = ()
            if error.known:
                known = (*error.known, *type(self).model_fields)
            raise SettingError(error.problem, error.path, known=known) from None

        self.options.clear()
        self.options.update(dict(options))
        return self

    def __iter__(self) -> Generator[tuple[str, object], None, None]:
        """Yield each key with its value, as a recipe is written: the preset, its options, then the other settings."""
        yield "preset", self.preset
        yield from self.options.items()
        for key in type(self).model_fields:
            if key != "preset":
                yield key, getattr(self, key)

    @property
    def options(self) -> dict[str, object]:
        """The options of the preset, by name."""
        assert self.model_extra is not None  # extra="allow"
        return self.model_extra

    @property
    def key(self) -> str:
        """A text that is the same for equal rewards."""
        return self.model_dump_json()

    def find_preset(self) -> Preset:
        """Return the preset; RecipeError if there is none. Imports the module of a user's own."""
        return PRESETS.resolve(self.preset)

    def make(self, dialect: Dialect, *, has_stages: bool = False) -> Scorer:
        """Return the reward for completions in `dialect`; `has_stages` if thresholds rise during training."""
        reward = self.find_preset().make(self.options, dialect, has_stages=has_stages)
        return add_parts(reward, self.parts, dialect)

    def explain(self) -> Iterator[Setting]:
        """Explain the section's own settings, then the options of its preset."""
        yield from super().explain()
        yield from self.find_preset().options.describe()


class RewardSection(RewardChoice):
    """Choose the reward, and when its thresholds rise."""

    stage_step: Annotated[float, Field(ge=0, le=1)] = 1.0
    """STEP: the share of training after which the thresholds rise; 1 is never."""
    adaptive: bool = False
    """They rise instead once mean recall and precision, before f and over 20 steps, have both reached .75."""

    @property
    def has_stages(self) -> bool:
        """True if the thresholds rise during training."""
        return self.adaptive or self.stage_step < 1

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        preset = self.find_preset()
        if self.adaptive and self.stage_step != 1:
            raise refuse("stage_step", "1 where reward.adaptive is true", self.stage_step)
        if self.adaptive and not preset.has_adaptive_stages:
            raise refuse("adaptive", f"false (preset {self.preset} tells no recall and precision before f)", "true")
        if self.has_stages and preset.stage_options is None:
            raise refuse("stage_step", f"1 (preset {self.preset} has no stages)", self.stage_step)
        return self
