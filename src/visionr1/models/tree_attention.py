"""Attention of a row that holds prefixes and branches: a prefix to itself, each branch to its prefix
and itself.

A dense tree mask would make every branch pay for every other one, which no kernel skips. Here the
prefixes and the branches are cut out of the row and stacked, so the cost is P^2 + G x C x (P + C)
for each sample instead of (P + G x C)^2, and the numbers are the same. Everything outside attention
stays in one row, without padding between samples.

Registered with transformers under `NAME`; without a `tree` it is plain `sdpa`.
Axis letters: T tokens of the row, S prefixes, N branches, C tokens of the longest branch, P of the
longest prefix, H heads, D width of a head.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "visionr1_tree"


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
        """The parts (M, H, L, D) of a row's states (1, H, T, D)."""
        _, heads, tokens, width = states.shape
        flat = states.transpose(1, 2).reshape(tokens, heads * width).index_select(0, self.place)
        return flat.view(self.count, -1, heads, width).transpose(1, 2)

    def put(self, row: Tensor, parts: Tensor) -> Tensor:
        """`row` (T, H x D) with the parts (M, H, L, D) at their places."""
        flat = parts.transpose(1, 2).reshape(-1, row.shape[1]).index_select(0, self.real)
        return row.index_copy(0, self.place.index_select(0, self.real), flat)

    def to(self, device: torch.device) -> "Spans":
        """These spans on `device`."""
        return Spans(self.count, self.place.to(device), self.real.to(device))


@dataclass(frozen=True, slots=True)
class Tree:
    """Where the prefixes and branches of a row lie."""

    prefixes: Spans
    branches: Spans
    prefix_of: Tensor
    """(N,) the prefix that each branch follows."""
    mask: Tensor
    """(N, 1, C, P + C) True where a token of a branch may look."""

    def to(self, device: torch.device) -> "Tree":
        """This tree on `device`."""
        return Tree(
            self.prefixes.to(device), self.branches.to(device), self.prefix_of.to(device), self.mask.to(device)
        )


def make_tree(prefixes: list[tuple[int, int]], branches: list[tuple[int, int]], prefix_of: list[int]) -> Tree:
    """The tree of prefixes and branches, each given by its first place in the row and its length."""
    owner = torch.tensor(prefix_of)
    longest_prefix, longest = (max(length for _, length in spans) for spans in (prefixes, branches))
    prefix_lengths = torch.tensor([length for _, length in prefixes])
    sees_prefix = torch.arange(longest_prefix) < prefix_lengths[owner][:, None]  # (N, P)
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    mask = torch.cat((sees_prefix[:, None].expand(-1, longest, -1), causal.expand(len(owner), -1, -1)), dim=2)
    return Tree(_spans(prefixes, longest_prefix), _spans(branches, longest), owner, mask[:, None])


def _spans(spans: list[tuple[int, int]], longest: int) -> Spans:
    start, length = torch.tensor(spans).T
    step = torch.arange(longest)
    place = start[:, None] + torch.minimum(step, length[:, None] - 1)
    return Spans(len(spans), place.flatten(), (step < length[:, None]).flatten().nonzero().flatten())


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree: Tree | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function of transformers' interface: (R, H, T, D) in, (R, T, H, D) out. With a
    `tree` there is one row."""
    if tree is None and query.shape[2] == 1:
        return _decode_attention(query, key, value, attention_mask, scaling), None
    if tree is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return output, None
    _, heads, tokens, width = query.shape
    groups = heads // key.shape[1]
    prefix_keys, prefix_values = (repeat_kv(tree.prefixes.cut(states), groups) for states in (key, value))
    prefix = scaled_dot_product_attention(
        tree.prefixes.cut(query), prefix_keys, prefix_values, is_causal=True, scale=scaling
    )

    def with_prefix(of_prefix: Tensor, states: Tensor) -> Tensor:
        of_branch = repeat_kv(tree.branches.cut(states), groups)
        return torch.cat((of_prefix.index_select(0, tree.prefix_of), of_branch), dim=2)

    branch = scaled_dot_product_attention(
        tree.branches.cut(query),
        with_prefix(prefix_keys, key),
        with_prefix(prefix_values, value),
        attn_mask=tree.mask,
        scale=scaling,
    )
    output = tree.branches.put(tree.prefixes.put(query.new_zeros(tokens, heads * width), prefix), branch)
    return output.view(1, tokens, heads, width), None


def _decode_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None
) -> Tensor:
    """Of one new token a row: heads that share a key are queries of one head, so that under a mask too
    nothing of the cache is repeated for them."""
    rows, heads, _, width = query.shape
    shared = query.view(rows, key.shape[1], -1, width)
    output = scaled_dot_product_attention(shared, key, value, attn_mask=mask, scale=scaling)
    return output.view(rows, 1, heads, width)


def tree_mask(*, q_length: int, kv_length: int, attention_mask: Tensor | None, **kwargs: Any) -> Tensor | None:
    """No mask where rows are whole and unpadded: causal is what attention then is anyway, and a row's
    positions, which start again at each branch, must not be taken for those of several texts."""
    if attention_mask is None and q_length == kv_length:
        return None
    mask: Tensor | None = sdpa_mask(
        q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **kwargs
    )
    return mask


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, tree_mask)
