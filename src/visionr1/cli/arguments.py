"""Parts that several commands share: adding a command, types of arguments, arguments with one meaning in all."""

import argparse
import os
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from visionr1.terminal import printable_line

WIDTH = 78
"""Width of the text below a command's own help, as argparse wraps its text on a terminal of 80 columns."""


class CommandParser(argparse.ArgumentParser):
    """The parser of one command."""

    more_help: Callable[[], str] | None = None
    """Makes the end of its help. Registries import much, so they are asked only when the help is printed."""

    def format_help(self) -> str:
        """Return the help that `--help` prints."""
        text = super().format_help()
        if self.more_help is None:
            return text
        return f"{text}\n{self.more_help()}\n"

    def error(self, message: str) -> NoReturn:
        """Print what is wrong with the arguments, which it repeats, and exit with status 2."""
        super().error(printable_line(message))


def add_command(
    commands: Any,
    name: str,
    add_arguments: Callable[[CommandParser], None],
    run: Callable[[argparse.Namespace], None],
) -> None:
    """Add a command to `commands` (an argparse subparsers action): the docstring of `run` is its help and its example.

    The first paragraph of the docstring is the help; what follows is shown as the example.
    """
    about, _, example = (run.__doc__ or f"{name}.").partition("\n\n")
    # In the list of commands it stands behind the name, so it is no sentence there.
    short_help = about[0].lower() + about[1:].removesuffix(".")
    # The raw formatter keeps the line breaks of the example.
    parser = commands.add_parser(
        name,
        help=short_help,
        description=about,
        epilog=f"example:\n  {example.strip()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    add_arguments(parser)


def list_names(**kinds: Iterable[str] | str) -> str:
    """Lay out the names that arguments take, a paragraph for each kind, such as `dialects=...`."""
    paragraphs = []
    for kind, names_of_kind in kinds.items():
        listed = names_of_kind if isinstance(names_of_kind, str) else ", ".join(names_of_kind)
        paragraphs.append(textwrap.fill(f"{kind}: {listed}", WIDTH, subsequent_indent="  ", break_on_hyphens=False))
    return "\n".join(paragraphs)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--data` and `--split`."""
    parser.add_argument(
        "--data",
        type=existing_path,
        metavar="DATA",
        help="what has the true boxes (see visionr1 --help); not needed for --predictions that carry them, such as a "
        "run's rollouts.jsonl",
    )
    parser.add_argument(
        "--split",
        help="which part of a data folder that has parts (default: test, or all of a --benchmark)",
    )


def add_reader_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--reader`."""
    parser.add_argument(
        "--reader",
        metavar="NAME",
        help="format of DATA: a reader below, or your own as my_reader.py:READER (default: as its files look)",
    )


def add_images_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--images`."""
    parser.add_argument(
        "--images",
        type=existing_path,
        metavar="DIR",
        help="the folder of DATA's images, where they lie in no usual place near the annotations",
    )


def add_dialect_argument(parser: argparse.ArgumentParser, purpose: str, *, default: str | None, otherwise: str) -> None:
    """Add `--dialect`, which says `purpose`; without it, it is `default`, which help words as `otherwise`."""
    parser.add_argument(
        "--dialect",
        default=default,
        metavar="NAME",
        help=f"{purpose}: a dialect below, or your own as my_dialect.py:DIALECT (default: {otherwise})",
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--device` and `--dtype`."""
    parser.add_argument(
        "--device",
        default="cpu",
        help="where the model runs, such as cuda (default: cpu)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of its weights (default: float32)",
    )


def add_engine_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--engine`."""
    parser.add_argument(
        "--engine",
        default="builtin",
        metavar="NAME",
        help="what generates the replies: an engine below, or your own as my_engine.py:open_engine (default: builtin)",
    )


def existing_path(text: str) -> str:
    """Drop the slash that a shell adds to a folder, because the path is stored and compared.

    Names of what ships, such as "tiny", stay as they are.
    """
    if Path(text).exists():
        return os.path.normpath(text)
    return text


def count(text: str, least: int = 0) -> int:
    """Parse a whole number from `least` up."""
    # int() alone would take " 5", "1_000" and digits of other scripts.
    if not (text.isascii() and text.isdecimal() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"expected a number from {least} up, but found {text!r}")
    return int(text)


def positive(text: str) -> int:
    """Parse a whole number from 1 up."""
    return count(text, 1)


def names(text: str) -> list[str]:
    """Split names at commas; empty ones are left out."""
    stripped = map(str.strip, text.split(","))
    return [name for name in stripped if name]


def share(text: str) -> float:
    """Parse a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0  # out of range, as NaN is, for the one message below
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, but found {text!r}")
    return value
