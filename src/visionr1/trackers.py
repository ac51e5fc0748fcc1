"""Metrics sent elsewhere while a run goes on: TensorBoard, Weights & Biases, MLflow, through accelerate's trackers.

They see what metrics.jsonl holds, which stays the record of a run.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from visionr1.errors import needs_extra
from visionr1.recipe import Recipe, to_toml

PROJECT = "visionr1"


class Trackers:
    """Use as a context; `log` takes each step's row of metrics."""

    def __init__(self, recipe: Recipe, run_dir: Path, *, enabled: bool = True) -> None:
        """Those that `recipe` names, if `enabled`: a run of several processes needs them on one."""
        self._trackers = [_open(name, recipe, run_dir) for name in recipe.trackers if enabled]

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for tracker in self._trackers:
            tracker.finish()

    def log(self, row: Mapping[str, Any]) -> None:
        """The numbers of one step."""
        numbers = {key: float(value) for key, value in row.items() if isinstance(value, int | float)}
        step = int(numbers.pop("step"))
        for tracker in self._trackers:
            tracker.log(numbers, step=step)


def _open(name: str, recipe: Recipe, run_dir: Path) -> Any:
    """One tracker; MissingDependency names what to install."""
    with needs_extra("train"):
        from accelerate.tracking import MLflowTracker, TensorBoardTracker, WandBTracker
    with needs_extra(name):
        if name == "tensorboard":
            tracker: Any = TensorBoardTracker("tensorboard", logging_dir=run_dir)
        elif name == "wandb":
            tracker = WandBTracker(PROJECT, name=run_dir.name, dir=run_dir)
        else:
            tracker = MLflowTracker(PROJECT, logging_dir=run_dir / "mlflow", run_name=run_dir.name)
        tracker.start()
    tracker.store_init_configuration(_settings(tomllib.loads(to_toml(recipe))))
    return tracker


def _settings(table: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """A recipe's keys joined by dots, and values that every tracker takes."""
    settings: dict[str, Any] = {}
    for key, value in table.items():
        tables = value if isinstance(value, list) and value and isinstance(value[0], dict) else [value]
        for number, entry in enumerate(tables):
            path = f"{name}{key}" if tables[0] is value else f"{name}{key}.{number}"
            if isinstance(entry, dict):
                settings |= _settings(entry, f"{path}.")
            else:
                settings[path] = entry if isinstance(entry, bool | int | float | str) else str(entry)
    return settings
