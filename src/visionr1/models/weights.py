"""All weights of a model together: their checksum, those that are not finite, and what shards make up.

By the checksum a folder of adapters, a checkpoint and a log of replies know their model again.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from visionr1.errors import CheckpointError

_WORD = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers as wide as a weight, by its bytes."""
MAX_NAMED = 3
"""So many tensors are named in a message."""


def full_tensor(tensor: Tensor) -> Tensor:
    """All-gather a tensor from its shards; all ranks must call it."""
    if isinstance(tensor, DTensor):
        return tensor.full_tensor()
    return tensor


@torch.no_grad()
def weights_checksum(weights: Iterable[Tensor]) -> int:
    """Return the sum of the bits of all `weights`, read as integers: the same on every device and in any order."""
    total = 0
    for weight in weights:
        words = weight.view(_WORD[weight.element_size()])
        total += int(words.sum(dtype=torch.int64))
    return total


@torch.no_grad()
def find_not_finite(weights: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Return the names of the tensors in which a value is not finite."""
    names = []
    for name, weight in weights:
        # A sum is not finite if a value is not, and needs no memory; it may also overflow.
        total = weight.sum(dtype=torch.float32)
        if not torch.isfinite(total) and not torch.isfinite(weight).all():
            names.append(name)
    return names


def check_finite(weights: Iterable[tuple[str, Tensor]], folder: Path) -> None:
    """Raise CheckpointError if a weight that was loaded from `folder` is not finite."""
    names = find_not_finite(weights)
    if names:
        raise CheckpointError(
            f"{folder}: {name_tensors(names)} not finite (NaN or infinite): take another model, or an earlier "
            "checkpoint of this one (docs/faq.md#weights-are-not-finite)"
        )


def name_tensors(names: Sequence[str]) -> str:
    """Return how many weights these are, and the first of them: "63 weights (a, b, c, ...) are"."""
    listed = ", ".join(names[:MAX_NAMED])
    if len(names) > MAX_NAMED:
        listed += ", ..."
    if len(names) == 1:
        return f"1 weight ({listed}) is"
    return f"{len(names)} weights ({listed}) are"
