"""How model families write boxes, and how they are asked for them: one file per dialect.

A new dialect is one file here that sets `DIALECT`, an entry point `visionr1.dialect` of an installed package, or an
object anywhere that a user names as `module:object` or `file.py:object` (docs/extending.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from visionr1.dialects.base import Dialect, HasTokens, JoinsCategories
from visionr1.dialects.json_dialect import JSON, JSON_NAME, json_dialect
from visionr1.dialects.think import OPEN_THINK, THINK, THINK_REQUEST, Think
from visionr1.errors import RecipeError
from visionr1.registry import Registry
from visionr1.samples import Query, compose_text

__all__ = [
    "DIALECTS",
    "QUESTION_TEMPLATE",
    "Dialect",
    "HasTokens",
    "describe_dialects",
    "dialect_names",
    "get_dialect",
    "instruction",
    "resolve_dialect",
]

QUESTION_TEMPLATE = "{}\nAnswer the question using a single word or phrase."
"""How a question about the image is asked, as VLMEvalKit asks those of GQA (and with it the paper)."""

_MEMBERS = ("name", "templates", "in_model_px", "grid_wh", "render", "parse")


def _check_dialect(value: Any) -> Dialect:
    """Return what a user's `module:object` names as a dialect: itself, or an instance of it if it is a class."""
    dialect: Dialect = value() if isinstance(value, type) else value
    missing = [member for member in _MEMBERS if not hasattr(dialect, member)]
    if missing:
        problem = f"it lacks {', '.join(missing)} (see docs/extending.md)"
        raise RecipeError(f"{value!r:.80} is no dialect: {problem}")
    return dialect


DIALECTS: Registry[Dialect] = Registry(
    "dialect", packages=("visionr1.dialects", "visionr1.dialects.tokens"), attribute="DIALECT", check=_check_dialect
)
"""The plain dialects by name; each also comes with a thought before the answer, as think+NAME or open-think+NAME."""


def get_dialect(name: str) -> Dialect:
    """Return the known dialect `name`: plain, json:FORM (see `json_dialect`), think+ or open-think+ and one of them.

    Imports no code.

    Raises RecipeError naming those there are.
    """
    return _compose(name, DIALECTS.known)


def resolve_dialect(name: str) -> Dialect:
    """Return the dialect that a user's `name` means: as `get_dialect`, and `module:object` or `file.py:object` too.

    The module is imported, so this is only for names that a user typed, in a recipe or on the command line.
    """
    return _compose(name, DIALECTS.resolve)


def _compose(name: str, find: Callable[[str], Dialect]) -> Dialect:
    """Return the dialect that `find` gives for a name, with a thought if the name says so."""
    if name.startswith(THINK):
        return Think(_find(name.removeprefix(THINK), find))
    if name.startswith(OPEN_THINK):
        return Think(_find(name.removeprefix(OPEN_THINK), find), opened=True)
    return _find(name, find)


def _find(name: str, find: Callable[[str], Dialect]) -> Dialect:
    """Return the plain dialect that `name` describes as a form of JSON, or else that `find` gives."""
    return json_dialect(name) if name.startswith(JSON) else find(name)


def dialect_names() -> tuple[str, ...]:
    """Return every name of a dialect that ships: the plain ones, then each with a thought, opened in two ways."""
    plain_names = tuple(DIALECTS)
    names = list(plain_names)
    for thought in (THINK, OPEN_THINK):
        names += [f"{thought}{name}" for name in plain_names]
    return tuple(names)


def describe_dialects() -> str:
    """Return the choices for a help text or a message."""
    plain_names = f"{', '.join(DIALECTS)}, or any list in JSON as {JSON_NAME}"
    return f"{plain_names}; think+ and one of them, open-think+ where the prompt ends in <think>"


def instruction(query: Query, dialect: Dialect | str = "qwen25", template: str = "") -> str:
    """Return what a model that writes `dialect` is asked for `query`.

    `template` takes the place of the dialect's own. Its {} stands for the categories, joined with a comma and a blank,
    or as the dialect joins them (`JoinsCategories`).
    A dialect with a thought is asked as the plain one, and then to think first, whatever the template.
    """
    if isinstance(dialect, str):
        dialect = get_dialect(dialect)
    if isinstance(dialect, Think):
        return instruction(query, dialect.inner, template) + THINK_REQUEST

    # A question is answered in words, which no dialect changes.
    templates = {"question": QUESTION_TEMPLATE, **dialect.templates}
    template = template or templates[query.task]

    # Not str.format, because a user's template may hold braces of its own.
    joiner = dialect.category_joiner if isinstance(dialect, JoinsCategories) else ", "
    return template.replace("{}", compose_text(joiner.join(query.categories)))
