"""A checksum of weights, by which a folder of adapters, a checkpoint and a log of replies know their model again."""

from collections.abc import Iterable

import torch
from torch import Tensor

_WORD = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers as wide as a weight, by its bytes."""


@torch.no_grad()
def weights_checksum(weights: Iterable[Tensor]) -> int:
    """Return the sum of the bits of all `weights`, read as integers: the same on every device and in any order."""
    total = 0
    for weight in weights:
        words = weight.view(_WORD[weight.element_size()])
        total += int(words.sum(dtype=torch.int64))
    return total
