"""Tree attention, of a row that holds prefixes and branches: a prefix attends to itself, a branch to its prefix and
itself.

With a dense tree mask every branch would pay for every other one, which no kernel skips. Here the
prefixes and the branches are cut out of the row and stacked, so the cost is P^2 + G x C x (P + C)
for each sample instead of (P + G x C)^2, and the numbers are the same. Everything outside attention
stays in one row, without padding between samples. A long row on a GPU is not cut: there a kernel skips
blocks that nothing attends to (`block_sparse`).

Registered with transformers under `NAME`; without a `tree` it is plain `sdpa`.
Axis letters: R rows, T tokens of the row, S prefixes, N branches, C tokens of the longest branch, P of the
longest prefix, H heads, K of them with keys of their own, D width of a head.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from visionr1.models.attention.block_sparse import Span, block_sparse_attention, make_block_mask
from visionr1.models.attention.decode import SharedPrefix, decode_attention

NAME = "visionr1_tree"
_CPU = torch.device("cpu")
LONG_ROW = {"cuda": 2048}
"""Tokens from which a row attends by blocks, by device type. Shorter rows have at most 136 pairs of blocks a head,
too few to win back what compiling and one more kernel cost; longer ones would copy a prompt's keys to every branch."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Parts of a row (M of them, the longest of L tokens), to be stacked and padded."""

    count: int
    """M"""
    place: Tensor
    """(M x L,) each token's place in the row; padding repeats a part's last one."""
    real: Tensor
    """(tokens,) which of those M x L are tokens and not padding."""

    def cut(self, states: Tensor) -> Tensor:
        """Cut the parts (M, H, L, D) out of a row's states (1, H, T, D)."""
        _, heads, tokens, width = states.shape
        flat = states.transpose(1, 2).reshape(tokens, heads * width).index_select(0, self.place)
        return flat.view(self.count, -1, heads, width).transpose(1, 2)

    def put(self, row: Tensor, parts: Tensor) -> Tensor:
        """Return `row` (T, H x D) with the parts (M, H, L, D) at their places."""
        flat = parts.transpose(1, 2).reshape(-1, row.shape[1]).index_select(0, self.real)
        return row.index_copy(0, self.place.index_select(0, self.real), flat)


@dataclass(frozen=True, slots=True)
class Stacked:
    """The prefixes and branches of a row, cut out of it."""

    prefixes: Spans
    branches: Spans
    prefix_of: Tensor
    """(N,) the prefix that each branch follows."""
    mask: Tensor
    """(N, C, P + C) True where a token of a branch may look."""
    _added: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict)

    def added(self, groups: int, dtype: torch.dtype) -> Tensor:
        """Return the mask as what is added to scores, (N, 1, groups x C, P + C), repeated for the `groups` heads that
        share a key. It is made once: every layer keeps it for the gradient."""
        if (groups, dtype) not in self._added:
            values = self.mask.new_zeros(self.mask.shape, dtype=dtype).masked_fill_(~self.mask, -torch.inf)
            self._added[groups, dtype] = values.repeat(1, groups, 1)[:, None]
        return self._added[groups, dtype]


