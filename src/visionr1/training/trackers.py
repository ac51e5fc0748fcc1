"""Metrics sent elsewhere while a run goes on: TensorBoard, Weights & Biases, MLflow, through accelerate's trackers.

They see what metrics.jsonl holds, which stays the record of a run. A run that is resumed goes on where it was in
TensorBoard and W&B; MLflow gets another run, for its ids belong to a store that the next start may not have.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from visionr1.errors import needs_extra
from visionr1.files import read_text, write_text_atomic
from visionr1.training.recipe import Recipe, to_toml

PROJECT = "visionr1"
WANDB_ID = "wandb_id"
"""The file in a run's folder that says which run of W&B's it is."""


@contextmanager
def open_trackers(
    recipe: Recipe, run_dir: Path, *, done: int = 0, enabled: bool = True
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """What takes each step's row of metrics after step `done` and sends its numbers to the trackers that `recipe`
    names, if `enabled`: a run of several processes needs them on one. MissingDependency names what to install."""
    with ExitStack() as opened:
        trackers = []
        for name in recipe.trackers if enabled else ():
            trackers.append(_open(name, recipe, run_dir, done))
            opened.callback(trackers[-1].finish)

        def log(row: Mapping[str, Any]) -> None:
            numbers = {key: float(value) for key, value in row.items() if isinstance(value, int | float)}
            step = int(numbers.pop("step"))
            for tracker in trackers:
                tracker.log(numbers, step=step)

        yield log


def _open(name: str, recipe: Recipe, run_dir: Path, done: int) -> Any:
    with needs_extra("train"):
        from accelerate.tracking import MLflowTracker, TensorBoardTracker, WandBTracker
    with needs_extra(name):
        if name == "tensorboard":  # which hides what it has of the steps to come
            own_file = {"purge_step": done + 1, "filename_suffix": f".{done}"}
            tracker: Any = TensorBoardTracker("tensorboard", logging_dir=run_dir, **own_file)
        elif name == "wandb":  # which drops rows of steps that it has
            tracker = WandBTracker(PROJECT, name=run_dir.name, dir=run_dir, id=_wandb_id(run_dir), resume="allow")
        else:
            tracker = MLflowTracker(PROJECT, logging_dir=run_dir / "mlflow", run_name=run_dir.name)
        tracker.start()
    tracker.store_init_configuration(_settings(tomllib.loads(to_toml(recipe))))
    return tracker


def _wandb_id(run_dir: Path) -> str:
    file = run_dir / WANDB_ID
    if not file.is_file():
        write_text_atomic(file, uuid4().hex)
    return read_text(file)


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
