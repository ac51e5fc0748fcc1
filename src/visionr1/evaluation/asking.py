"""Samples as a protocol asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import TypeVar

import numpy as np

from visionr1.data.queries import one_category_each, present_categories
from visionr1.evaluation.protocols import Protocol, ReplyProtocol
from visionr1.samples import Sample

T = TypeVar("T")


def evenly(items: Sequence[T], limit: int) -> list[T]:
    """`limit` of the items, evenly spaced; all of them for 0, or where there are no more."""
    if not 0 < limit < len(items):
        return list(items)
    return [items[place] for place in np.linspace(0, len(items) - 1, limit).round().astype(int).tolist()]


def ask(samples: Sequence[Sample], protocol: ReplyProtocol) -> list[Sample]:
    """Detection samples as the queries of a protocol: one for all categories or one each, all, those present or every.

    Samples that ask for an expression stay as they are.
    """
    asked = list(samples)
    if isinstance(protocol, Protocol):
        if protocol.limit:
            images = [sample.image_id if sample.image_id != "" else sample.id for sample in asked]
            kept = set(evenly(list(dict.fromkeys(images)), protocol.limit))
            asked = [sample for sample, image in zip(asked, images, strict=True) if image in kept]
        if protocol.categories == "present":
            asked = present_categories(asked, num_negatives=protocol.num_negatives)
        if protocol.categories == "every":
            names = tuple(dict.fromkeys(chain.from_iterable(sample.query.categories for sample in samples)))
            asked = [replace(sample, query=replace(sample.query, categories=names)) for sample in samples]
        if protocol.prompt == "per_category":
            asked = one_category_each(asked)
    return asked
