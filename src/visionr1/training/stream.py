"""The samples of each step: a function of the recipe and the step alone.

Nothing is remembered between steps, so a resumed run continues with the very samples that the
uninterrupted one would have seen, and any process can prepare any step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from visionr1.data import read_source, resolve_reader
from visionr1.data.augment import augment_sample
from visionr1.data.queries import one_category_each, take_half
from visionr1.data.scenes import SceneConfig, SceneStream
from visionr1.data.settings import DataSource
from visionr1.errors import CheckpointError
from visionr1.samples import Sample
from visionr1.training.recipe import Phase, Recipe

Item = TypeVar("Item")


def share(items: Sequence[Item], rank: int, world_size: int) -> Sequence[Item]:
    """Return the part of `items` that `rank` takes; the parts of all ranks follow each other in order."""
    start = len(items) * rank // world_size
    end = len(items) * (rank + 1) // world_size
    return items[start:end]


class Source(Protocol):
    """Samples by number, without end."""

    def __call__(self, number: int, seed: Sequence[int]) -> Sample:
        """Return sample `number` of the order that `seed` makes."""


@dataclass(frozen=True, slots=True)
class Shuffled:
    """A finite set, epoch after epoch, each in an order of its own."""

    samples: tuple[Sample, ...]

    def __call__(self, number: int, seed: Sequence[int]) -> Sample:
        epoch, place = divmod(number, len(self.samples))
        order = _permutation(len(self.samples), (*seed, epoch))
        return self.samples[int(order[place])]


@dataclass(frozen=True, slots=True)
class Stream:
    """The samples of one phase."""

    sources: tuple[Source, ...]
    shares: tuple[Fraction, ...]
    """Each source's share of the draws; exact, so that every rank counts alike."""
    batch_size: int
    seed: tuple[int, ...]
    num_samples: int | None
    """Samples of all sources together; None if one of them is endless."""
    contents: tuple[str, ...]
    """The description of each source (see `describe`), by which a resumed run recognises its data."""

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> list[Sample]:
        """Return the samples that `rank` takes of step `step` of the phase.

        Each source gives the samples that follow those it gave before, so that none comes twice in one of its epochs.
        Those of several sources are shuffled, in an order that the step makes.
        """
        first = step * self.batch_size
        end = first + self.batch_size
        if len(self.sources) == 1:
            numbers = share(range(first, end), rank, world_size)
            return [self.sources[0](number, self.seed) for number in numbers]

        # The whole batch, as pairs of a source's place and a number of its samples.
        pairs: list[tuple[int, int]] = []
        starts = count_draws(self.shares, first)
        ends = count_draws(self.shares, end)
        for place in range(len(self.sources)):
            for number in range(starts[place], ends[place]):
                pairs.append((place, number))

        # Every rank shuffles alike, then loads its own part alone.
        order = np.random.default_rng((*self.seed, step)).permutation(len(pairs)).tolist()
        shuffled = [pairs[i] for i in order]
        samples = []
        for place, number in share(shuffled, rank, world_size):
            source = self.sources[place]
            samples.append(source(number, (*self.seed, place)))
        return samples


def count_draws(shares: Sequence[Fraction], count: int) -> list[int]:
    """Return how many of a phase's first `count` draws each source has.

    Draw j of a source with share s is due at (j + 1/2) / s, and the earliest come first, so that every source is within
    a draw or two of its share at any time.
    """
    half = Fraction(1, 2)

    # So many draws earlier, at most `count` of them are due: those are certain.
    certain = max(0, count - len(shares))
    counts = [int(fraction * certain + half) for fraction in shares]

    # Add the one that is due next until there are enough.
    while sum(counts) < count:
        due = [(drawn + half) / fraction for drawn, fraction in zip(counts, shares, strict=True)]
        counts[due.index(min(due))] += 1
    return counts


