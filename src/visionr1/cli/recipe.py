"""`visionr1 recipe`: the settings of a recipe."""

import argparse
import textwrap
from typing import TYPE_CHECKING

from visionr1.errors import RecipeError

if TYPE_CHECKING:
    from visionr1.settings import Section

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
    from visionr1.training.recipe import Recipe, load_recipe, named_sections

    if args.overrides and args.recipe is None:
        raise RecipeError("--set changes a recipe, so name one: visionr1 recipe RECIPE --set KEY=VALUE")
    recipe = Recipe()
    if args.recipe is not None:
        recipe = load_recipe(recipe_path(args.recipe), args.overrides)

    texts = []
    for name, section in named_sections(recipe).items():
        texts.append(_format_section(name, section, every_option=args.recipe is None))
    print("\n\n".join(texts))


def _format_section(name: str, section: "Section", *, every_option: bool) -> str:
    """Format one section: its purpose, then each setting with its value, type, default and text.

    A section may describe settings that it does not have, such as the options of another reward; `every_option` shows
    them too.
    """
    from visionr1.training.recipe import toml_value

    # The settings at the top of a recipe belong to no section.
    lines = []
    if name:
        lines.append(f"[{name}]  {section.__doc__}")

    # Type and text stand below the setting; what is hyphenated, such as --set, is not torn apart.
    wrapper = textwrap.TextWrapper(
        WIDTH,
        initial_indent="    ",
        subsequent_indent="    ",
        break_on_hyphens=False,
    )
    values = dict(section)
    for setting in section.describe():
        if setting.key not in values and not every_option:
            continue
        value = toml_value(values.get(setting.key, setting.default))
        default = toml_value(setting.default)
        line = f"{setting.key} = {value}"
        if value != default:
            line += f" (default: {default})"
        lines += [line, *wrapper.wrap(setting.type), *wrapper.wrap(setting.text)]
    return "\n".join(lines)


def settings_overview() -> str:
    """List the full key, default and first words of every setting, a line each."""
    from visionr1.training.recipe import all_settings, toml_value

    lines = ["settings of a recipe with their defaults, as --set takes them (visionr1 recipe says more of each):"]
    for key, setting in all_settings():
        assignment = f"{key}={toml_value(setting.default)}"
        # The texts begin in one column, but for the few assignments that are longer.
        text_width = max(20, WIDTH - max(len(assignment), 36))
        text = textwrap.shorten(setting.text, text_width, placeholder=" ...")
        lines.append(f"  {assignment:<36} {text}")
    return "\n".join(lines)
