"""Choosing among samples, and turning detection samples into other queries on the same images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import compress
from random import Random
from zlib import crc32

from visionr1.samples import Query, Sample, normalize_label

HALF_SEED = "visionr1 half"
"""What the two halves of a data set are drawn by: another text would draw others."""


def take_half(samples: Iterable[Sample], half: str) -> list[Sample]:
    """Return the samples of one half of the images, "first" or "second"; all samples for "both".

    The images are ordered by a checksum of their ids and cut in the middle, so that neither the order of the file nor
    the number of queries for an image plays a part. Of an odd number the first half has one more.
    """
    samples = list(samples)
    if half == "both":
        return samples
    keys = {str(sample.image_key) for sample in samples}
    ordered = sorted(keys, key=lambda key: (crc32(f"{HALF_SEED} {key}".encode()), key))
    middle = (len(ordered) + 1) // 2
    chosen = set(ordered[:middle] if half == "first" else ordered[middle:])
    return [sample for sample in samples if str(sample.image_key) in chosen]


def one_category_each(samples: Iterable[Sample]) -> list[Sample]:
    """Split each detection sample into grounding samples of one category, in the query's order."""
    split: list[Sample] = []
    for sample in samples:
        # The boxes of each label as it is compared.
        rows_of_label: dict[str, list[int]] = {}
        for row, label in enumerate(sample.truth.labels):
            rows_of_label.setdefault(normalize_label(label), []).append(row)

        for category in sample.query.categories:
            rows = rows_of_label.get(normalize_label(category), [])
            query = Query("grounding", (category,))
            truth = sample.truth.take(rows)
            split.append(replace(sample, id=f"{sample.id}:{category}", query=query, truth=truth))
    return split


def present_categories(samples: Iterable[Sample], *, num_negatives: int = 0) -> list[Sample]:
    """Ask each detection sample for the categories that have a box in its image; leave out samples without any.

    With `num_negatives`, as many of the others are asked too, drawn by the sample's id; the order stays the query's.
    """
    kept: list[Sample] = []
    for sample in samples:
        # A label that is no category as it stands is compared without regard to case.
        labels = set(sample.truth.labels)
        other_labels = labels.difference(sample.query.categories)
        folded = set(map(normalize_label, other_labels))

        chosen, absent = [], []
        for position, category in enumerate(sample.query.categories):
            is_present = category in labels or normalize_label(category) in folded
            chosen.append(is_present)
            if not is_present:
                absent.append(position)

        # A random generator of the sample's own: its negatives are the same in every run and order.
        if num_negatives:
            count = min(num_negatives, len(absent))
            for position in Random(sample.id).sample(absent, count):
                chosen[position] = True

        categories = tuple(compress(sample.query.categories, chosen))
        if categories:
            kept.append(replace(sample, query=Query("detection", categories)))
    return kept
