"""Metrics sent elsewhere: what TensorBoard's files hold after a run, and what is said when a tracker is missing."""

import struct
import sys
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from visionr1.errors import MissingDependency, RecipeError
from visionr1.recipe import Recipe, parse_recipe
from visionr1.trackers import Trackers, _settings


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Tag -> step -> value, of all event files in `folder` itself."""
    found: dict[str, dict[int, float]] = {}
    for path in folder.glob("events.out.tfevents.*"):
        data, place = path.read_bytes(), 0
        while place < len(data):  # records: length, checksum of it, event, checksum of it
            (length,) = struct.unpack_from("<Q", data, place)
            event = Event.FromString(data[place + 12 : place + 12 + length])
            place += 12 + length + 4
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_tensorboard_gets_every_number_of_every_step(tmp_path: Path) -> None:
    with Trackers(Recipe(trackers=("tensorboard",)), tmp_path) as trackers:
        for step in (1, 2):
            no_numbers = {"phase": "train", "stage": [0.5, 0.5], "label_accuracy": None}
            trackers.log({"step": step, "loss": 0.5 * step, **no_numbers})
    assert scalars(tmp_path / "tensorboard") == {"loss": {1: 0.5, 2: 1.0}}


def test_without_trackers_nothing_is_written(tmp_path: Path) -> None:
    with Trackers(Recipe(), tmp_path) as trackers:
        trackers.log({"step": 1, "loss": 1.0})
    with Trackers(Recipe(trackers=("tensorboard",)), tmp_path, enabled=False) as trackers:
        trackers.log({"step": 1, "loss": 1.0})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_tracker_is_named_with_its_remedy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    recipe = parse_recipe({"trackers": [name]})
    with pytest.raises(MissingDependency, match=rf'pip install "visionr1\[{name}\]"'):
        Trackers(recipe, tmp_path)


def test_an_unknown_tracker_is_named() -> None:
    with pytest.raises(RecipeError, match=r"trackers\.0: expected one of tensorboard, wandb, mlflow, found 'comet'"):
        parse_recipe({"trackers": ["comet"]})


def test_settings_are_flat() -> None:
    table = {"a": 1, "b": {"c": [1, 2]}, "phase": [{"name": "x", "data": [{"source": "y"}]}, {"name": "z"}]}
    assert _settings(table) == {
        "a": 1,
        "b.c": "[1, 2]",
        "phase.0.name": "x",
        "phase.0.data.0.source": "y",
        "phase.1.name": "z",
    }
