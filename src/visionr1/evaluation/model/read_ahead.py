"""The prompts of an evaluation, read and encoded ahead of the engine by worker processes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from visionr1.data.row_log import OnBad
from visionr1.errors import DataError
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.samples import Sample

_log = logging.getLogger(__name__)


class _Prompts(Dataset[Any]):
    """Map the place of a sample to its prompt, or to the error that it ended in."""

    def __init__(self, policy: Policy, samples: Sequence[Sample], template: str, image_alone: bool) -> None:
        self.policy = policy
        self.samples = samples
        self.template = template
        self.image_alone = image_alone

    def __getitem__(self, place: int) -> Prompt | DataError:
        sample = self.samples[place]
        try:
            prompt = self.policy.encode(sample.load_image(), sample.query, self.template)
        except DataError as error:
            # A DataLoader would wrap it in an error of its own; `read_prompts` says what becomes of it.
            return error
        return replace(prompt, inputs={}) if self.image_alone else prompt


def read_prompts(
    policy: Policy,
    samples: Sequence[Sample],
    *,
    template: str,
    on_bad: OnBad,
    workers: int,
    image_alone: bool,
) -> Iterator[Prompt | None]:
    """Yield the prompt of each sample in order; `workers` processes make two each ahead of what is taken.

    With `image_alone` prompts come without the vision tower's inputs, for engines that make those themselves: they take
    several times the image's memory. Raises DataError, which names the sample, if an image cannot be read or fed to the
    model; with `on_bad` "skip" such a sample is named in a warning and has None.
    """
    loader = DataLoader(
        _Prompts(policy, samples, template, image_alone),
        batch_size=None,  # an item is a prompt
        sampler=range(len(samples)),
        num_workers=min(workers, len(samples)),
        collate_fn=_identity,
        generator=torch.Generator(),  # else it would draw from the numbers that training goes on with
    )
    for sample, prompt in zip(samples, loader, strict=True):
        if not isinstance(prompt, DataError):
            yield prompt
            continue
        problem = describe_refused(sample, prompt)
        if on_bad == "raise":
            raise DataError(
                f"{problem}; replace it or leave it out, or go on without it: eval --on-bad skip, in a recipe "
                "eval.on_bad (docs/faq.md#one-image-ends-a-run)"
            ) from prompt
        _log.warning("%s; it is skipped, and has no reply", problem)
        yield None


def describe_refused(sample: Sample, error: DataError) -> str:
    """Name the sample and its file before what is wrong with it."""
    # Errors of reading name the file themselves.
    if isinstance(sample.image, Path) and str(sample.image) not in str(error):
        return f"sample {sample.id}: {sample.image}: {error}"
    return f"sample {sample.id}: {error}"


def _identity(item: Any) -> Any:
    """Leave a prompt as it is. A lambda could not be pickled for a worker."""
    return item
