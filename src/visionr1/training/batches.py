"""The samples of each step, prepared ahead of the model by worker processes."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from visionr1.errors import VisionR1Error
from visionr1.training.learners import Learner
from visionr1.training.stream import Stream


class _Steps(Dataset[Any]):
    """Map a step's number to this rank's sample ids and what the learner prepared of the samples."""

    def __init__(self, learner: Learner, stream: Stream, rank: int, world_size: int) -> None:
        self.learner = learner
        self.stream = stream
        self.rank = rank
        self.world_size = world_size

    def __getitem__(self, step: int) -> tuple[list[str], Any]:
        samples = self.stream.batch(step, self.rank, self.world_size)
        try:
            return [sample.id for sample in samples], self.learner.prepare(samples)
        except VisionR1Error as error:
            # A DataLoader would wrap it in an error of its own; it is raised in `prepared_batches`.
            return [], error


def prepared_batches(
    learner: Learner, stream: Stream, steps: range, *, rank: int, world_size: int, workers: int
) -> Iterator[tuple[list[str], Any]]:
    """Yield sample ids and prepared samples of this rank for each of `steps`, made ahead by `workers` processes."""
    loader = DataLoader(
        _Steps(learner, stream, rank, world_size),
        batch_size=None,  # an item is a whole step
        sampler=steps,
        num_workers=workers,
        collate_fn=_identity,
    )
    for ids, prepared in loader:
        if isinstance(prepared, VisionR1Error):
            raise prepared
        yield ids, prepared


def _identity(item: Any) -> Any:
    """Leave a step as it is: torch would make tensors of its numbers. A lambda could not be pickled for a worker."""
    return item
