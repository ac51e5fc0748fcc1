"""Which samples a step sees: a function of the recipe and the step alone.

Nothing is remembered between steps, so a resumed run continues with the very samples that the
uninterrupted one would have seen, and any process can prepare any step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Protocol, TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from visionr1.data.augment import augmented
from visionr1.data.scenes import SceneConfig, SceneStream
from visionr1.data.settings import DataSource
from visionr1.samples import Sample
from visionr1.training.recipe import Phase

Item = TypeVar("Item")


def share(items: Sequence[Item], index: int, count: int) -> Sequence[Item]:
    """The part of `items` that process `index` of `count` takes; the parts follow each other in order."""
    return items[len(items) * index // count : len(items) * (index + 1) // count]


class Source(Protocol):
    """Samples by number, without end."""

    def __call__(self, number: int, seed: Sequence[int]) -> Sample:
        """Sample `number` of the order that `seed` makes."""


@dataclass(frozen=True, slots=True)
class Shuffled:
    """A finite set, epoch after epoch, each in an order of its own."""

    samples: tuple[Sample, ...]

    def __call__(self, number: int, seed: Sequence[int]) -> Sample:
        epoch, place = divmod(number, len(self.samples))
        return self.samples[int(_permutation(len(self.samples), (*seed, epoch))[place])]


@dataclass(frozen=True, slots=True)
class Stream:
    """The samples of one phase."""

    sources: tuple[Source, ...]
    shares: tuple[Fraction, ...]
    """Of the draws, each source's; exact, so that every process counts alike."""
    batch_size: int
    seed: tuple[int, ...]
    num_samples: int | None
    """Of all finite sources together; None if there is an endless one."""
    contents: tuple[str, ...]
    """Of each source, what `describe` says, by which a resumed run knows its data again."""

    def batch(self, step: int, index: int = 0, count: int = 1) -> list[Sample]:
        """The samples that process `index` of `count` takes of step `step` of the phase: of each source those that
        follow the ones it gave before, so that none comes twice in an epoch of its own, all in an order of the step."""
        first, end = step * self.batch_size, (step + 1) * self.batch_size
        if len(self.sources) == 1:
            return [self.sources[0](number, self.seed) for number in share(range(first, end), index, count)]
        ranges = map(range, draws(self.shares, first), draws(self.shares, end))
        drawn = [(k, number) for k, numbers in enumerate(ranges) for number in numbers]
        order = np.random.default_rng((*self.seed, step)).permutation(len(drawn)).tolist()
        own = share([drawn[i] for i in order], index, count)
        return [self.sources[k](number, (*self.seed, k)) for k, number in own]


def draws(shares: Sequence[Fraction], count: int) -> list[int]:
    """How many of a phase's first `count` draws are of each source: draw j of share s is due at (j + 1/2) / s, and the
    earliest come first, so that every source is within a draw or two of its share at any time."""
    sure = max(0, count - len(shares))  # by then at most `count` are due
    done = [int(s * sure + Fraction(1, 2)) for s in shares]
    while sum(done) < count:
        done[min(range(len(shares)), key=lambda k: (done[k] + Fraction(1, 2)) / shares[k])] += 1
    return done


def open_stream(phase: Phase, seed: tuple[int, ...]) -> Stream:
    """The stream of `phase`; raises DataError or RecipeError if a source cannot be read."""
    weights = [Fraction(data.weight) for data in phase.data]
    opened = [open_source(data) for data in phase.data]
    finite = [samples for samples in map(_samples, opened) if samples is not None]
    return Stream(
        sources=tuple(map(with_reward, opened, phase.data)),
        shares=tuple(weight / sum(weights) for weight in weights),
        batch_size=phase.batch_size,
        seed=seed,
        num_samples=sum(map(len, finite)) if len(finite) == len(opened) else None,
        contents=tuple(map(describe, map(_samples, opened))),
    )


def open_source(data: DataSource) -> Source:
    """The source that a recipe's data table names."""
    if data.source == "scenes":
        return Scenes(SceneConfig(**data.scenes))
    from visionr1.data import read_source, resolve_reader

    samples = read_source(data.source, split=data.split, reader=resolve_reader(data.reader))
    originals = Shuffled(tuple(samples[: data.limit] if data.limit else samples))
    return Augmented(originals) if data.augment else originals


def with_reward(source: Source, data: DataSource) -> Source:
    """Return `source`, its samples marked with the reward that the data table names, if it names one."""
    return source if data.reward is None else Rewarded(source, data.reward.key)


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
        return augmented(sample, sample.load_image(), np.random.default_rng((*seed, number)))


@dataclass(frozen=True, slots=True)
class Scenes:
    """Synthetic scenes."""

    config: SceneConfig

    def __call__(self, number: int, seed: Sequence[int]) -> Sample:
        return SceneStream(tuple(seed), self.config)[number]


def describe(samples: Sequence[Sample] | None) -> str:
    """How many samples there are, and a checksum over their ids, sizes, queries and boxes (not their images)."""
    if samples is None:
        return "endless"
    checksum = 0
    for sample in samples:
        facts = (sample.id, sample.size_wh, sample.query, sample.truth.labels, sample.truth.xyxy.tolist())
        checksum = crc32(repr(facts).encode(), checksum)
    return f"{len(samples)} samples with checksum {checksum:08x}"


def _samples(source: Source) -> Sequence[Sample] | None:
    """Those of a finite source."""
    if isinstance(source, Augmented):
        return source.originals.samples
    return source.samples if isinstance(source, Shuffled) else None


@lru_cache(maxsize=8)
def _permutation(length: int, seed: tuple[int, ...]) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(length)
