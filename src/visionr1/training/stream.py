"""The samples of each step: a function of the recipe and the step alone.

Nothing is remembered between steps, so a resumed run continues with the very samples that the
uninterrupted one would have seen, and any process can prepare any step. That holds for samples that are skipped too:
which one takes the place of another is a function of the order alone.
"""

import logging
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
from visionr1.errors import CheckpointError, DataError, naming
from visionr1.samples import Sample
from visionr1.training.recipe import Phase, Recipe

Item = TypeVar("Item")

_log = logging.getLogger(__name__)


def share(items: Sequence[Item], rank: int, world_size: int) -> Sequence[Item]:
    """Return the part of `items` that `rank` takes; the parts of all ranks follow each other in order."""
    start = len(items) * rank // world_size
    end = len(items) * (rank + 1) // world_size
    return items[start:end]


class Source(Protocol):
    """Samples by number, without end."""

    def __call__(self, number: int, seed: Sequence[int], attempt: int = 0) -> Sample:
        """Return sample `number` of the order that `seed` makes.

        `attempt` counts the samples before it that could not be used: the one that takes their place is returned.
        """

    def pick(self, number: int, seed: Sequence[int], attempt: int = 0) -> Sample:
        """Return the same sample, but as it lies in the data: no image is read for it."""


@dataclass(frozen=True, slots=True)
class Shuffled:
    """A finite set, epoch after epoch, each in an order of its own.

    A sample at one of the places `left_out` gives its draw to the next one of the order: no other draw changes.
    """

    samples: tuple[Sample, ...]
    left_out: frozenset[int] = frozenset()

    def __call__(self, number: int, seed: Sequence[int], attempt: int = 0) -> Sample:
        return self.pick(number, seed, attempt)

    def pick(self, number: int, seed: Sequence[int], attempt: int = 0) -> Sample:
        length = len(self.samples)
        epoch, place = divmod(number, length)
        order = _permutation(length, (*seed, epoch))
        if not self.left_out:
            return self.samples[int(order[(place + attempt) % length])]

        # The order from this place on, round and round, without what is left out.
        usable: list[int] = [index for index in np.roll(order, -place).tolist() if index not in self.left_out]
        return self.samples[usable[attempt % len(usable)]]


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample of a batch, which is read when it is needed.

    `num_usable` is the number of samples that may be tried, one after the other, until one can be used; 0 where one
    that cannot is an error.
    """

    source: Source
    number: int
    seed: tuple[int, ...]
    num_usable: int = 0

    def sample(self, attempt: int = 0) -> Sample:
        """Return the sample, or the one that takes its place after `attempt` others could not be used."""
        return self.source(self.number, self.seed, attempt)

    def name(self, attempt: int = 0) -> str:
        """Return the id of the sample that `sample` returns, which may be one that it cannot read."""
        return self.source.pick(self.number, self.seed, attempt).id


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
    num_usable: tuple[int, ...] = ()
    """Of each source, the samples that may take the place of one that cannot be used; 0 where such a sample is an
    error. Without any, it is an error in all of them."""

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> list[Sample]:
        """Return the samples that `rank` takes of step `step` of the phase, as they are drawn first."""
        return [draw.sample() for draw in self.draws(step, rank, world_size)]

    def draws(self, step: int, rank: int = 0, world_size: int = 1) -> list[Draw]:
        """Return the draws that `rank` takes of step `step` of the phase.

        Each source gives the samples that follow those it gave before, so that none comes twice in one of its epochs.
        Those of several sources are shuffled, in an order that the step makes.
        """
        first = step * self.batch_size
        end = first + self.batch_size
        if len(self.sources) == 1:
            numbers = share(range(first, end), rank, world_size)
            return [self._draw(0, number, self.seed) for number in numbers]

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
        draws = []
        for place, number in share(shuffled, rank, world_size):
            draws.append(self._draw(place, number, (*self.seed, place)))
        return draws

    def _draw(self, place: int, number: int, seed: tuple[int, ...]) -> Draw:
        num_usable = self.num_usable[place] if self.num_usable else 0
        return Draw(self.sources[place], number, seed, num_usable)


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
    num_usable = []
    num_samples = 0
    is_endless = False
    for data in phase.data:
        source = open_source(data)
        sources.append(with_reward(source, data))

        # A description is of all samples: those that are left out are none of its business.
        finite = _finite_set(source)
        contents.append(describe(finite.samples if finite else None))
        num_usable.append(0)
        if finite is None:
            is_endless = True
        else:
            num_samples += len(finite.samples)
            if data.on_bad == "skip":
                num_usable[-1] = len(finite.samples) - len(finite.left_out)

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
        num_usable=tuple(num_usable),
    )


def open_source(data: DataSource) -> Source:
    """Open the source that a recipe's data table names."""
    if data.source == "scenes":
        return Scenes(SceneConfig(**data.scenes))
    reader = resolve_reader(data.reader)
    read = read_source(
        data.source,
        split=data.split,
        on_bad=data.on_bad,
        reader=reader,
        image_dir=data.images,
        notify=lambda line: _log.warning("%s: %s", data.source, line),
    )
    samples = take_half(read, data.half)
    if data.one_category:
        samples = one_category_each(samples)
    if data.limit:
        samples = samples[: data.limit]
    originals = Shuffled(tuple(samples), find_left_out(data, samples))
    if data.augment:
        return Augmented(originals)
    return originals


