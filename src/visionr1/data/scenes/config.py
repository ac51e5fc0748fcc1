"""The settings of synthetic scenes."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from visionr1.samples import Task
from visionr1.settings import Section, refuse


class SceneConfig(Section):
    """How scenes look, and which of their categories are asked for."""

    width: Annotated[int, Field(ge=32)] = 320
    height: Annotated[int, Field(ge=32)] = 240
    min_objects: Annotated[int, Field(ge=0)] = 1
    """Objects to place, drawn evenly from min_objects to max_objects; crowded scenes may hold fewer."""
    max_objects: int = 12
    min_size: Annotated[float, Field(gt=0, le=1)] = 0.06
    """Smallest and largest object, as a share of the shorter side."""
    max_size: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_overlap: float = 0.25
    """Largest share of the smaller of two boxes that may lie in the other."""
    cells: float = 0.3
    """Share of scenes of the `cells` family."""
    clutter: float = 0.5
    """Share of `shapes` scenes with lines and specks over the background."""
    subset: float = 0.3
    """Share of scenes that are asked for some of the categories they hold, or for none of them."""
    queries: Mapping[Task, Annotated[float, Field(ge=0)]] = {"detection": 1.0}
    """How often each kind of query is asked, relative to the others; kinds that are left out are never asked."""
    held_out: Literal["none", "shape", "texture", "pair"] = "none"
    """Draw every object with the shape, every surface with the texture, or every object with a pair of colour and
    shape, that training never shows."""

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        if self.max_objects < self.min_objects:
            raise refuse("max_objects", f"min_objects = {self.min_objects} or more", self.max_objects)
        if self.max_size < self.min_size:
            raise refuse("max_size", f"min_size = {self.min_size} or more", self.max_size)
        if not any(self.queries.values()):
            raise refuse("queries", "a share above 0 of at least one kind", dict(self.queries))
        return self
