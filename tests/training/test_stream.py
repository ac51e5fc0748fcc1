"""Which samples a step sees."""

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from visionr1.data.settings import DataSource
from visionr1.errors import DataError, RecipeError
from visionr1.training.recipe import Phase
from visionr1.training.stream import Stream, count_draws, describe, open_stream

SCENES = {"width": 64, "height": 48, "max_objects": 1}


def stream(*data: DataSource, seed: tuple[int, ...] = (0, 0), **settings: Any) -> Stream:
    return open_stream(Phase(data=data, **settings), seed)


def ids(of: Stream, steps: range) -> list[str]:
    return [sample.id for step in steps for sample in of.batch(step)]


def images(of: Stream, steps: range) -> list[str]:
    return [str(sample.image) for step in steps for sample in of.batch(step)]


def test_each_epoch_shows_every_sample_once_in_its_own_order() -> None:
    bccd = stream(DataSource(limit=10), batch_size=4)
    assert bccd.num_samples == 10
    seen = ids(bccd, range(5))  # two epochs; the third batch lies in both
    first, second = seen[:10], seen[10:]
    assert sorted(first) == sorted(second) == sorted(set(first))
    assert first != second


def test_a_source_is_known_by_its_samples() -> None:
    samples = list(open_stream(Phase(data=(DataSource(limit=3),)), (0, 0)).batch(0))
    other = replace(samples[0], truth=samples[1].truth)
    said = {describe(of) for of in (samples, samples[:2], samples[::-1], [other, *samples[1:]])}
    assert len(said) == 4
    assert describe(samples).startswith("16 samples with checksum ")
    mixed = stream(DataSource(limit=5, augment=True), DataSource(source="scenes", scenes=SCENES))
    assert mixed.contents[0].startswith("5 samples with ") and mixed.contents[1] == "endless"


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
    for steps in (1, 7, 50):
        count = Counter(name.startswith("scene-") for name in ids(mixed, range(steps)))
        assert count[True] == 2 * steps


def test_of_several_sources_each_is_passed_over_without_repeats() -> None:
    one, two = DataSource(limit=10, weight=10), DataSource(split="valid", limit=4, weight=4)
    mixed = stream(one, two, batch_size=7)
    assert mixed.num_samples == 14
    first, second = images(mixed, range(2)), images(mixed, range(2, 4))
    assert sorted(first) == sorted(second) == sorted(set(first))
    assert first != second
    times = Counter(images(stream(one.with_changes(weight=1), two, batch_size=5), range(4)))
    assert sorted(times.values()) == [1, 1, 1, 1, 4, 4, 4, 4]  # of 20 draws 16 are of the four, each four times


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (0.1, 0.2, 0.7), (5, 1, 1, 1), (1000, 100), (1, 10**6)])
def test_draws_keep_to_the_shares_wherever_counting_begins(weights: tuple[float, ...]) -> None:
    total = sum(map(Fraction, weights))
    shares = [Fraction(weight) / total for weight in weights]
    before = [0] * len(shares)
    for count in range(1, 200):
        now = count_draws(shares, count)
        assert sum(now) == count
        assert sorted(b - a for a, b in zip(before, now, strict=True)) == [0] * (len(shares) - 1) + [1]
        assert all(abs(n - s * count) < len(shares) / 2 + 1 for n, s in zip(now, shares, strict=True))
        before = now


def test_a_source_may_be_half_of_the_images_and_ask_for_one_category_at_a_time() -> None:
    first, second = (stream(DataSource(half=half, one_category=True)) for half in ("first", "second"))
    assert (first.num_samples, second.num_samples) == (3 * 103, 3 * 102)
    for sample in first.batch(0):
        assert sample.query.task == "grounding" and set(sample.truth.labels) <= set(sample.query.categories)
    assert not set(images(first, range(20))) & set(images(second, range(20)))


@pytest.mark.parametrize("setting", [{"half": "first"}, {"one_category": True}])
def test_scenes_have_neither_halves_nor_categories_to_split_by(setting: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=f'{next(iter(setting))}: expected .* where source is "scenes"'):
        DataSource(source="scenes", **setting)


def test_a_wrong_setting_of_scenes_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"unknown key scenes\.max_object; did you mean scenes\.max_objects"):
        stream(DataSource(source="scenes", scenes={"max_object": 3}))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(DataError, match="nowhere"):
        stream(DataSource(source="nowhere"))
