"""Weights of a frozen model that wait in the CPU's memory, and are on the model's device for a pass alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


class OffloadedWeights:
    """The parameters of a frozen `model`; its buffers, which are small, stay where they are.

    They do not change, so nothing is copied back: leaving the device drops what is there.
    """

    def __init__(self, model: nn.Module) -> None:
        """Take the weights from their device to the CPU's memory."""
        self._device = next(model.parameters()).device
        self._kept: list[tuple[Tensor, Tensor]] = []
        for parameter in model.parameters():
            kept = parameter.data.cpu()
            if self._device.type == "cuda":
                kept = kept.pin_memory()  # so that copies need not wait for each other
            parameter.data = kept
            self._kept.append((parameter, kept))

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Have the weights on the device inside this block."""
        for parameter, kept in self._kept:
            parameter.data = kept.to(self._device, non_blocking=True)
        try:
            yield
        finally:
            for parameter, kept in self._kept:
                parameter.data = kept
