"""Turning detection samples into other queries on the same images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import compress
from random import Random

from visionr1.samples import Query, Sample, normalize_label


def one_category_each(samples: Iterable[Sample]) -> list[Sample]:
    """Split each detection sample into grounding samples of one category, in the query's order."""
    split: list[Sample] = []
    for sample in samples:
        labels = [normalize_label(label) for label in sample.truth.labels]
        for category in sample.query.categories:
            rows = [row for row, label in enumerate(labels) if label == normalize_label(category)]
            query = Query("grounding", (category,))
            split.append(replace(sample, id=f"{sample.id}:{category}", query=query, truth=sample.truth.take(rows)))
    return split


def present_categories(samples: Iterable[Sample], *, num_negatives: int = 0) -> list[Sample]:
    """Ask each detection sample for the categories that have a box in its image; leave out samples without any.

    With `num_negatives`, as many of the others are asked too, drawn by the sample's id; the order stays the query's.
    """
    kept: list[Sample] = []
    for sample in samples:
        labels = set(sample.truth.labels)
        folded = {normalize_label(label) for label in labels.difference(sample.query.categories)}
        chosen = [name in labels or normalize_label(name) in folded for name in sample.query.categories]
        if num_negatives:
            absent = [place for place, is_present in enumerate(chosen) if not is_present]
            for place in Random(sample.id).sample(absent, min(num_negatives, len(absent))):
                chosen[place] = True

        asked = tuple(compress(sample.query.categories, chosen))
        if asked:
            kept.append(replace(sample, query=Query("detection", asked)))
    return kept
