"""Compiled decoding, behind the protocol of `rollout.generate`: one token of all rows is one graph.

What `rollout.decode` does for a token, some 60 small operations a layer, becomes a few kernels, and on a GPU one launch
of a CUDA graph. It is compiled once, with rows and columns as symbols; weights are its inputs, so that an update in
place compiles nothing. A CUDA graph is recorded for each number of rows and columns that occurs, so there are to be
few: rows are dropped at powers of two alone, the cache grows by 256 columns, and its memory, of the size of the largest
rollout so far, stays where it is from one rollout to the next. From N rows of up to T columns at most log2(N) + T / 256
graphs are met in one rollout.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from visionr1.errors import RecipeError
from visionr1.models.compiling import compiling
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.rollout.eager import BranchCache, Completion, Decoder, Sampling, Seeds, decode, generate


class CompiledDecoder(Decoder):
    """`rollout.Decoder` that compiles its step; RecipeError if the policy takes the plain path."""

    block = 256

    def __init__(self, policy: Policy, backend: str | Callable[..., Any] = "inductor") -> None:
        """`backend` is that of torch.compile."""
        if not policy.path.shares_prefix:
            raise RecipeError(
                f"rollout.compile: expected false for models of type {policy.config.model_type!r}, which take the "
                "plain path and decode by transformers' own generate"
            )
        # Nobody changes torch's own modules between two tokens; to make sure of it would take longer than a small step.
        options: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_guard_on_inbuilt_nn_modules_unsafe}
        if backend == "inductor" and policy.device.type == "cuda":
            options["triton.cudagraphs"] = True
        self._decode = torch.compile(decode, fullgraph=True, backend=backend, options=options)
        self._flat: dict[int, Tensor] = {}

    def __call__(
        self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, seeds: Seeds = ()
    ) -> list[list[Completion]]:
        """As `generate`."""
        return generate(policy, prompts, sampling, seeds, decoder=self)

    def num_rows(self, num_running: int, num_rows: int) -> int:
        """The smallest power of two that holds the running rows, where it is fewer; one row would be another graph."""
        return min(num_rows, max(2, 1 << (num_running - 1).bit_length()))

    def memory(self, place: int, shape: tuple[int, ...], room: int, like: Tensor) -> Tensor:
        """A part of what is kept, at its own address, which CUDA graphs remember."""
        rows, heads, _, width = shape
        flat = self._flat.get(place)
        if flat is None or len(flat) < math.prod(shape) or (flat.dtype, flat.device) != (like.dtype, like.device):
            flat = self._flat[place] = like.new_empty(rows * heads * room * width)
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
        """`decode`, compiled; TrainingError if that cannot be."""
        for tensor in (tokens, *rotation, cache.mask, *cache.parts, *([] if uniform is None else [uniform])):
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        for tensor, columns in ((cache.mask, 3), *((part, 2) for part in cache.parts)):
            torch._dynamo.maybe_mark_dynamic(tensor, columns)
        torch.compiler.cudagraph_mark_step_begin()
        with compiling("the decode step", "set rollout.compile = false"):
            chosen = self._decode(policy, cache, tokens, rotation, sampling, uniform)
        return chosen[0].clone(), chosen[1].clone()  # a CUDA graph writes the next ones over them
