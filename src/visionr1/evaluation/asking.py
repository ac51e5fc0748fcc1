"""Asking: the samples of a set as the prompts of a protocol, and the replies to them, kept as they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from typing import Protocol as Interface
from zlib import crc32

import numpy as np

from visionr1.data.queries import one_category_each, present_categories
from visionr1.dialects import Dialect
from visionr1.evaluation.predictions import Prediction
from visionr1.evaluation.protocols import ASKED, Protocol
from visionr1.evaluation.reply_log import WHOLE, ReplyLog, Shard
from visionr1.samples import Sample

T = TypeVar("T")


def evenly(items: Sequence[T], limit: int) -> list[T]:
    """Return `limit` of the items, evenly spaced; all of them for 0, or where there are no more."""
    if not 0 < limit < len(items):
        return list(items)
    places = np.linspace(0, len(items) - 1, limit).round().astype(int)
    return [items[place] for place in places.tolist()]


def ask(samples: Sequence[Sample], protocol: Protocol) -> list[Sample]:
    """Return detection samples as the queries of a protocol, one sample for each prompt.

    A prompt names all categories or one, of those that are all, present or every. Samples that ask for an expression
    stay as they are.
    """
    if "categories" not in protocol.uses:
        return list(samples)
    asked = list(samples)
    if protocol.limit:
        asked = _limit_images(asked, protocol.limit)
    if protocol.categories == "present":
        asked = present_categories(asked, num_negatives=protocol.num_negatives)
    elif protocol.categories == "every":
        # Those of the whole set, whatever images the limit leaves.
        asked = _ask_for(asked, _all_categories(samples))
    if protocol.prompt == "per_category":
        asked = one_category_each(asked)
    return asked


def _limit_images(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """Return the samples of `limit` evenly spaced images; one image may have several samples."""
    images = list(dict.fromkeys(sample.image_key for sample in samples))
    kept = set(evenly(images, limit))
    return [sample for sample in samples if sample.image_key in kept]


def _all_categories(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Return every category that some sample asks for, in the order they first come."""
    categories: dict[str, None] = {}
    for sample in samples:
        categories |= dict.fromkeys(sample.query.categories)
    return tuple(categories)


def _ask_for(samples: Sequence[Sample], categories: tuple[str, ...]) -> list[Sample]:
    """Return the samples with a query for `categories`."""
    asked = []
    for sample in samples:
        query = replace(sample.query, categories=categories)
        asked.append(replace(sample, query=query))
    return asked


class Replier(Interface):
    """A model that replies to prompts; `runner.Model` is a policy in one process."""

    @property
    def name(self) -> str:
        """The model as the user names it."""
        ...

    @property
    def dialect(self) -> Dialect:
        """The dialect that its replies write boxes in."""
        ...

    def complete_protocol(self, protocol: Protocol) -> Protocol:
        """Fill in what the replier decides: dialect, dtype, image processor and length of a reply."""
        ...

    def weights_sum(self) -> int:
        """Return a checksum of the weights: other weights give another."""
        ...

    def reply(
        self,
        samples: Sequence[Sample],
        protocol: Protocol,
        *,
        title: str,
        keep: Callable[[Sequence[Prediction]], None] | None,
    ) -> list[Prediction]:
        """Return one reply to each sample, in order; `keep` takes them batch by batch. `title` names the progress."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Asking:
    """The prompts that a protocol makes of samples, one sample each, and the protocol with all that replies state."""

    samples: Sequence[Sample]
    protocol: Protocol

    @classmethod
    def of(cls, replier: Replier, samples: Sequence[Sample], protocol: Protocol) -> Asking:
        """Make the prompts for a replier."""
        return cls(ask(samples, protocol), replier.complete_protocol(protocol))

    @property
    def facts(self) -> Mapping[str, Any]:
        """All that the replies depend on besides the model: how they are scored is not among it."""
        # A checksum stands for the prompts, which may be thousands.
        prompts = repr([(sample.id, sample.query, sample.size_wh) for sample in self.samples])
        facts: dict[str, Any] = {"samples": len(self.samples), "prompts": crc32(prompts.encode())}

        record = self.protocol.to_json()
        for key in (*ASKED, "dialect"):
            if key in record:
                facts[key] = record[key]
        return facts


def collect_replies(
    replier: Replier,
    asking: Asking,
    *,
    title: str = "evaluating",
    log: ReplyLog | None = None,
    shard: Shard = WHOLE,
) -> list[Prediction]:
    """Ask the samples of a shard that `log` does not answer yet; return all replies there are, in order of the samples.

    Each batch is kept in the log, so that a run which was stopped goes on. Fewer replies than samples come back where
    other shards are not done. Raises DataError if the log's replies are of another model, data or protocol.
    """
    replies: dict[str, Prediction] = {}
    keep = None
    if log:
        replies = log.open({"weights": replier.weights_sum(), **asking.facts}, shard)
        keep = log.append

    unanswered = [sample for sample in shard.of(asking.samples) if sample.id not in replies]
    for reply in replier.reply(unanswered, asking.protocol, title=title, keep=keep):
        replies[reply.sample_id] = reply

    # Other shards may still be asking theirs.
    return [replies[sample.id] for sample in asking.samples if sample.id in replies]
