"""Tree attention of a long row on a GPU: by blocks of the row, without a copy of any key.

FlexAttention (Dong et al., arXiv 2412.05496; torch.nn.attention.flex_attention) compiles one kernel from a function
that says which query attends to which key, and a list of the blocks in which any does. Empty blocks are skipped, full
ones need no mask, and heads share keys as they are. The list is made once a row, from the lengths alone, and serves all
layers, forward and backward. Kernels are compiled for lengths that are powers of two, to which queries and keys are
padded; a token of padding attends to itself alone and costs next to nothing.
Axis letters: T places of the padded row, S spans (prefixes and branches), B blocks, H heads, D width of a head.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad

from visionr1.models.attention.compiling import compiling

BLOCK = 128
"""Places of a block, each way: the kernels' own."""

Span = tuple[int, int]
"""First place in the row, and length."""


def make_block_mask(
    prefixes: Sequence[Span], branches: Sequence[Span], prefix_of: Sequence[int], num_tokens: int, device: torch.device
) -> BlockMask:
    """Return the blocks of a row of `num_tokens`, padded, in which some place attends to another.

    Padding attends to itself: kernels are at their safest where every query has a key.
    """
    places = max(BLOCK, 1 << (num_tokens - 1).bit_length())
    spans = (*prefixes, *branches)

    # For each place: where its span begins, and where the prefix of its branch begins and ends.
    span_start = torch.arange(places, dtype=torch.int32)
    prefix_start, prefix_stop = torch.zeros(2, places, dtype=torch.int32)
    attends = torch.eye(len(spans), dtype=torch.float64)  # (S, S) span to span
    for start, length in spans:
        span_start[start : start + length] = start
    for number, ((start, length), prefix) in enumerate(zip(branches, prefix_of, strict=True), start=len(prefixes)):
        attends[number, prefix] = 1
        prefix_start[start : start + length] = prefixes[prefix][0]
        prefix_stop[start : start + length] = sum(prefixes[prefix])
    span_start, prefix_start, prefix_stop = span_start.to(device), prefix_start.to(device), prefix_stop.to(device)

    def is_visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        in_span: Tensor = (key >= span_start[query]) & (key <= query)
        in_prefix: Tensor = (key >= prefix_start[query]) & (key < prefix_stop[query])
        return in_span | in_prefix

    # Count the pairs of places that attend in each block; on the diagonal every place attends to itself.
    edges = torch.arange(0, places + BLOCK, BLOCK)
    begin, stop = torch.tensor([(start, start + length) for start, length in spans]).T[..., None]
    inside = (stop.minimum(edges[1:]) - begin.maximum(edges[:-1])).clamp(min=0).double()  # (S, B) tokens
    pairs = inside.T @ attends @ inside  # (B, B), right below the diagonal
    full = (pairs == BLOCK**2).tril(-1)
    mixed = ((pairs > 0).tril() | torch.eye(len(pairs), dtype=torch.bool)) & ~full
    return BlockMask.from_kv_blocks(
        *_count_and_order(mixed, device),
        *_count_and_order(full, device),
        BLOCK_SIZE=BLOCK,
        mask_mod=is_visible,
        seq_lengths=(places, places),
    )


def _count_and_order(blocks: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the number of blocks in each row of a mask (B, B), and the columns, those of the blocks first."""
    places = blocks.int().argsort(dim=1, descending=True, stable=True)
    return blocks.sum(dim=1)[None, None].to(device, torch.int32), places[None, None].to(device, torch.int32)


def block_sparse_attention(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scaling: float | None) -> Tensor:
    """Attend with queries (1, H, T, D) to keys and values of as many heads or fewer; returns (1, H, T, D)."""
    tokens, places = query.shape[2], mask.seq_lengths[0]
    query, key, value = (pad(states, (0, 0, 0, places - tokens)) for states in (query, key, value))
    with compiling_long_rows():
        output: Tensor = _kernel(query.device.type)(query, key, value, block_mask=mask, scale=scaling, enable_gqa=True)
    return output[:, :, :tokens]


compiling_long_rows = partial(
    compiling,
    "attention of a long row",
    "lower optimizer.tokens_per_forward below 2048, and where a prompt with one reply is longer, use smaller images or "
    "lower rollout.max_new_tokens",
    recompile_limit=64,
)
"""For the backward pass too, which is compiled when it first runs."""


@cache
def _kernel(kind: str) -> Callable[..., Any]:
    """Return FlexAttention to be compiled, a few times for each length. A CPU runs it operation by operation, forward
    alone, for tests."""
    backend = "eager" if kind == "cpu" else "inductor"
    return torch.compile(flex_attention, fullgraph=True, dynamic=False, backend=backend)
