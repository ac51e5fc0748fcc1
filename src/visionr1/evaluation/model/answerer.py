"""A model that is asked: its policy, and the rollout engine that answers for it.

The built-in engine runs the policy's own weights. Others are opened as for training (`rollout.engines`). One that reads
the model folder itself (vLLM) gets a policy without weights, so that a device holds the model once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from visionr1.errors import RecipeError
from visionr1.models.adapters import is_adapter_folder
from visionr1.models.folder.files import read_weights
from visionr1.models.loading import check_device, load_encoder, load_policy, model_folder
from visionr1.models.memory.quantization import stored_weights
from visionr1.models.policy import Policy
from visionr1.models.settings import ModelSection
from visionr1.models.weights import check_finite, weights_checksum
from visionr1.rollout.engine import RolloutEngine, StreamingEngine
from visionr1.rollout.engines import ENGINES, TRAINING_ALONE, answering_engines, needs_weights
from visionr1.rollout.engines.builtin import generate
from visionr1.rollout.settings import RolloutSection

BUILTIN = "builtin"
MEMORY = {"cpu": 0.3, "cuda": 0.9}
"""Share of a device's memory for an engine that has it to itself; a CPU's is that of the whole machine."""
MOST_READERS = 4
"""Processes that read images ahead of an engine which answers many at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Answerer:
    """A policy with the engine that samples its replies."""

    policy: Policy
    engine: RolloutEngine = generate
    name: str = BUILTIN
    """The engine's, as the user gave it."""
    checksum: int | None = None
    """That of weights which were handed over to the engine, and which the policy has no more."""

    @property
    def label(self) -> str:
        """The engine's name and version as far as it says it; empty for the built-in one, which is this package's."""
        if isinstance(self.engine, StreamingEngine):
            return self.engine.label
        return "" if self.name == BUILTIN else self.name

    @property
    def dtype(self) -> str:
        """Precision of the weights that answer."""
        if isinstance(self.engine, StreamingEngine):
            return self.engine.dtype
        return str(self.policy.model.dtype).removeprefix("torch.")

    @property
    def workers(self) -> int:
        """The processes that read images ahead, unless told otherwise."""
        if not isinstance(self.engine, StreamingEngine):
            return 0
        return min(MOST_READERS, os.cpu_count() or 1)

    def weights_sum(self) -> int:
        """Return a checksum of the weights: other weights give another."""
        if self.checksum is not None:
            return self.checksum
        if self.policy.has_weights:
            return weights_checksum(weight for _, weight in stored_weights(self.policy.model))
        return weights_checksum(weight for _, weight in read_weights(Path(self.policy.model.name_or_path)))


def open_answerer(
    source: str | Path,
    *,
    engine: str = BUILTIN,
    device: str = "cpu",
    dtype: str = "float32",
    dialect: str | None = None,
) -> Answerer:
    """Return the model in folder `source` with an `engine` that is opened for it: a name, or module:object.

    Raises RecipeError for an unknown engine, and what loading a policy and opening the engine raise.
    """
    if engine == BUILTIN:
        return Answerer(load_policy(source, device=device, dtype=dtype, dialect=dialect))

    if engine in TRAINING_ALONE:
        known = ", ".join(answering_engines())
        raise RecipeError(f"--engine: expected one of {known}, or module:object, found {engine}, which is for training")
    opener = ENGINES.resolve(engine)
    check_device(device)
    model = ModelSection.model_validate({"path": str(source), "device": device, "dtype": dtype})
    rollout = RolloutSection(engine=engine, vllm_memory=MEMORY.get(device.partition(":")[0], 0.9))
    if needs_weights(opener):
        policy = load_policy(source, device=device, dtype=dtype, dialect=dialect)
        return Answerer(policy, opener(policy, model, rollout), engine)

    encoder = load_encoder(source, dtype=dtype, dialect=dialect)
    folder = Path(encoder.model.name_or_path)
    check_finite(_floats(folder), folder)
    opened: RolloutEngine = opener(encoder, model, rollout)
    if not is_adapter_folder(model_folder(source)):
        return Answerer(encoder, opened, engine)

    # It has read the base alone: it gets the weights with the adapters in them, by way of main memory.
    if not isinstance(opened, StreamingEngine):
        raise RecipeError(f"engine {engine}: expected a whole model, found adapters in {source}; merge them first")
    whole = load_policy(source, dtype=dtype, dialect=dialect)
    opened.load(whole)
    return Answerer(encoder, opened, engine, weights_checksum(weight for _, weight in stored_weights(whole.model)))


def _floats(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights in `folder` but quantized ones, which are no numbers by themselves."""
    for name, weight in read_weights(folder):
        if weight.is_floating_point() and weight.element_size() > 1:
            yield name, weight
