"""Which samples a step sees."""

from collections import Counter
from typing import Any

import pytest

from visionr1.errors import DataError, RecipeError
from visionr1.recipe import DataSource, Phase
from visionr1.stream import Stream, open_stream

SCENES = {"width": 64, "height": 48, "max_objects": 1}


def stream(*data: DataSource, seed: tuple[int, ...] = (0, 0), **settings: Any) -> Stream:
    return open_stream(Phase(data=data, **settings), seed)


def ids(of: Stream, steps: range) -> list[str]:
    return [sample.id for step in steps for sample in of.batch(step)]


def test_each_epoch_shows_every_sample_once_in_its_own_order() -> None:
    bccd = stream(DataSource(limit=10), batch_size=4)
    assert bccd.num_samples == 10
    seen = ids(bccd, range(5))  # two epochs; the third batch lies in both
    first, second = seen[:10], seen[10:]
    assert sorted(first) == sorted(second) == sorted(set(first))
    assert first != second


def test_a_step_is_a_function_of_the_seed_alone() -> None:
    sources = (DataSource(limit=5, augment=True), DataSource(source="scenes", scenes=SCENES))
    straight = [stream(*sources, batch_size=3).batch(step) for step in range(4)]
    later = stream(*sources, batch_size=3).batch(3)  # without the steps before it
    for a, b in zip(straight[3], later, strict=True):
        assert a.id == b.id
        assert a.truth == b.truth
        assert a.load_image().tobytes() == b.load_image().tobytes()
    assert ids(stream(*sources, batch_size=3, seed=(0, 1)), range(4)) != ids(stream(*sources, batch_size=3), range(4))


def test_sources_are_mixed_by_weight() -> None:
    mixed = stream(DataSource(weight=3), DataSource(source="scenes", scenes=SCENES), batch_size=8)
    assert mixed.num_samples is None  # scenes never end
    count = Counter(name.startswith("scene-") for name in ids(mixed, range(50)))
    assert 0.15 < count[True] / 400 < 0.35


def test_a_wrong_setting_of_scenes_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"unknown key data\.scenes\.max_object; did you mean max_objects"):
        stream(DataSource(source="scenes", scenes={"max_object": 3}))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(DataError, match="nowhere"):
        stream(DataSource(source="nowhere"))
