"""Decode attention: one new token a row attends to its prompt, which other rows share, and to its own branch.

The prompt's keys are read once for all completions of it, as one matrix product (Hydragen, arXiv 2402.05099): a row of
its own copy of them would read them again for each. Scores of prompt and branch meet in one softmax.
Axis letters: B prompts, G slots for completions of each, N rows, H heads, K of them with keys of their own, Q heads
that share a key, P columns of the prompts, T of the branches, D width of a head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """The keys and values of the prompts in one layer, and the rows that follow them."""

    keys: Tensor
    """(B, K, P, D)"""
    values: Tensor
    """(B, K, P, D)"""
    num_slots: int
    """G"""
    slots: Tensor | None
    """(N,) each row's slot, among the B x G; None if row n has slot n and all are taken."""

    def to_grid(self, rows: Tensor) -> Tensor:
        """Return rows (N, K, Q, X) as (B, K, G x Q, X), with zeros in empty slots."""
        num_slots = len(self.keys) * self.num_slots
        if self.slots is not None:
            rows = rows.new_zeros(num_slots, *rows.shape[1:]).index_copy(0, self.slots, rows)
        grid: Tensor = rows.unflatten(0, (len(self.keys), self.num_slots)).transpose(1, 2).flatten(2, 3)
        return grid

    def to_rows(self, grid: Tensor) -> Tensor:
        """Return a grid (B, K, G x Q, X) as rows (N, K, Q, X)."""
        rows: Tensor = grid.unflatten(2, (self.num_slots, -1)).transpose(1, 2).flatten(0, 1)
        return rows if self.slots is None else rows.index_select(0, self.slots)


def decode_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None, prefix: SharedPrefix
) -> Tensor:
    """Attend with queries (N, H, 1, D) to the prompts' keys, and then to those of branches (N, K, T, D): (N, 1, H, D).

    `mask` (N, 1, 1, P + T) is True where a row may look. Heads that share a key are queries of one head, so that
    nothing is repeated for them. Plain products, because for one query a head torch's fused CPU kernel takes two to
    ten times as long, longest in bfloat16, where it packs every key and value anew for every token; on a CPU they are
    computed in float32.
    """
    rows, heads, _, width = query.shape
    scale = width**-0.5 if scaling is None else scaling
    on_cpu = query.device.type == "cpu"
    with torch.autocast(query.device.type, enabled=False):
        dtype = torch.float32 if on_cpu else key.dtype
        grouped = (query * scale).view(rows, key.shape[1], -1, width).to(dtype)

        # One softmax over prompt and branch.
        prefix_scores = prefix.to_rows(prefix.to_grid(grouped) @ prefix.keys.mT)
        scores = torch.cat((prefix_scores, grouped @ key.mT), dim=-1).float()
        weights = torch.where(mask, scores, -torch.inf).softmax(dim=-1).to(dtype)

        prefix_weights, branch_weights = weights.tensor_split([prefix.keys.shape[2]], dim=-1)
        output = prefix.to_rows(prefix.to_grid(prefix_weights) @ prefix.values) + branch_weights @ value
    return output.reshape(rows, 1, heads, width).to(query.dtype)
