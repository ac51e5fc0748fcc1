"""Presets: rewards by name, with their options.

A preset is one file: a module here or in `published/` that sets `PRESET`. An installed package adds one by the entry
point `visionr1.preset`, a user by `module:object` or `file.py:object` (see `user.py` for what that may name).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from visionr1.dialects import Dialect
from visionr1.errors import RecipeError
from visionr1.rewards.score import Scorer
from visionr1.settings import Section


@dataclass(frozen=True, slots=True, eq=False)
class Preset:
    """Make rewards of one kind, by their options.

    `options` is its settings, of which `build` makes the reward for completions in a dialect. `dialects` are the names
    of those that it reads, none for all. `stage_options` take the place of defaults where thresholds tighten during
    training; None is for a reward without stages. `has_adaptive_stages`: its scores tell recall and precision before f.
    `takes_inverted_boxes`: it scores true boxes that are inverted, which `visionr1 score` refuses for others.
    """

    name: str
    options: type[Section]
    build: Callable[[Any, Dialect], Scorer]
    dialects: tuple[str, ...] = ()
    stage_options: Mapping[str, object] | None = field(default_factory=dict)
    has_adaptive_stages: bool = False
    takes_inverted_boxes: bool = False

    def check_dialect(self, name: str) -> None:
        """Raise RecipeError if the reward does not read the dialect `name`."""
        if self.dialects and name not in self.dialects:
            raise RecipeError(f"preset {self.name} does not read the dialect {name!r}, but {', '.join(self.dialects)}")

    def make(self, options: Mapping[str, object], dialect: Dialect, *, has_stages: bool = False) -> Scorer:
        """Return the reward for completions in `dialect`; `has_stages` if thresholds tighten during training.

        Raises RecipeError for an option or a dialect that does not exist for it.
        """
        self.check_dialect(dialect.name)
        checked = self.options(**options)

        # What a user set stays; a default gives way to what the stages need.
        if has_stages and self.stage_options:
            defaults = self.options()
            for name, value in self.stage_options.items():
                if getattr(checked, name) == getattr(defaults, name):
                    checked = checked.with_changes(**{name: value})
        return self.build(checked, dialect)
