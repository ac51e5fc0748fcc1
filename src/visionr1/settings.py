"""Sections of a recipe: frozen records, checked when they are made, whose docstrings are their help.

A section declares its settings with their constraints and, below each, a docstring:

    class LoRASection(Section):
        rank: Annotated[int, Field(ge=0), Expected("0 (no adapters) or more")] = 0
        '''Rank of the adapters; 0 has none and trains the model's own weights.'''

Types are strict (no "3" for 3, no true for 1; a whole number may stand for a float), infinities and NaN are refused
everywhere, and so are unknown keys. What is wrong raises SettingError, a RecipeError: `lora.rank: expected 0 (no
adapters) or more, found -1`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from visionr1.errors import RecipeError

Path = tuple[str | int, ...]
"""Keys from the outermost table to a setting, and places in lists: ("phases", 0, "steps")."""
Item = TypeVar("Item")

_TYPE_NAMES: Mapping[Any, str] = {int: "whole number", float: "number", str: "text", bool: "true or false"}


class SettingError(RecipeError):
    """A setting has a value that it cannot have, or a section has no such key."""

    def __init__(self, problem: str, path: Path = (), *, known: tuple[str, ...] = ()) -> None:
        """Say the problem of the setting at `path`; `known` are the keys of its section, where it is none of them."""
        self.problem = problem
        self.path = path
        self.known = known
        super().__init__(self._message())

    def _message(self) -> str:
        if self.known:
            return f"{self.problem} {dotted(self.path)}; {self._hint()}"
        if self.path:
            return f"{dotted(self.path)}: {self.problem}"
        return self.problem

    def _hint(self) -> str:
        """Name the key that an unknown one may be a misspelling of, or else all keys of the section."""
        *parents, key = self.path
        near = get_close_matches(str(key), self.known, n=1, cutoff=0.5)
        if near:
            return f"did you mean {dotted((*parents, near[0]))}?"
        return f"known keys: {', '.join(sorted(self.known))}"

    def inside(self, *parents: str | int) -> SettingError:
        """Return the same error, of a section that lies at `parents`."""
        return SettingError(self.problem, (*parents, *self.path), known=self.known)


@dataclass(frozen=True, slots=True)
class Expected:
    """Words for the values that a field allows, where the bounds alone do not say enough: metadata of `Annotated`."""

    text: str


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


FromList = BeforeValidator(_as_tuple)
"""Metadata of a tuple: take a list, as TOML writes it, or a single value in its place."""
ListOrOne = Annotated[tuple[Item, ...], FromList]


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a section, as it is explained to the user."""

    key: str
    type: str
    """In words: "whole number, 0 (all) or more"."""
    default: Any
    text: str
    """The docstring, in one line."""


class Section(BaseModel):
    """The base of every section."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def __init__(self, /, **settings: Any) -> None:
        """Check `settings`; pydantic calls this for sections inside a section too, so that errors join their paths."""
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise _setting_error(type(self), error.errors()[0]) from None

    def with_changes(self, **changes: Any) -> Self:
        """Return a copy with these fields changed; it is checked like any other."""
        return type(self)(**{**dict(self), **changes})

    def explain(self) -> Iterator[Setting]:
        """Explain each setting that this section has, in the order in which it is written."""
        yield from self.describe()

    @classmethod
    def describe(cls) -> Iterator[Setting]:
        """Explain each setting that is no section of its own."""
        for key, field in cls.model_fields.items():
            if not _holds_sections(field.annotation):
                kind = _type_words(field.annotation)
                allowed = _allowed_words(field)
                if allowed:
                    kind += f", {allowed}"
                # A reward of a user's own may have options without a default.
                default = None
                if not field.is_required():
                    default = field.get_default(call_default_factory=True)
                # A docstring may have line breaks.
                text = " ".join((field.description or "").split())
                yield Setting(key, kind, default, text)


def refuse(key: str, expected: str, found: object) -> SettingError:
    """Return the error of a setting that does not go with another one: raise it in a model validator."""
    return SettingError(f"expected {expected}, found {found}", (key,))


def dotted(path: Path) -> str:
    """Return a path as it is written: "phase.0.steps"."""
    return ".".join(map(str, path))


def _setting_error(section: type[Section], details: ErrorDetails) -> SettingError:
    """Translate what pydantic found into the project's words; the path is relative to `section`."""
    path = details["loc"]
    kind = details["type"]
    value = details["input"]

    # Errors of the project's own validators, which pydantic wraps.
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, SettingError):
        return cause.inside(*path)
    if isinstance(cause, RecipeError):
        return SettingError(str(cause), path)
    if kind == "extra_forbidden":
        return SettingError("unknown key", path, known=tuple(section.model_fields))
    if kind == "missing" and len(path) == 1:
        return SettingError("expected a value, found none", path)

    # A value is missing from a tuple of fixed length, or is too many: the tuple is at fault.
    field = section.model_fields[str(path[0])]
    if kind == "missing" and len(path) > 1:
        path = path[:1]
    if isinstance(value, tuple):
        value = list(value)  # as TOML writes it
    return SettingError(f"expected {_expected(kind, field, path, details)}, found {value!r}", path)