def find_left_out(data: DataSource, samples: Sequence[Sample]) -> frozenset[int]:
    """Return the places of the samples that `data.leave_out` names; DataError if there is none of a name, or no other.

    An id of several samples, such as the turns of one row, or of an image that is asked more than once, names all of
    them.
    """
    named = set(data.leave_out)
    unknown = set(named)
    left_out = set()
    for place, sample in enumerate(samples):
        ids = named & {sample.id, str(sample.image_key)}
        if ids:
            left_out.add(place)
            unknown -= ids
    if unknown:
        raise DataError(
            f"data.leave_out: {data.source} has no sample {min(unknown)!r}; expected ids as messages name them, "
            f"such as {samples[0].id!r}"
        )
    if len(left_out) == len(samples):
        raise DataError(f"data.leave_out: no sample of {data.source} is left")
    return frozenset(left_out)


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

    def __call__(self, number: int, seed: Sequence[int], attempt: int = 0) -> Sample:
        return replace(self.source(number, seed, attempt), reward=self.reward)

    def pick(self, number: int, seed: Sequence[int], attempt: int = 0) -> Sample:
        return replace(self.source.pick(number, seed, attempt), reward=self.reward)


@dataclass(frozen=True, slots=True)
class Augmented:
    """Random views of a finite set's samples; see `visionr1.data.augment`."""

    originals: Shuffled

    def __call__(self, number: int, seed: Sequence[int], attempt: int = 0) -> Sample:
        sample = self.originals(number, seed, attempt)
        with naming(f"sample {sample.id}"):
            image = sample.load_image()
        random = np.random.default_rng((*seed, number))  # another view in each epoch
        return augment_sample(sample, image, random)

    def pick(self, number: int, seed: Sequence[int], attempt: int = 0) -> Sample:
        return self.originals.pick(number, seed, attempt)


@dataclass(frozen=True, slots=True)
class Scenes:
    """Synthetic scenes."""

    config: SceneConfig

    def __call__(self, number: int, seed: Sequence[int], attempt: int = 0) -> Sample:
        return self.pick(number, seed, attempt)

    def pick(self, number: int, seed: Sequence[int], attempt: int = 0) -> Sample:
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


def _finite_set(source: Source) -> Shuffled | None:
    """Return the set that a finite source draws from, None of an endless one."""
    if isinstance(source, Augmented):
        return source.originals
    if isinstance(source, Shuffled):
        return source
    return None


@lru_cache(maxsize=8)
def _permutation(length: int, seed: tuple[int, ...]) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(length)
