"""What a long run shows on standard error: one bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0
SHOWN = {
    "loss": "loss",
    "reward/total": "reward",
    "reward/format": "format",
    "reward/recall": "recall",
    "reward/precision": "precision",
    "kl": "kl",
}
"""Which metrics of a training step, and what they are called there."""


class Bar:
    """Use as a context; `show` says how far it is."""

    def __init__(self, *, enabled: bool = True) -> None:
        console = Console(file=sys.stderr)
        self._lines = enabled and not console.is_terminal
        self._last_line = -SECONDS_BETWEEN_LINES
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
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
        """Show what is going on, the share of it that is done, and what is to be said of it."""
        self._bar.update(self._task, completed=share, description=name, text=text)
        now = time.monotonic()
        if self._lines and (now - self._last_line >= SECONDS_BETWEEN_LINES or share >= 1):
            self._last_line = now
            print(f"{100 * share:5.1f}%  {name}  {text}", file=sys.stderr, flush=True)


def of_step(row: Mapping[str, Any]) -> tuple[float, str, str]:
    """What `Bar.show` is to say of a training step, of its row of metrics."""
    text = "  ".join(f"{name} {row[key]:.3f}" for key, name in SHOWN.items() if row.get(key) is not None)
    return row["progress"], f"{row['phase']} step {row['step']}", text