def _expected(kind: str, field: FieldInfo, path: Path, details: ErrorDetails) -> str:
    """Say what a field takes in place of the value that is wrong in the way `kind`."""
    match kind:
        case "missing" | "too_long" if get_args(field.annotation)[-1:] != (Ellipsis,):
            return f"{len(get_args(field.annotation))} values"
        case "int_type" | "int_from_float":
            return "a whole number"
        case "float_type":
            return "a number"
        case "finite_number":
            return "a finite number"
        case "string_type":
            return "text"
        case "bool_type":
            return "true or false"
        case "model_type" | "dict_type" | "mapping_type":
            return "a table"
        case "literal_error":
            return f"one of {', '.join(_choices(field.annotation))}"
    if len(path) == 1 and (allowed := _allowed_words(field)):
        return allowed
    # An entry of a list, whose own bounds are not the field's.
    return _range_words(details.get("ctx", {})) or details["msg"]


def _allowed_words(field: FieldInfo) -> str:
    """Say which values of its type a field allows; nothing if it allows all."""
    for item in field.metadata:
        if isinstance(item, Expected):
            return item.text
    bounds = {}
    for item in field.metadata:
        for name in ("gt", "ge", "lt", "le"):
            if hasattr(item, name):
                bounds[name] = getattr(item, name)
    return _range_words(bounds)


def _range_words(bounds: Mapping[str, Any]) -> str:
    """Say which numbers lie within the bounds; nothing without bounds."""
    match bounds:
        case {"gt": low, "lt": high}:
            return f"between {low:g} and {high:g}"
        case {"gt": low, "le": high}:
            return f"above {low:g} and at most {high:g}"
        case {"ge": low, "lt": high}:
            return f"from {low:g} to below {high:g}"
        case {"ge": low, "le": high}:
            return f"from {low:g} to {high:g}"
        case {"gt": low}:
            return f"above {low:g}"
        case {"ge": low}:
            return f"{low:g} or more"
        case {"lt": high}:
            return f"below {high:g}"
        case {"le": high}:
            return f"at most {high:g}"
    return ""


def _type_words(annotation: Any) -> str:
    """Say the type of a field in words."""
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Annotated:
        return _type_words(arguments[0])
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (Union, UnionType):
        return " or ".join(map(_type_words, arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {_type_words(arguments[0])}"
    if origin is tuple:
        return f"{len(arguments)} of {_type_words(arguments[0])}"
    return _TYPE_NAMES.get(annotation, "table")


def _choices(annotation: Any) -> tuple[str, ...]:
    """Return the names that a Literal allows, also as the entry of a list."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    for argument in get_args(annotation):
        choices = _choices(argument)
        if choices:
            return choices
    return ()


def _holds_sections(annotation: Any) -> bool:
    """Tell whether a field is a section or a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return True
    return any(map(_holds_sections, get_args(annotation)))
