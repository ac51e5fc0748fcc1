"""The section of a recipe that names a source of samples."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from visionr1.data.readers import resolve_reader
from visionr1.data.scenes import SceneConfig
from visionr1.rewards.settings import RewardChoice
from visionr1.settings import Expected, ListOrOne, Section, refuse


class DataSource(Section):
    """Where samples come from, and how many of them."""

    source: str = "bccd"
    """"scenes", an embedded set ("bccd"), a COCO JSON file or a folder that holds one, a Pascal VOC folder, or
    rows of conversations as VLM-R1's and Qwen's (.jsonl, or a list in .json)."""
    reader: str = ""
    """Its format, where that cannot be told from the files: the name of a reader, or of your own,
    "my_reader.py:READER" (see docs/extending.md)."""
    images: str = ""
    """The folder of its images, where they lie in no usual place near the annotations."""
    split: str = "train"
    """The part of an embedded set or of a folder."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the samples, relative to the other sources: alike unless set; sizes as weights pass over all alike."""
    half: Literal["both", "first", "second"] = "both"
    """Use one half of the images, told apart by their ids: a model that was made on the first has not seen the second
    (see visionr1.data.queries)."""
    one_category: bool = False
    """Ask for one category of an image at a time, for each of them in turn, instead of for all together."""
    limit: Annotated[int, Field(ge=0), Expected("0 (all) or more")] = 0
    """Use the first so many samples; 0 is all."""
    on_bad: Literal["raise", "skip"] = "raise"
    """"raise" stops at a bad row of the annotations, and at an image that cannot be read or fed to the model; "skip"
    goes on without it, and counts it."""
    leave_out: ListOrOne[str] = ()
    """Ids of samples, or of images, not to be used: the next sample of the order takes the place of each.
    `--resume` accepts a change."""
    augment: bool = False
    """Show a random view of each image, cropped, mirrored and recoloured (see visionr1.data.augment)."""
    scenes: Mapping[str, Any] = {}
    """Settings of the scenes, for source = "scenes" (see visionr1.data.scenes.config)."""
    reward: RewardChoice | None = None
    """The reward of this source's samples, such as {preset = "vlm_r1"}, in place of the run's."""

    @field_validator("reader")
    @classmethod
    def _check_reader(cls, reader: str) -> str:
        resolve_reader(reader)  # raises RecipeError
        return reader

    @field_validator("scenes")
    @classmethod
    def _check_scenes(cls, scenes: Mapping[str, Any]) -> Mapping[str, Any]:
        SceneConfig(**scenes)  # raises RecipeError
        return scenes

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.scenes and self.source != "scenes":
            raise refuse("scenes", f'none where source is "{self.source}"', dict(self.scenes))
        if self.images and self.source == "scenes":
            raise refuse("images", 'none where source is "scenes"', self.images)
        if self.half != "both" and self.source == "scenes":
            raise refuse("half", '"both" where source is "scenes"', self.half)
        if self.one_category and self.source == "scenes":
            raise refuse("one_category", 'false where source is "scenes" (scenes.queries)', self.one_category)
        if self.leave_out and self.source == "scenes":
            raise refuse("leave_out", 'none where source is "scenes"', list(self.leave_out))
        if self.on_bad == "skip" and self.source == "scenes":
            raise refuse("on_bad", '"raise" where source is "scenes", of which none is bad', self.on_bad)
        if self.reader and self.source == "scenes":
            raise refuse("reader", 'none where source is "scenes"', self.reader)
        return self
