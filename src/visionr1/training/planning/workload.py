"""The samples that a plan counts with: sizes of images, lengths of prompts and of replies, from the recipe's data."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from visionr1.errors import DataError
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.samples import Boxes, Query, Sample
from visionr1.training import sft
from visionr1.training.learners import encode
from visionr1.training.recipe import Recipe
from visionr1.training.schedule import UNLIMITED, num_steps
from visionr1.training.stream import open_stream

NUM_SAMPLES = 32
"""Samples that are read, of all phases together."""
ASSUMED_QUERY = Query("detection", ("person", "car", "dog"))
ASSUMED_BOXES = 5
"""Boxes in the reply about an image that is assumed."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What goes through the model: the largest sample, for memory, and the mean one, for time."""

    prompt: Prompt
    """That of the largest sample."""
    samples: tuple[Sample, ...]
    """Those that were read."""
    mean_prompt: float
    """Tokens of a prompt."""
    largest_image: int
    """Image tokens in the largest prompt."""
    mean_image: float
    longest_truth: int
    """Tokens of a true reply."""
    mean_truth: float
    pixels_ratio: float
    """What the vision tower takes of a mean image, over that of the largest."""
    seconds_per_sample: float
    """To read and encode an image."""
    num_steps: int | None
    """Of the whole run; None where time alone ends it."""
    assumptions: tuple[str, ...]


def read_workload(policy: Policy, recipe: Recipe) -> Workload:
    """Read some samples of the recipe's data, evenly over its phases; DataError if they cannot be read."""
    samples: list[Sample] = []
    total: int | None = 0
    for index, phase in enumerate(recipe.phases):
        stream = open_stream(phase, (recipe.seed, index))
        steps = num_steps(phase, stream)
        total = None if total is None or steps == UNLIMITED else total + steps

        wanted = max(1, NUM_SAMPLES // len(recipe.phases))
        step = 0
        drawn: list[Sample] = []
        while len(drawn) < wanted:
            drawn.extend(stream.batch(step))
            step += 1
        samples.extend(drawn[:wanted])
    read = f"{len(samples)} samples of the data were read; the largest counts for memory, their mean for time"
    return _measure(policy, recipe, samples, total, (read,))


def assume_workload(policy: Policy, recipe: Recipe, size_wh: tuple[int, int]) -> Workload:
    """Count with images of one size in place of the recipe's data, which need not be there."""
    width, height = size_wh
    # Boxes side by side, each label in turn.
    corners = np.array([[20 * place, 10, 20 * place + 10, 20] for place in range(ASSUMED_BOXES)], dtype=np.float64)
    labels = tuple(ASSUMED_QUERY.categories[place % 3] for place in range(ASSUMED_BOXES))
    sample = Sample(
        id="assumed",
        image_id=0,
        image=Image.new("RGB", size_wh),
        size_wh=size_wh,
        query=ASSUMED_QUERY,
        truth=Boxes(corners, labels),
    )
    steps = [phase.steps for phase in recipe.phases]
    assumption = f"every image has {width}x{height} pixels (--image) and {ASSUMED_BOXES} boxes; no data were read"
    return _measure(policy, recipe, [sample], sum(steps) if all(steps) else None, (assumption,))


def _measure(
    policy: Policy, recipe: Recipe, samples: Sequence[Sample], num_steps: int | None, assumptions: tuple[str, ...]
) -> Workload:
    """Encode samples and take their sizes."""
    began = time.perf_counter()
    prompts = []
    problem = None
    kept: list[Sample] = []
    for sample in samples:
        # A run may leave such samples out; where it may not, it ends at the first one and says why.
        try:
            prompts.append(encode(policy, sample))
            kept.append(sample)
        except DataError as error:
            problem = error
    if problem is not None and not prompts:
        raise problem
    seconds = (time.perf_counter() - began) / len(samples)

    truths = [len(sft.target(policy, sample, prompt, recipe.sft)) for sample, prompt in zip(kept, prompts, strict=True)]
    lengths = [len(prompt.input_ids) for prompt in prompts]
    images = [_num_image_tokens(policy, prompt) for prompt in prompts]
    values = [sum(value.numel() for value in prompt.inputs.values() if value.is_floating_point()) for prompt in prompts]
    largest = max(range(len(prompts)), key=lambda place: (lengths[place], values[place]))
    return Workload(
        prompt=prompts[largest],
        samples=tuple(kept),
        mean_prompt=sum(lengths) / len(lengths),
        largest_image=images[largest],
        mean_image=sum(images) / len(images),
        longest_truth=max(truths),
        mean_truth=sum(truths) / len(truths),
        pixels_ratio=sum(values) / len(values) / max(1, values[largest]),
        seconds_per_sample=seconds,
        num_steps=num_steps,
        assumptions=assumptions,
    )


def _num_image_tokens(policy: Policy, prompt: Prompt) -> int:
    """Return how many of a prompt's tokens stand for its image."""
    config = policy.config
    token = getattr(config, "image_token_id", None)
    if token is None:
        token = getattr(config, "image_token_index", None)
    return int((prompt.input_ids == token).sum()) if isinstance(token, int) else 0
