"""Errors of torch.compile: nothing runs in place of a graph that cannot be compiled."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

from visionr1.errors import TrainingError

_NOT_COMPILED = (TorchDynamoException, FailOnRecompileLimitHit, CppCompileError, InvalidCxxCompiler)


@contextmanager
def compiling(what: str, otherwise: str, **settings: Any) -> Iterator[None]:
    """Run code that torch compiles inside this block, under Dynamo's `settings`.

    If it fails, raise a TrainingError that `what` cannot be compiled, what it needs, and what to do `otherwise`.
    """
    try:
        # DDP would cut a graph into its buckets of gradients, of which there are none.
        with torch._dynamo.config.patch(optimize_ddp=False, **settings):
            yield
    except _NOT_COMPILED as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2]) or type(error).__name__
        raise TrainingError(
            f"{what} cannot be compiled: {reason}. It needs a C++ compiler that torch.compile finds (on Debian: apt "
            f"install g++ python3-dev), on a GPU Triton too; install it, or {otherwise}"
        ) from error
