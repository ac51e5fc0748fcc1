"""What a long run shows on standard error: one bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from visionr1.terminal import printable

SECONDS_BETWEEN_LINES = 10.0


class Bar:
    """Use as a context; `show` says how far it is."""

    def __init__(self, *, enabled: bool = True) -> None:
        console = Console(file=sys.stderr)
        self._lines = enabled and not console.is_terminal
        self._last_line = -SECONDS_BETWEEN_LINES
        self._bar = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=console,
            disable=not enabled or self._lines,
        )
        self._task = self._bar.add_task("", total=1.0, text="")

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, share: float, name: str, text: str) -> None:
        """Show the `share` that is done of what `name` names, and `text` beside it."""
        name, text = printable(name), printable(text)
        self._bar.update(self._task, completed=share, description=name, text=text)
        now = time.monotonic()
        if self._lines and (now - self._last_line >= SECONDS_BETWEEN_LINES or share >= 1):
            self._last_line = now
            print(f"{100 * share:5.1f}%  {name}  {text}", file=sys.stderr, flush=True)


def of_step(row: Mapping[str, Any]) -> tuple[float, str, str]:
    """Return the arguments of `Bar.show` for a training step's row of metrics: loss, reward, each of its parts, KL."""
    keys = {"loss": "loss", "reward/total": "reward"}
    for key in row:
        if key.startswith("reward/") and key != "reward/total":
            keys[key] = key.removeprefix("reward/")
    keys["kl"] = "kl"

    shown = [f"{name} {row[key]:.3f}" for key, name in keys.items() if row.get(key) is not None]
    return row["progress"], f"{row['phase']} step {row['step']}", "  ".join(shown)
