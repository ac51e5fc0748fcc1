"""Choosing among samples: the two halves of a data set."""

from dataclasses import replace
from random import Random

import pytest

from visionr1.data import one_category_each, read_source
from visionr1.data.queries import take_half
from visionr1.samples import Sample


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(read_source("bccd", split="train"))


def images(samples: list[Sample]) -> set[object]:
    return {sample.image_id for sample in samples}


def test_the_halves_share_no_image_and_leave_none_out(samples: list[Sample]) -> None:
    first, second = take_half(samples, "first"), take_half(samples, "second")
    assert (len(first), len(second)) == (103, 102)
    assert not images(first) & images(second)
    assert images(first) | images(second) == images(samples)
    assert take_half(samples, "both") == samples


def test_neither_order_nor_the_number_of_queries_moves_an_image_to_the_other_half(samples: list[Sample]) -> None:
    shuffled = samples.copy()
    Random(0).shuffle(shuffled)
    expected = images(take_half(samples, "second"))
    assert images(take_half(shuffled, "second")) == expected
    split = one_category_each(shuffled)
    assert images(take_half(split, "second")) == expected
    assert len(take_half(split, "second")) == 3 * len(expected)


def test_samples_without_image_ids_are_told_apart_by_their_own(samples: list[Sample]) -> None:
    named = [replace(sample, id=f"row {number}", image_id="") for number, sample in enumerate(samples[:9])]
    assert len(take_half(named, "first")) == 5 and len(take_half(named, "second")) == 4
