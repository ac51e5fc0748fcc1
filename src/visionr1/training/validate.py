"""Evaluation during training: the very prompts, replies and figures of `visionr1 eval`, on a held-out split.

Each row of evaluations.jsonl holds a step's figures and the protocol they depend on. Which step is the best, and
whether training should end, are read from those rows, so that a resumed run decides as the uninterrupted one did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from visionr1.data import data_path, read_dataset
from visionr1.data.table import BoxTable
from visionr1.errors import DataError, naming
from visionr1.evaluation import Protocol, ask, evaluate_detection, read_protocol
from visionr1.evaluation.asking import evenly
from visionr1.evaluation.runner import MAX_NEW_TOKENS, predict_samples, stated
from visionr1.evaluation.settings import EvalSection
from visionr1.models.policy import Policy
from visionr1.samples import Sample
from visionr1.training.distributed import gather
from visionr1.training.stream import share

LOG = "evaluations.jsonl"
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Validation:
    """A held-out set, asked by a protocol."""

    asked: Sequence[Sample]
    table: BoxTable
    protocol: Protocol
    settings: EvalSection

    @classmethod
    def open(cls, settings: EvalSection) -> Validation:
        """What the recipe's eval table names; raises DataError or RecipeError if it cannot be read."""
        protocol = read_protocol(settings.protocol)
        tokens = settings.max_new_tokens or protocol.max_new_tokens or MAX_NEW_TOKENS
        protocol = replace(protocol, max_new_tokens=tokens)
        with naming("eval"):
            dataset = read_dataset(data_path(settings.source), split=settings.split)
        samples, table = list(dataset.samples), dataset.table
        if 0 < settings.limit < len(samples):
            places = evenly(range(len(samples)), settings.limit)
            samples, table = [samples[place] for place in places], table.take(places)
        if table.iscrowd.all():
            raise DataError(
                f"eval: the {len(table)} images of {settings.source} {settings.split} hold no box, and so "
                "no figure could tell which model is best; choose another eval.source or eval.split"
            )
        return cls(ask(samples, protocol), table, protocol, settings)

    def measure(self, policy: Policy, index: int = 0, count: int = 1) -> dict[str, Any]:
        """Figures and protocol of the policy as it is; process `index` of `count` asks its share of the images."""
        assert self.protocol.max_new_tokens
        own = predict_samples(
            policy,
            share(self.asked, index, count),
            max_new_tokens=self.protocol.max_new_tokens,
            batch_size=self.settings.batch_size,
            template=self.protocol.template,
        )
        result = evaluate_detection(
            self.asked,
            gather(own),
            dialect=policy.dialect,
            protocol=replace(self.protocol, **stated(policy)),
            table=self.table,
            num_resamples=0,
        )
        return {
            "source": self.settings.source,
            "split": self.settings.split,
            "images": len(self.table),
            **result.metrics,
            "counts": dict(result.counts),
            "faults": dict(result.faults),
            "protocol": result.protocol.to_json(),
        }

    def is_best(self, rows: Sequence[Row]) -> bool:
        """Whether the last row's figure is above all before it."""
        return self._best(rows) == len(rows) - 1

    def is_over(self, rows: Sequence[Row]) -> bool:
        """Whether so many rows in a row are no better that training should end."""
        return bool(rows) and 0 < self.settings.patience <= len(rows) - 1 - self._best(rows)

    def _best(self, rows: Sequence[Row]) -> int:
        figures = [row[self.settings.metric] for row in rows]
        return figures.index(max(figures))
