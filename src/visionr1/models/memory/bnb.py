"""Importing bitsandbytes, the library of 4-bit weights and 8-bit optimizers."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from visionr1.errors import needs_extra


def import_bitsandbytes() -> Any:
    """Return the module bitsandbytes; MissingDependency if it is not installed."""
    with needs_extra("bitsandbytes"), _without_hub_kernels():
        return import_module("bitsandbytes")


@contextmanager
def _without_hub_kernels() -> Iterator[None]:
    """Keep bitsandbytes from fetching code from the hub: on some CPUs its import does so, by the package `kernels`.

    It then takes the kernels of its own wheel, as where `kernels` is not installed, which it would warn of.
    """
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = log.level
    kernels = sys.modules.get("kernels")
    sys.modules["kernels"] = None  # type: ignore[assignment] # importing it raises ImportError
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
        del sys.modules["kernels"]
        if kernels is not None:
            sys.modules["kernels"] = kernels
