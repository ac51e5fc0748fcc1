"""Turning detection samples into other queries on the same images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from random import Random

from visionr1.samples import Boxes, Query, Sample, normalize_label


def one_category_each(samples: Iterable[Sample], *, present_only: bool = False) -> list[Sample]:
    """Each detection sample as grounding samples of one category, in the query's order.

    `present_only` keeps the categories that have a box in the image: it tells the model what is there, and is for
    protocols that do so.
    """
    split: list[Sample] = []
    for sample in samples:
        labels = [normalize_label(label) for label in sample.truth.labels]
        for category in sample.query.categories:
            rows = [row for row, label in enumerate(labels) if label == normalize_label(category)]
            if present_only and not rows:
                continue
            truth = Boxes(sample.truth.xyxy[rows], tuple(sample.truth.labels[row] for row in rows))
            split.append(
                replace(sample, id=f"{sample.id}:{category}", query=Query("grounding", (category,)), truth=truth)
            )
    return split


def present_categories(samples: Iterable[Sample], *, num_negatives: int = 0) -> list[Sample]:
    """Each detection sample asked for the categories that have a box in its image; those without any are left out.

    With `num_negatives`, as many of the others are asked too, drawn by the sample's id; the order stays the query's.
    """
    kept: list[Sample] = []
    for sample in samples:
        labels = set(sample.truth.labels)
        loose = {normalize_label(label) for label in labels.difference(sample.query.categories)}
        named = [name in labels or normalize_label(name) in loose for name in sample.query.categories]
        if num_negatives:
            others = [place for place, there in enumerate(named) if not there]
            for place in Random(sample.id).sample(others, min(num_negatives, len(others))):
                named[place] = True
        asked = tuple(name for name, chosen in zip(sample.query.categories, named, strict=True) if chosen)
        if asked:
            kept.append(replace(sample, query=Query("detection", asked)))
    return kept
