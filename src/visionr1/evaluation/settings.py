"""The section of a recipe that says how the model is measured during training."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from visionr1.data import resolve_reader
from visionr1.evaluation.protocols import read_protocol
from visionr1.settings import Expected, ListOrOne, Section


class EvalSection(Section):
    """Evaluation on held-out images during training, which keeps the best model."""

    every: Annotated[int, Field(ge=0), Expected("0 (never) or more")] = 0
    """Steps between evaluations during training; 0 is never."""
    source: str = "bccd"
    """An embedded set ("bccd"), a COCO JSON file or a folder that holds one."""
    reader: str = ""
    """Its format, where that cannot be told from the files, as in data.reader."""
    images: str = ""
    """The folder of its images, as in data.images."""
    split: str = "valid"
    """The part of an embedded set or of a folder."""
    limit: Annotated[int, Field(ge=0), Expected("0 (all) or more")] = 0
    """Use so many images, evenly spaced over the split; 0 is all."""
    on_bad: Literal["raise", "skip"] = "raise"
    """"raise" stops at a bad row, and at an image that cannot be read or fed to the model; "skip" leaves the row out,
    and counts the image as one without a reply."""
    protocol: ListOrOne[str] = ()
    """As for `visionr1 eval --protocol`: a name, then single fields."""
    metric: Literal["AP", "AP50", "AP75", "precision", "recall", "F1", "AP strict"] = "AP"
    """Which figure is best when it is highest: the model that has it is kept in best/."""
    patience: Annotated[int, Field(ge=0), Expected("0 (never) or more")] = 0
    """End training after so many evaluations in a row without a better one; 0 is never."""
    max_new_tokens: Annotated[int, Field(ge=0), Expected("0 (the protocol's) or more")] = 0
    """Tokens of a reply at most; 0 is the protocol's, or 1024."""
    batch_size: Annotated[int, Field(ge=0), Expected("0 (as many as suit the engine) or more")] = 0
    """Images at once, on each process; 0 is 16, or 256 for vLLM, which takes new ones as others end."""

    @field_validator("reader")
    @classmethod
    def _check_reader(cls, reader: str) -> str:
        resolve_reader(reader)  # raises RecipeError
        return reader

    @field_validator("protocol")
    @classmethod
    def _check_protocol(cls, protocol: tuple[str, ...]) -> tuple[str, ...]:
        read_protocol(protocol)  # raises RecipeError
        return protocol
