"""Samples as a protocol asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from visionr1.evaluate.protocols import Protocol, ReplyProtocol
from visionr1.readers.queries import one_category_each, present_categories
from visionr1.samples import Sample


def ask(samples: Sequence[Sample], protocol: ReplyProtocol) -> list[Sample]:
    """Detection samples as the queries of a protocol: one for all categories or one each, all, those present or every.

    Samples that ask for an expression stay as they are.
    """
    asked = list(samples)
    if isinstance(protocol, Protocol):
        if protocol.categories == "present":
            asked = present_categories(asked, num_negatives=protocol.num_negatives)
        if protocol.categories == "every":
            names = tuple(dict.fromkeys(chain.from_iterable(sample.query.categories for sample in samples)))
            asked = [replace(sample, query=replace(sample.query, categories=names)) for sample in samples]
        if protocol.prompt == "per_category":
            asked = one_category_each(asked)
    return asked