@dataclass(frozen=True)
class Tree:
    """Where the prefixes and branches of a row lie. What attention needs of it is made once, when first asked for."""

    prefixes: tuple[Span, ...]
    branches: tuple[Span, ...]
    prefix_of: tuple[int, ...]
    """The prefix that each branch follows."""
    num_tokens: int
    """T, padding at its end included."""
    device: torch.device = _CPU

    def to(self, device: torch.device) -> "Tree":
        """Return this tree on `device`."""
        return replace(self, device=device)

    @property
    def is_long(self) -> bool:
        """True if its row attends by blocks."""
        return self.num_tokens >= LONG_ROW.get(self.device.type, math.inf)

    @cached_property
    def blocks(self) -> BlockMask:
        """The blocks of the row that attend to each other."""
        return make_block_mask(self.prefixes, self.branches, self.prefix_of, self.num_tokens, self.device)

    @cached_property
    def stacked(self) -> Stacked:
        """The prefixes and branches cut out of the row, and the mask of the branches."""
        prefix_of = torch.tensor(self.prefix_of)
        prefix_lengths = torch.tensor([length for _, length in self.prefixes])
        longest_prefix = int(prefix_lengths.max())
        longest_branch = max(length for _, length in self.branches)

        # A token of a branch sees all of its prefix, and its branch up to itself.
        sees_prefix = torch.arange(longest_prefix) < prefix_lengths[prefix_of][:, None]  # (N, P)
        sees_prefix = sees_prefix[:, None].expand(-1, longest_branch, -1)  # (N, C, P)
        causal = torch.ones(longest_branch, longest_branch, dtype=torch.bool).tril()
        mask = torch.cat((sees_prefix, causal.expand(len(prefix_of), -1, -1)), dim=2)
        return Stacked(
            prefixes=self._spans(self.prefixes, longest_prefix),
            branches=self._spans(self.branches, longest_branch),
            prefix_of=prefix_of.to(self.device),
            mask=mask.to(self.device),
        )

    def _spans(self, spans: tuple[Span, ...], longest: int) -> Spans:
        """Return the places of spans, each padded to the `longest` by its last token."""
        start, length = torch.tensor(spans).T
        step = torch.arange(longest)
        place = start[:, None] + torch.minimum(step, length[:, None] - 1)
        real = (step < length[:, None]).flatten().nonzero().flatten()
        return Spans(len(spans), place.flatten().to(self.device), real.to(self.device))


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree: Tree | None = None,
    prefix: SharedPrefix | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend, by transformers' interface: (R, H, T, D) in, (R, T, H, D) out.

    With a `tree` there is one row; with a `prefix` each row is one token while decoding.
    """
    if prefix is not None:
        assert attention_mask is not None
        return decode_attention(query, key, value, attention_mask, scaling, prefix), None
    if tree is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return output, None

    if torch.is_autocast_enabled(query.device.type):  # torch's kernels would do it, in each layer, to the mask too
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = (states.to(dtype) for states in (query, key, value))
    if tree.is_long:
        return block_sparse_attention(query, key, value, tree.blocks, scaling).transpose(1, 2), None
    return _stacked_attention(query, key, value, tree.stacked, scaling), None


def _stacked_attention(query: Tensor, key: Tensor, value: Tensor, parts: Stacked, scaling: float | None) -> Tensor:
    """Attend with prefixes and branches cut out of the row: (1, H, T, D) and keys (1, K, T, D) in, (1, T, H, D) out."""
    _, heads, tokens, width = query.shape

    # Prefixes attend to themselves.
    prefix_keys, prefix_values = parts.prefixes.cut(key), parts.prefixes.cut(value)
    prefix = scaled_dot_product_attention(
        parts.prefixes.cut(query), prefix_keys, prefix_values, is_causal=True, scale=scaling, enable_gqa=True
    )

    # Branches attend to their prefix and themselves. Heads that share a key are queries of one head, so that no key is
    # repeated.
    branch_query = parts.branches.cut(query)
    branch = scaled_dot_product_attention(
        branch_query.reshape(len(branch_query), key.shape[1], -1, width),
        torch.cat((prefix_keys.index_select(0, parts.prefix_of), parts.branches.cut(key)), dim=2),
        torch.cat((prefix_values.index_select(0, parts.prefix_of), parts.branches.cut(value)), dim=2),
        attn_mask=parts.added(heads // key.shape[1], query.dtype),
        scale=scaling,
    ).view(branch_query.shape)

    # Back into one row.
    row = query.new_zeros(tokens, heads * width)
    row = parts.branches.put(parts.prefixes.put(row, prefix), branch)
    return row.view(1, tokens, heads, width)


def tree_mask(*, q_length: int, kv_length: int, attention_mask: Tensor | None, **kwargs: Any) -> Tensor | None:
    """Make no mask for whole, unpadded rows: attention is causal anyway, and a row's positions, which start again at
    each branch, must not be taken for those of several packed texts."""
    if attention_mask is None and q_length == kv_length:
        return None
    mask: Tensor | None = sdpa_mask(q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **kwargs)
    return mask


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, tree_mask)
