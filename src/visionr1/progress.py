"""Progress of a long run on standard error: one bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from visionr1.terminal import printable_line

SECONDS_BETWEEN_LINES = 10.0


class Bar:
    """The bar of one run, or its lines: a context, in which `show` says how far the run is."""

    def __init__(self, *, enabled: bool = True) -> None:
        console = Console(file=sys.stderr)
        self._prints_lines = enabled and not console.is_terminal
        # So long ago that the first call prints a line.
        self._last_line_at = -SECONDS_BETWEEN_LINES
        self._bar = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=console,
            disable=not enabled or self._prints_lines,
        )
        self._task = self._bar.add_task("", total=1.0, text="")

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._bar.stop()

    def show(self, share: float, name: str, text: str) -> None:
        """Show the `share` that is done of what `name` names, and `text` beside it."""
        name = printable_line(name)
        text = printable_line(text)
        # A terminal that is gone (a lost connection) must not end the run before its checkpoint.
        with suppress(OSError):
            self._bar.update(self._task, completed=share, description=name, text=text)
            if self._prints_lines:
                self._print_line(share, f"{100 * share:5.1f}%  {name}  {text}")

    def _print_line(self, share: float, line: str) -> None:
        """Print a line if the last one is long ago, and at the end."""
        now = time.monotonic()
        is_due = now - self._last_line_at >= SECONDS_BETWEEN_LINES
        if is_due or share >= 1:
            self._last_line_at = now
            print(line, file=sys.stderr, flush=True)


def describe_step(row: Mapping[str, Any]) -> tuple[float, str, str]:
    """Return the arguments of `Bar.show` for a training step's row of metrics: loss, reward, each of its parts, KL."""
    names = {"loss": "loss", "reward/total": "reward"}
    for key in row:
        if key.startswith("reward/") and key != "reward/total":
            names[key] = key.removeprefix("reward/")
    names["kl"] = "kl"

    # A step need not have all of them: SFT has no reward, and a KL of None was not computed.
    figures = []
    for key, name in names.items():
        if row.get(key) is not None:
            figures.append(f"{name} {row[key]:.3f}")
    return row["progress"], f"{row['phase']} step {row['step']}", "  ".join(figures)
