"""Evaluation during training: the very prompts, replies and figures of `visionr1 eval`, on a held-out split.

Each row of evaluations.jsonl holds a step's figures and the protocol they depend on. Which step is the best, and
whether training should end, are read from those rows, so that a resumed run decides as the uninterrupted one did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from visionr1.data import data_path, read_dataset, resolve_reader
from visionr1.errors import DataError, naming
from visionr1.evaluation import Prediction, Protocol, Unit, ask, evaluate, read_protocol
from visionr1.evaluation.asking import evenly
from visionr1.evaluation.runner import Model
from visionr1.evaluation.settings import EvalSection
from visionr1.models.policy import Policy
from visionr1.rollout.engine import RolloutEngine
from visionr1.rollout.engines.builtin import generate
from visionr1.samples import Sample
from visionr1.training.distributed import gather
from visionr1.training.stream import share

LOG = "evaluations.jsonl"
EvaluationRow = Mapping[str, Any]
"""A row of evaluations.jsonl: the figures by name, beside the step and all they depend on."""


@dataclass(frozen=True, eq=False)
class RankedModel(Model):
    """A policy in every process: each rank asks its share of the samples, and all get all replies."""

    rank: int = 0
    world_size: int = 1

    def reply(
        self,
        samples: Sequence[Sample],
        protocol: Protocol,
        *,
        title: str,
        keep: Callable[[Sequence[Prediction]], None] | None,
    ) -> list[Prediction]:
        """Reply to the share of this rank, without a bar, then gather the replies of all."""
        return gather(self.ask(share(samples, self.rank, self.world_size), protocol, keep=keep))


@dataclass(frozen=True, slots=True)
class Validation:
    """A held-out set, asked by a protocol."""

    unit: Unit
    protocol: Protocol
    settings: EvalSection

    @classmethod
    def open(cls, settings: EvalSection) -> Validation:
        """Read what the recipe's eval table names; raises DataError or RecipeError if it cannot be read."""
        protocol = read_protocol(settings.protocol)
        with naming("eval"):
            dataset = read_dataset(
                data_path(settings.source),
                split=settings.split,
                on_bad=settings.on_bad,
                reader=resolve_reader(settings.reader),
                image_dir=settings.images,
            )
        samples = dataset.samples
        table = dataset.table

        # The same images at every evaluation, from the whole set.
        if 0 < settings.limit < len(samples):
            places = evenly(range(len(samples)), settings.limit)
            samples = tuple(samples[place] for place in places)
            table = table.take(places)

        # Crowd regions are no objects to find.
        if table.iscrowd.all():
            raise DataError(
                f"eval: the {len(table)} images of {settings.source} {settings.split} hold no box, and so "
                "no figure could tell which model is best; choose another eval.source or eval.split"
            )
        unit = Unit(name="eval", samples=samples, annotations=table)
        return cls(unit, protocol, settings)

    @property
    def asked(self) -> list[Sample]:
        """The samples as they are asked, one for each prompt."""
        return ask(self.unit.samples, self.protocol)

    def measure(
        self, policy: Policy, rank: int = 0, world_size: int = 1, engine: RolloutEngine = generate
    ) -> dict[str, Any]:
        """Return figures and protocol of the policy, for which `engine` answers; every rank asks its share."""
        model = RankedModel(
            policy,
            name="eval",
            max_new_tokens=self.settings.max_new_tokens or None,
            batch_size=self.settings.batch_size,
            on_bad=self.settings.on_bad,
            engine=engine,
            rank=rank,
            world_size=world_size,
        )

        # A row holds no intervals, so none are computed.
        result = evaluate(self.unit, model, protocol=self.protocol, num_resamples=0).result
        return {
            "source": self.settings.source,
            "split": self.settings.split,
            "images": len(self.unit.table),
            **result.metrics,
            "counts": dict(result.counts),
            "faults": dict(result.faults),
            "protocol": result.protocol.to_json(),
        }

    def is_best(self, rows: Sequence[EvaluationRow]) -> bool:
        """Say if the last row's figure is above all before it."""
        return self._best_index(rows) == len(rows) - 1

    def is_over(self, rows: Sequence[EvaluationRow]) -> bool:
        """Say if so many rows in a row are no better that training should end."""
        if not rows or self.settings.patience == 0:
            return False
        num_since_best = len(rows) - 1 - self._best_index(rows)
        return num_since_best >= self.settings.patience

    def _best_index(self, rows: Sequence[EvaluationRow]) -> int:
        """Return the index of the row with the highest figure, the first of equal ones."""
        figures = [row[self.settings.metric] for row in rows]
        return figures.index(max(figures))
