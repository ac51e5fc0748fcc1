"""`visionr1 recipe`: the settings of a recipe."""

import argparse
import textwrap
from collections.abc import Iterable, Mapping
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from visionr1.errors import RecipeError
from visionr1.terminal import printable_toml

if TYPE_CHECKING:
    from visionr1.settings import Setting

WIDTH = 110


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe",
        nargs="?",
        metavar="RECIPE",
        help="show this one's values: a TOML file, or the name of one that ships",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="change one setting of RECIPE, as for visionr1 train; may be repeated",
    )


def run(args: argparse.Namespace) -> None:
    """List every setting of a recipe with its value, its default and what it does.

    visionr1 recipe demo --set train.steps=9
    """
    from visionr1.assets import recipe_path
    from visionr1.training.recipe import Recipe, load_recipe, named_sections, options_of_other_presets

    if args.overrides and args.recipe is None:
        raise RecipeError("--set changes a recipe, so name one: visionr1 recipe RECIPE --set KEY=VALUE")
    recipe = Recipe()
    if args.recipe is not None:
        recipe = load_recipe(recipe_path(args.recipe), args.overrides)

    texts = []
    for name, section in named_sections(recipe).items():
        heading = f"[{name}]  {section.__doc__}" if name else ""
        texts.append(_format_settings(heading, section.explain(), dict(section)))

    # A recipe that is named has chosen its preset.
    if args.recipe is None:
        for preset, options in groupby(options_of_other_presets(), key=itemgetter(0)):
            heading = f'[reward]  The options beside preset = "{preset}".'
            texts.append(_format_settings(heading, (option for _, option in options), {}))
    print(printable_toml("\n\n".join(texts)))


def _format_settings(heading: str, settings: "Iterable[Setting]", values: Mapping[str, object]) -> str:
    """Format the settings of a section: its heading, then each with its value, type, default and text."""
    from visionr1.toml import toml_value

    # The settings at the top of a recipe have no heading.
    lines = [heading] if heading else []

    # Type and text stand below the setting; what is hyphenated, such as --set, is not torn apart.
    wrapper = textwrap.TextWrapper(
        WIDTH,
        initial_indent="    ",
        subsequent_indent="    ",
        break_on_hyphens=False,
    )
    for setting in settings:
        value = values.get(setting.key, setting.default)
        line = setting.key
        if value is not None:  # a setting without a default has no value until it is set
            line += f" = {toml_value(value)}"
        if setting.default is not None and value != setting.default:
            line += f" (default: {toml_value(setting.default)})"
        lines += [line, *wrapper.wrap(setting.type), *wrapper.wrap(setting.text)]
    return "\n".join(lines)


def settings_overview() -> str:
    """List the full key, default and first words of every setting, a line each."""
    from visionr1.toml import toml_value
    from visionr1.training.recipe import all_settings

    lines = ["settings of a recipe with their defaults, as --set takes them (visionr1 recipe says more of each):"]
    for key, setting in all_settings():
        assignment = f"{key}="
        if setting.default is not None:
            assignment += toml_value(setting.default)
        # The texts begin in one column, but for the few assignments that are longer.
        text_width = max(20, WIDTH - max(len(assignment), 36))
        text = textwrap.shorten(setting.text, text_width, placeholder=" ...")
        lines.append(f"  {assignment:<36} {text}")
    return "\n".join(lines)
