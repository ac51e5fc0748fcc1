"""Metrics sent elsewhere: what TensorBoard's files hold after a run, and what is said when a tracker is missing."""

import struct
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from visionr1.errors import MissingDependency, RecipeError
from visionr1.training.recipe import Recipe, parse_recipe
from visionr1.training.trackers import _flatten, open_trackers


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Tag -> step -> value, of all event files in `folder` itself, as TensorBoard shows them."""
    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns):
        data, place = path.read_bytes(), 0
        while place < len(data):  # records: length, checksum of it, event, checksum of it
            (length,) = struct.unpack_from("<Q", data, place)
            event = Event.FromString(data[place + 12 : place + 12 + length])
            place += 12 + length + 4
            if event.HasField("session_log"):  # of a writer that begins anew at this step
                found = {
                    tag: {step: value for step, value in values.items() if step < event.step}
                    for tag, values in found.items()
                }
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_tensorboard_gets_every_number_of_every_step(tmp_path: Path) -> None:
    with open_trackers(Recipe(trackers=("tensorboard",)), tmp_path) as track:
        for step in (1, 2):
            no_numbers = {"phase": "train", "stage": [0.5, 0.5], "label_accuracy": None}
            track({"step": step, "loss": 0.5 * step, **no_numbers})
    assert scalars(tmp_path / "tensorboard") == {"loss": {1: 0.5, 2: 1.0}}


def test_tensorboard_forgets_what_a_resumed_run_tells_again(tmp_path: Path) -> None:
    recipe = Recipe(trackers=("tensorboard",))
    with open_trackers(recipe, tmp_path) as track:
        for step in (1, 2, 3):
            track({"step": step, "loss": 1.0})
    with open_trackers(recipe, tmp_path, done=1) as track:
        track({"step": 2, "loss": 5.0})
    assert scalars(tmp_path / "tensorboard") == {"loss": {1: 1.0, 2: 5.0}}


class WandB(ModuleType):
    """A stand-in for the package: what it was called with."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.opened: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.closed = 0
        self.config = SimpleNamespace(update=lambda values, allow_val_change: None)

    def init(self, **settings: Any) -> Any:
        self.opened.append(settings)
        return SimpleNamespace(log=self.log, finish=self.finish)

    def log(self, values: dict[str, float], step: int) -> None:
        self.rows.append((step, values))

    def finish(self) -> None:
        self.closed += 1


def test_a_resumed_run_is_the_same_one_of_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = WandB()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for done, run in ((0, "one"), (1, "one"), (0, "two")):
        with open_trackers(Recipe(trackers=("wandb",)), tmp_path / run, done=done) as track:
            track({"step": done + 1, "loss": 0.5})
    first, resumed, other = (settings["id"] for settings in wandb.opened)
    assert first == resumed != other
    assert {settings["resume"] for settings in wandb.opened} == {"allow"}
    assert wandb.rows == [(1, {"loss": 0.5}), (2, {"loss": 0.5}), (1, {"loss": 0.5})]
    assert wandb.closed == 3


def test_a_tracker_is_closed_where_the_next_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = WandB()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingDependency), open_trackers(Recipe(trackers=("wandb", "mlflow")), tmp_path):
        pass
    assert wandb.closed == 1


def test_without_trackers_nothing_is_written(tmp_path: Path) -> None:
    with open_trackers(Recipe(), tmp_path) as track:
        track({"step": 1, "loss": 1.0})
    with open_trackers(Recipe(trackers=("tensorboard",)), tmp_path, enabled=False) as track:
        track({"step": 1, "loss": 1.0})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_tracker_is_named_with_its_remedy(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    recipe = parse_recipe({"trackers": [name]})
    with pytest.raises(MissingDependency, match=rf'pip install "visionr1\[{name}\]"'), open_trackers(recipe, tmp_path):
        pass


def test_an_unknown_tracker_is_named() -> None:
    with pytest.raises(RecipeError, match=r"trackers\.0: expected one of tensorboard, wandb, mlflow, found 'comet'"):
        parse_recipe({"trackers": ["comet"]})


def test_settings_are_flat() -> None:
    table = {"a": 1, "b": {"c": [1, 2]}, "phase": [{"name": "x", "data": [{"source": "y"}]}, {"name": "z"}]}
    assert _flatten(table) == {
        "a": 1,
        "b.c": "[1, 2]",
        "phase.0.name": "x",
        "phase.0.data.0.source": "y",
        "phase.1.name": "z",
    }
