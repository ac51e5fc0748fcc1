"""The command line, one file for each command.

A command is a module of this package with `add_arguments(parser)` and `run(args)`, whose docstring is its help: a new
command is a new file. Each imports its room when it is run, so that `--help` is quick and a part that is not installed
is missed only where it is needed. `main` is the one boundary that catches VisionR1Error, and what the system says of
files: it prints `error: ...` and returns 2.
"""

import argparse
import errno
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from visionr1 import __version__
from visionr1.cli.arguments import CommandParser, add_command
from visionr1.errors import VisionR1Error
from visionr1.terminal import make_output_safe, printable, printable_message

ORDER = ("demo", "train", "plan", "recipe", "models", "eval", "compare", "vqa", "predict", "report", "data", "score")
"""The order of the commands in `visionr1 --help`; those that are not named here follow by name."""
SAVES_MEMORY = (
    "eval takes less with a smaller --batch-size, training with smaller train.batch_size, rollout.batch_size and "
    "optimizer.tokens_per_forward (docs/training.md#memory)"
)
EXAMPLES = """\
examples:
  visionr1 demo                                          see it work, in minutes on a CPU
  visionr1 data check my_boxes/                          what is wrong with a data set
  visionr1 train demo --run-dir runs/a                   train the model that ships
  visionr1 plan demo                                     what a run will take, before it starts
  visionr1 recipe demo                                   every setting of a recipe, and what it does
  visionr1 eval --model runs/a --data my_boxes/          measure the trained model
  visionr1 predict photo.jpg --categories cat,dog --model runs/a
  visionr1 report runs/a                                 one HTML page about the run

DATA is {formats}; or "bccd" (it ships).
MODEL is a transformers folder, a run folder (its final model), or "tiny" (it ships).
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0, 2 for a user's error, 130: interrupt, 141: closed pipe."""
    if argv is None:
        argv = sys.argv[1:]
    make_output_safe()
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except VisionR1Error as error:
        _say(f"error: {printable_message(error)}")
        return 2
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of the output has seen enough. Python flushes what is left when it exits, and
        # would fail again, so the output goes nowhere from here on.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # A file that cannot be written: a full disk, a folder of someone else.
        _say(f"error: {printable_message(_explain_os_error(error))}")
        return 2
    except Exception as error:
        if _is_out_of_memory(error):
            _say(f"error: memory ran out ({printable_message(error)}); {SAVES_MEMORY}")
            return 2
        # A report needs the traceback, so Python prints it; the note is the last line below it.
        command = shlex.join(["visionr1", *argv])
        error.add_note(
            f"visionr1 {__version__} did not expect this. Unless it comes from code of your own, please report the "
            f"lines above, and the command: {printable(command)}"
        )
        raise
    return 0


def _say(text: str) -> None:
    """Print to standard error, if anyone is still there to read it."""
    with suppress(OSError):
        print(text, file=sys.stderr)


def _explain_os_error(error: OSError) -> str:
    """Return what the system says, and the reason where it names no file because the working folder is gone."""
    if error.errno == errno.ENOENT and error.filename is None:
        try:
            Path.cwd()
        except FileNotFoundError:
            return "the folder that this command was started in is no longer there; change to another one"
    return str(error)


def _is_out_of_memory(error: Exception) -> bool:
    """Return True for Python's and torch's errors for memory that ran out, on the CPU or a GPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands and their arguments."""
    parser = CommandParser(
        prog="visionr1",
        description="Train vision-language models to detect objects, by RL from box annotations.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.more_help = show_examples
    parser.add_argument("--version", action="version", version=f"visionr1 {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    for name in command_names():
        command = import_module(f"{__name__}.{name}")
        add_command(commands, name, command.add_arguments, command.run)
    return parser


def show_examples() -> str:
    """Return examples of commands, and what DATA and MODEL may be."""
    from visionr1.data import describe_readers

    return f"{EXAMPLES.format(formats=describe_readers())}\n`visionr1 COMMAND --help` says more of each."


def command_names() -> list[str]:
    """List the modules of this package that have a `run`: those of ORDER first, then the others by name."""
    names = []
    for module in iter_modules(__path__):
        # What commands share, such as `arguments`, is a module without `run`.
        if "run" in vars(import_module(f"{__name__}.{module.name}")):
            names.append(module.name)
    ordered = [name for name in ORDER if name in names]
    others = sorted(set(names) - set(ORDER))
    return ordered + others
