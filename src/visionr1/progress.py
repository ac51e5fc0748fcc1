"""What a training run shows: one bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
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
"""Which metrics, and what they are called there."""


class TrainingBar:
    """Use as a context; `show` takes each step's row of metrics."""

    def __init__(self, *, enabled: bool = True) -> None:
        console = Console(file=sys.stderr)
        self._enabled = enabled
        self._lines = enabled and not console.is_terminal
        self._last_line = 0.0
        self._bar = Progress(
            TextColumn("[bold]{task.fields[phase]}[/] step {task.fields[step]}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not enabled or self._lines,
        )
        self._task = self._bar.add_task("", total=1.0, phase="", step=0, text="")

    def __enter__(self) -> "TrainingBar":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, row: Mapping[str, Any]) -> None:
        """Show one step."""
        if not self._enabled:
            return
        text = "  ".join(f"{name} {row[key]:.3f}" for key, name in SHOWN.items() if row.get(key) is not None)
        self._bar.update(self._task, completed=row["progress"], phase=row["phase"], step=row["step"], text=text)
        now = time.monotonic()
        if self._lines and (now - self._last_line >= SECONDS_BETWEEN_LINES or row["progress"] >= 1):
            self._last_line = now
            percent = f"{100 * row['progress']:5.1f}%"
            print(f"{percent}  {row['phase']} step {row['step']}  {text}", file=sys.stderr)
