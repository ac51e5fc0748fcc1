"""Attention of rows that hold one prefix and several branches: the prefix to itself, each branch to
the prefix and itself.

A dense tree mask would make every branch pay for every other one, which no kernel skips. Here the
branches are cut out of their rows and stacked, so the cost is G x C x (P + C) instead of
(P + G x C)^2, and the numbers are the same. Everything outside attention stays in packed rows.

Registered with transformers under `NAME`; without `branches` it is plain `sdpa`.
Axis letters: R rows, T tokens of a row, N branches of all rows, C tokens of the longest branch,
P of the longest prefix, H heads, D width of a head.
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
class Branches:
    """Where the branches of packed rows lie."""

    prefix_length: int
    """P"""
    row: Tensor
    """(N,) the row of each branch."""
    place: Tensor
    """(N x C,) each token's place in the flattened rows (R x T); padding repeats the last one."""
    real: Tensor
    """(tokens,) which of those N x C are tokens and not padding."""
    mask: Tensor
    """(N, 1, C, P + C) True where a token of a branch may look."""

    def to(self, device: torch.device) -> "Branches":
        """These branches on `device`."""
        return Branches(
            self.prefix_length,
            self.row.to(device),
            self.place.to(device),
            self.real.to(device),
            self.mask.to(device),
        )


def find_branches(
    row: Tensor, start: Tensor, length: Tensor, prefix_lengths: Tensor, num_tokens: int
) -> Branches:
    """Branches given by row, first column and length (all (N,)), in rows of `num_tokens` (T) whose
    prefixes have `prefix_lengths` (R,) tokens."""
    longest, prefix = int(length.max()), int(prefix_lengths.max())
    step = torch.arange(longest)
    column = start[:, None] + torch.minimum(step, length[:, None] - 1)
    sees_prefix = torch.arange(prefix) < prefix_lengths[row][:, None]  # (N, P)
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    mask = torch.cat(
        (
            sees_prefix[:, None].expand(-1, longest, -1),
            causal.expand(len(row), -1, -1),
        ),
        dim=2,
    )
    return Branches(
        prefix_length=prefix,
        row=row,
        place=(row[:, None] * num_tokens + column).flatten(),
        real=(step < length[:, None]).flatten().nonzero().flatten(),
        mask=mask[:, None],
    )


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    branches: Branches | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function of transformers' interface: (R, H, T, D) in, (R, T, H, D) out."""
    if branches is None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return output, None
    rows, heads, tokens, width = query.shape
    groups = heads // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    end = branches.prefix_length
    prefix = scaled_dot_product_attention(
        query[:, :, :end], key[:, :, :end], value[:, :, :end], is_causal=True, scale=scaling
    )

    def cut(states: Tensor) -> Tensor:
        flat = states.transpose(1, 2).reshape(rows * tokens, heads * width)
        parts = flat.index_select(0, branches.place)
        return parts.view(len(branches.row), -1, heads, width).transpose(1, 2)

    def with_prefix(states: Tensor) -> Tensor:
        return torch.cat((states[:, :, :end].index_select(0, branches.row), cut(states)), dim=2)

    branch = scaled_dot_product_attention(
        cut(query), with_prefix(key), with_prefix(value), attn_mask=branches.mask, scale=scaling
    )
    output = query.new_zeros((rows, tokens, heads * width))
    output[:, :end] = prefix.transpose(1, 2).flatten(2)
    flat = branch.transpose(1, 2).reshape(-1, heads * width).index_select(0, branches.real)
    place = branches.place.index_select(0, branches.real)
    output = output.view(rows * tokens, heads * width).index_copy(0, place, flat)
    return output.view(rows, tokens, heads, width), None


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
