"""Errors that visionr1 raises when its user's input or machine is at fault.

Bad arguments and bad files raise one of these; model text never raises. Each also is a standard
exception, so that a caller who knows nothing of visionr1 can catch it. A message names the file,
row and field, what was expected, what was found and what to do. `cli.main` is the one place that
catches them.
"""

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager


class VisionR1Error(Exception):
    """Base of every error that visionr1 raises on purpose."""


class DataError(VisionR1Error, ValueError):
    """An image, an annotation file, a box or a prediction is missing or wrong."""


class ImageRefused(DataError):
    """One image cannot be fed to the model: its processor refuses it, or its prompt is beyond the model's context.

    The message names size and reason. Who knows the sample puts its name before it (`naming`), and may leave it out.
    """


class RecipeError(VisionR1Error, ValueError):
    """A recipe, or a setting given on the command line, is wrong."""


class CheckpointError(VisionR1Error, RuntimeError):
    """A model folder or a checkpoint is missing, incomplete or of another shape."""


class MissingDependency(VisionR1Error, ImportError):
    """A package of an optional part is not installed."""


class TrainingError(VisionR1Error, RuntimeError):
    """Training cannot go on: loss not finite, disk full, run folder in use."""


class _ShortRepr(reprlib.Repr):
    """A repr that takes little time and space, whatever the value."""

    def repr_int(self, x: int, level: int) -> str:
        # Python writes no number of more than 4300 digits.
        if x.bit_length() > 1000:
            return f"<a whole number of {x.bit_length()} bits>"
        return super().repr_int(x, level)


_SHORT = _ShortRepr()
_SHORT.maxlevel = 3
_SHORT.maxstring = _SHORT.maxother = 80


def short_repr(value: object) -> str:
    """Return the repr of a value from a file, for a message: cut off, and quick where a value is deep or shared."""
    return f"{_SHORT.repr(value):.80}"


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Put `where`, such as the key of a recipe, before the message of an error raised inside this block."""
    try:
        yield
    except VisionR1Error as error:
        raise type(error)(f"{where}: {error}") from error


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Import an optional part inside this block; a package it lacks raises MissingDependency."""
    try:
        yield
    except ModuleNotFoundError as error:
        # A module of visionr1 itself that is missing is a defect, not a part that can be installed.
        if error.name is None or error.name.partition(".")[0] == "visionr1":
            raise
        raise MissingDependency(
            f'{error.name} is not installed and this needs it; install it with: pip install "visionr1[{extra}]"'
        ) from error
