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
"""The file in a run's folder that holds the id of its run in W&B."""


@contextmanager
def open_trackers(
    recipe: Recipe, run_dir: Path, *, done: int = 0, enabled: bool = True
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Open the trackers that `recipe` names; give a function that sends them the numbers of a step's row of metrics.

    The rows are those after step `done`. Only one rank has the trackers `enabled`. Raises MissingDependency, which
    names what to install.
    """
    with ExitStack() as opened:
        trackers = []
        if enabled:
            for name in recipe.trackers:
                tracker = _open(name, recipe, run_dir, done)
                opened.callback(tracker.finish)  # also where the next one cannot be opened
                trackers.append(tracker)

        def log(row: Mapping[str, Any]) -> None:
            # Trackers plot numbers; a row also has texts and lists.
            numbers = {key: float(value) for key, value in row.items() if isinstance(value, int | float)}
            step = int(numbers.pop("step"))
            for tracker in trackers:
                tracker.log(numbers, step=step)

        yield log


def _open(name: str, recipe: Recipe, run_dir: Path, done: int) -> Any:
    with needs_extra("train"):
        from accelerate.tracking import MLflowTracker, TensorBoardTracker, WandBTracker

    with needs_extra(name):
        if name == "tensorboard":
            # It hides the rows that it has of the steps to come; the suffix keeps the files of two starts apart.
            file_options = {"purge_step": done + 1, "filename_suffix": f".{done}"}
            tracker: Any = TensorBoardTracker("tensorboard", logging_dir=run_dir, **file_options)
        elif name == "wandb":
            # It drops rows of steps that it has already.
            tracker = WandBTracker(PROJECT, name=run_dir.name, dir=run_dir, id=_wandb_id(run_dir), resume="allow")
        else:
            tracker = MLflowTracker(PROJECT, logging_dir=run_dir / "mlflow", run_name=run_dir.name)
        tracker.start()

    # By way of TOML: plain tables and lists, with the keys that a recipe file has.
    table = tomllib.loads(to_toml(recipe))
    tracker.store_init_configuration(_flatten(table))
    return tracker


def _wandb_id(run_dir: Path) -> str:
    """Return the id of this run in W&B, which the first start draws and later ones find."""
    file = run_dir / WANDB_ID
    if not file.is_file():
        write_text_atomic(file, uuid4().hex)
    return read_text(file)


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a recipe's settings by their keys joined by dots, with values that every tracker takes."""
    settings: dict[str, Any] = {}
    for key, value in table.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            settings |= _flatten(value, f"{path}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            # A list of tables, such as the phases, by number.
            for number, entry in enumerate(value):
                settings |= _flatten(entry, f"{path}.{number}.")
        elif isinstance(value, bool | int | float | str):
            settings[path] = value
        else:
            settings[path] = str(value)  # a list of values
    return settings
