"""Asking: the samples of a set as the prompts of a protocol, and the replies to them, kept as they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
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
    return [items[place] for place in np.linspace(0, len(items) - 1, limit).round().astype(int).tolist()]


def ask(samples: Sequence[Sample], protocol: Protocol) -> list[Sample]:
    """Return detection samples as the queries of a protocol, one sample for each prompt.

    A prompt names all categories or one, of those that are all, present or every. Samples that ask for an expression
    stay as they are.
    """
    asked = list(samples)
    if "categories" not in protocol.uses:
        return asked
    if protocol.limit:
        images = [sample.image_id if sample.image_id != "" else sample.id for sample in asked]
        kept = set(evenly(list(dict.fromkeys(images)), protocol.limit))
        asked = [sample for sample, image in zip(asked, images, strict=True) if image in kept]
    if protocol.categories == "present":
        asked = present_categories(asked, num_negatives=protocol.num_negatives)
    if protocol.categories == "every":
        names = tuple(dict.fromkeys(chain.from_iterable(sample.query.categories for sample in samples)))
        asked = [replace(sample, query=replace(sample.query, categories=names)) for sample in asked]
    if protocol.prompt == "per_category":
        asked = one_category_each(asked)
    return asked


class Replier(Interface):
    """What replies to prompts; `runner.Model` is a policy in one process."""

    @property
    def name(self) -> str:
        """The model as the user names it."""
        ...

    @property
    def dialect(self) -> Dialect:
        """How its replies write boxes."""
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
        record = self.protocol.to_json()
        prompts = repr([(sample.id, sample.query, sample.size_wh) for sample in self.samples])
        facts = {"samples": len(self.samples), "prompts": crc32(prompts.encode())}
        return facts | {key: record[key] for key in (*ASKED, "dialect") if key in record}


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
    if log:
        replies = log.open({"weights": replier.weights_sum(), **asking.facts}, shard)
    unanswered = [sample for sample in shard.of(asking.samples) if sample.id not in replies]

    keep = log.append if log else None
    for reply in replier.reply(unanswered, asking.protocol, title=title, keep=keep):
        replies[reply.sample_id] = reply
    return [replies[sample.id] for sample in asking.samples if sample.id in replies]