def open_stream(phase: Phase, seed: tuple[int, ...]) -> Stream:
    """Open the sources of `phase`; raise DataError or RecipeError if one cannot be read."""
    sources = []
    contents = []
    num_samples = 0
    is_endless = False
    for data in phase.data:
        source = open_source(data)
        sources.append(with_reward(source, data))

        samples = _finite_samples(source)
        contents.append(describe(samples))
        if samples is None:
            is_endless = True
        else:
            num_samples += len(samples)

    # Exact fractions: the shares add up to one, and every rank counts alike.
    weights = [Fraction(data.weight) for data in phase.data]
    total = sum(weights)
    return Stream(
        sources=tuple(sources),
        shares=tuple(weight / total for weight in weights),
        batch_size=phase.batch_size,
        seed=seed,
        num_samples=None if is_endless else num_samples,
        contents=tuple(contents),
    )


def open_source(data: DataSource) -> Source:
    """Open the source that a recipe's data table names."""
    if data.source == "scenes":
        return Scenes(SceneConfig(**data.scenes))
    reader = resolve_reader(data.reader)
    read = read_source(data.source, split=data.split, reader=reader, image_dir=data.images)
    samples = take_half(read, data.half)
    if data.one_category:
        samples = one_category_each(samples)
    if data.limit:
        samples = samples[: data.limit]
    originals = Shuffled(tuple(samples))
    if data.augment:
        return Augmented(originals)
    return originals


def with_reward(source: Source, data: DataSource) -> Source:
    """Return `source`, its samples marked with the reward that the data table names, if it names one."""
    if data.reward is None:
        return source
    return Rewarded(source, data.reward.key)


@dataclass(frozen=True, slots=True)
class Rewarded:
    """A source whose samples have a reward of their own."""

    source: Source
    reward: str
    """The key of the reward, as in `Sample`."""

    def __call__(self, number: int, seed: Sequence[int]) -> Sample:
        return replace(self.source(number, seed), reward=self.reward)


@dataclass(frozen=True, slots=True)
class Augmented:
    """Random views of a finite set's samples; see `visionr1.data.augment`."""

    originals: Shuffled

    def __call__(self, number: int, seed: Sequence[int]) -> Sample:
        sample = self.originals(number, seed)
        random = np.random.default_rng((*seed, number))  # another view in each epoch
        return augment_sample(sample, sample.load_image(), random)


@dataclass(frozen=True, slots=True)
class Scenes:
    """Synthetic scenes."""

    config: SceneConfig

    def __call__(self, number: int, seed: Sequence[int]) -> Sample:
        return SceneStream(tuple(seed), self.config)[number]


def describe(samples: Sequence[Sample] | None) -> str:
    """Describe a source by the number of its samples and a checksum over their ids, sizes, queries and boxes.

    Images are left out: to read them all would hold up the start of a run.
    """
    if samples is None:
        return "endless"

    checksum = 0
    for sample in samples:
        truth = sample.truth
        fields = (sample.id, sample.size_wh, sample.query, truth.labels, truth.xyxy.tolist())
        checksum = crc32(repr(fields).encode(), checksum)
    return f"{len(samples)} samples with checksum {checksum:08x}"


def describe_data(recipe: Recipe, streams: Sequence[Stream], asked: Sequence[Sample] | None) -> dict[str, str]:
    """Describe what each source of a run holds, by its place in the recipe; `asked` is what evaluations ask."""
    contents = {}
    for phase_index, phase in enumerate(recipe.phases):
        for place, data in enumerate(phase.data):
            name = f"phase.{phase_index}.data.{place} ({data.source})"
            contents[name] = streams[phase_index].contents[place]
    if asked is not None:
        contents[f"eval ({recipe.eval.source})"] = describe(asked)
    return contents


def check_data_unchanged(before: Mapping[str, str], now: Mapping[str, str], checkpoint: Path) -> None:
    """Raise CheckpointError if a source is not what it was when the checkpoint was written."""
    for name, contents in now.items():
        if contents != before.get(name):
            raise CheckpointError(
                f"{name} has changed since {checkpoint} was written: it held {before.get(name)}, now {contents}; put "
                "the data back as they were or start a new run; to go on without single samples, leave the data as "
                "they are and name them in data.leave_out (docs/faq.md#one-image-ends-a-run)"
            )


def _finite_samples(source: Source) -> Sequence[Sample] | None:
    """Return the samples of a finite source, None of an endless one."""
    if isinstance(source, Augmented):
        return source.originals.samples
    if isinstance(source, Shuffled):
        return source.samples
    return None


@lru_cache(maxsize=8)
def _permutation(length: int, seed: tuple[int, ...]) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(length)
