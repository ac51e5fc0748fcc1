"""The samples of each step, prepared ahead of the model by worker processes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset

from visionr1.errors import DataError, VisionR1Error
from visionr1.training.learners import Learner
from visionr1.training.stream import Draw, Stream


@dataclass(frozen=True, slots=True)
class Skipped:
    """A sample that could not be used, in whose place another one was drawn."""

    sample_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """This rank's samples of a step: their ids, what the learner prepared of them, and what was skipped for them."""

    sample_ids: list[str]
    prepared: Any
    skipped: list[Skipped]


class _Steps(Dataset[Any]):
    """Map a step's number to this rank's batch, or to the error that it ended in."""

    def __init__(self, learner: Learner, stream: Stream, rank: int, world_size: int) -> None:
        self.learner = learner
        self.stream = stream
        self.rank = rank
        self.world_size = world_size

    def __getitem__(self, step: int) -> Batch | VisionR1Error:
        ids: list[str] = []
        encoded: list[Any] = []
        skipped: list[Skipped] = []
        try:
            for draw in self.stream.draws(step, self.rank, self.world_size):
                sample_id, encoded_sample = self._encode_first_usable(draw, skipped)
                ids.append(sample_id)
                encoded.append(encoded_sample)
            return Batch(ids, self.learner.assemble(encoded), skipped)
        except VisionR1Error as error:
            # A DataLoader would wrap it in an error of its own; it is raised in `prepared_batches`.
            return error

    def _encode_first_usable(self, draw: Draw, skipped: list[Skipped]) -> tuple[str, Any]:
        """Encode the sample of a draw or, where its source skips bad ones, the first usable one after it."""
        for attempt in range(max(1, draw.num_usable)):
            try:
                sample = draw.sample(attempt)
                return sample.id, self.learner.encode(sample)
            except DataError as error:
                if draw.num_usable == 0:
                    raise DataError(
                        f"{error}; replace it or, of data in files, go on without it: "
                        "--resume --set data.0.on_bad=skip (docs/faq.md#one-image-ends-a-run)"
                    ) from error
                skipped.append(Skipped(draw.name(attempt), str(error)))
        raise DataError(f"none of {draw.num_usable} samples can be used; {skipped[-1].reason}")


def prepared_batches(
    learner: Learner, stream: Stream, steps: range, *, rank: int, world_size: int, workers: int
) -> Iterator[Batch]:
    """Yield this rank's batch of each of `steps`, made ahead by `workers` processes."""
    loader = DataLoader(
        _Steps(learner, stream, rank, world_size),
        batch_size=None,  # an item is a whole step
        sampler=steps,
        num_workers=workers,
        collate_fn=_identity,
    )
    for batch in loader:
        if isinstance(batch, VisionR1Error):
            raise batch
        yield batch


def _identity(item: Any) -> Any:
    """Leave a step as it is: torch would make tensors of its numbers. A lambda could not be pickled for a worker."""
    return item
