"""Compiled decoding: one token of all rows is one graph.

`eager.decode` takes some 60 small operations a layer for a token; compiled they become a few kernels, and on a GPU one
launch of a CUDA graph. It is compiled once, with rows and columns as symbols; weights are its inputs, so that an update
in place compiles nothing. A CUDA graph is recorded for each number of rows and columns that occurs, so these are kept
few: rows are dropped at powers of two alone, the cache grows by 256 columns, and its memory, of the size of the largest
rollout so far, stays where it is from one rollout to the next. N rows of up to T columns meet at most
log2(N) + T / 256 graphs in one rollout.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from visionr1.models.attention.compiling import compiling
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.rollout.cache import BranchCache
from visionr1.rollout.eager import Decoder, decode, generate
from visionr1.rollout.engine import Completion, Sampling, Seeds


class CompiledDecoder(Decoder):
    """A rollout engine, and the `Decoder` with which it calls `eager.generate`: its step is compiled."""

    block = 256
    compact = False
    most_guesses = 0  # a pass of so many tokens would be a graph of its own

    def __init__(self, policy: Policy, backend: str | Callable[..., Any] = "inductor") -> None:
        """`backend` is that of torch.compile."""
        # Nobody changes torch's own modules between two tokens; guards against it would take longer than a small step.
        options: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_guard_on_inbuilt_nn_modules_unsafe}
        if backend == "inductor" and policy.device.type == "cuda":
            options["triton.cudagraphs"] = True
        self._decode = torch.compile(decode, fullgraph=True, backend=backend, options=options)
        self._flat: dict[int, Tensor] = {}

    def __call__(
        self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, seeds: Seeds = ()
    ) -> list[list[Completion]]:
        """Sample as `RolloutEngine`."""
        return generate(policy, prompts, sampling, seeds, decoder=self)

    def num_rows(self, num_running: int, num_rows: int) -> int:
        """Return the smallest power of two that holds the running rows, but at least 2: one row is another graph."""
        return min(num_rows, max(2, 1 << (num_running - 1).bit_length()))

    def memory(self, number: int, shape: tuple[int, ...], most_columns: int, like: Tensor) -> Tensor:
        """Return memory for a part of the cache, always at the same address, which CUDA graphs remember."""
        rows, heads, _, width = shape
        flat = self._flat.get(number)
        if flat is None or len(flat) < math.prod(shape) or (flat.dtype, flat.device) != (like.dtype, like.device):
            flat = self._flat[number] = like.new_empty(rows * heads * most_columns * width)
        part = flat[: math.prod(shape)].view(shape)
        torch._dynamo.mark_static_address(part, guard=False)
        return part

    def step(
        self,
        policy: Policy,
        cache: BranchCache,
        tokens: Tensor,
        rotation: tuple[Tensor, Tensor],
        sampling: Sampling,
        uniform: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Run `decode`, compiled; TrainingError if it cannot be."""
        # Rows are a symbol of the graph, in all its inputs; columns, in the mask and the cache.
        for tensor in (tokens, *rotation, *cache.dynamic_tensors()):
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        if uniform is not None:
            torch._dynamo.maybe_mark_dynamic(uniform, 0)
        torch._dynamo.maybe_mark_dynamic(cache.mask, 3)
        for part in cache.parts + cache.prefix_parts:
            torch._dynamo.maybe_mark_dynamic(part, 2)

        torch.compiler.cudagraph_mark_step_begin()
        with compiling("the decode step", "set rollout.compile = false"):
            chosen = self._decode(policy, cache, tokens, rotation, sampling, uniform)
        return chosen[0].clone(), chosen[1].clone()  # a CUDA graph writes the next ones over them
