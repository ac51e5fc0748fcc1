"""Decode attention: new tokens attend to their prompt, which other tokens share, and to their own branch.

The prompt's keys are read once for all completions of it, as one matrix product (Hydragen, arXiv 2402.05099): a row of
its own copy of them would read them again for each. Scores of prompt and branch meet in one softmax.
Axis letters: B prompts, N branches, S tokens, H heads, K of them with keys of their own, Q heads that share a key, P
columns of the prompts, T of the branches, D width of a head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Grid:
    """Tokens side by side that look at the same keys: those of M prompts, or of M branches, with L slots each."""

    num_groups: int
    """M"""
    num_slots: int
    """L"""
    slots: Tensor | None
    """(S,) each token's slot, among the M x L; None if token s has slot s and all are taken."""

    @classmethod
    def of(cls, groups: Tensor, num_groups: int, device: torch.device, num_slots: int = 0) -> "Grid":
        """Place tokens, which look at the keys of `groups` (S,), on a CPU, in the first slots of each, in their order.

        With `num_slots` there are so many, and `slots` is always a tensor: then shapes depend on S alone.
        """
        counts = torch.bincount(groups, minlength=num_groups)
        order = groups.argsort(stable=True)
        starts = counts.cumsum(0) - counts
        rank = torch.empty_like(groups)
        rank[order] = torch.arange(len(groups)) - starts[groups[order]]
        width = num_slots or int(counts.max())
        slots = groups * width + rank

        in_order = torch.equal(slots, torch.arange(num_groups * width))
        return cls(num_groups, width, None if in_order and not num_slots else slots.to(device))

    def spread(self, tokens: Tensor) -> Tensor:
        """Return tokens (S, K, Q, X) as (M, K, L x Q, X), with zeros in empty slots."""
        if self.slots is not None:
            empty = tokens.new_zeros(self.num_groups * self.num_slots, *tokens.shape[1:])
            tokens = empty.index_copy(0, self.slots, tokens)
        grid: Tensor = tokens.unflatten(0, (-1, self.num_slots)).transpose(1, 2).flatten(2, 3)
        return grid

    def collect(self, grid: Tensor) -> Tensor:
        """Return a grid (M, K, L x Q, X) as tokens (S, K, Q, X)."""
        tokens: Tensor = grid.unflatten(2, (self.num_slots, -1)).transpose(1, 2).flatten(0, 1)
        return tokens if self.slots is None else tokens.index_select(0, self.slots)


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """The keys and values of the prompts in one layer, and where tokens stand beside them and beside branches."""

    keys: Tensor
    """(B, K, P, D)"""
    values: Tensor
    """(B, K, P, D)"""
    prompts: Grid
    branches: Grid


def decode_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None, prefix: SharedPrefix
) -> Tensor:
    """Attend with queries (S, H, 1, D) to the prompts' keys and those of branches (N, K, T, D): returns (S, 1, H, D).

    `mask` (S, 1, 1, P + T) is True where a token may look. Heads that share a key are queries of one head, so that
    nothing is repeated for them. Plain products, because for one query a head torch's fused CPU kernel takes two to
    ten times as long, longest in bfloat16, where it packs every key and value anew for every token; on a CPU they are
    computed in float32.
    """
    num_tokens, heads, _, width = query.shape
    scale = width**-0.5 if scaling is None else scaling
    dtype = torch.float32 if query.device.type == "cpu" else key.dtype
    with torch.autocast(query.device.type, enabled=False):
        grouped = (query * scale).view(num_tokens, key.shape[1], -1, width).to(dtype)

        # One softmax over prompt and branch.
        prompt_scores = prefix.prompts.collect(prefix.prompts.spread(grouped) @ prefix.keys.mT)
        branch_scores = prefix.branches.collect(prefix.branches.spread(grouped) @ key.mT)
        scores = torch.cat((prompt_scores, branch_scores), dim=-1).float()
        weights = torch.where(mask, scores, -torch.inf).softmax(dim=-1).to(dtype)

        prompt_weights, branch_weights = weights.tensor_split([prefix.keys.shape[2]], dim=-1)
        output = prefix.prompts.collect(prefix.prompts.spread(prompt_weights) @ prefix.values)
        output = output + prefix.branches.collect(prefix.branches.spread(branch_weights) @ value)
    return output.reshape(num_tokens, 1, heads, width).to(query.dtype)
