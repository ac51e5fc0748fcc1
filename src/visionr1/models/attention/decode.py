"""Decode attention: one new token a row attends to the KV cache of its row.

Axis letters: N rows, H heads, K of them with keys of their own, T columns, D width of a head.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def decode_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """Attend with queries (N, H, 1, D) to keys and values (N, K, T, D) where `mask` (N, 1, 1, T): returns (N, 1, H, D).

    Heads that share a key are queries of one head, so that under a mask too nothing of the cache is repeated for them.
    """
    rows, heads, _, width = query.shape
    shared = query.view(rows, key.shape[1], -1, width)
    attend = _by_products if query.device.type == "cpu" else scaled_dot_product_attention
    return attend(shared, key, value, attn_mask=mask, scale=scaling).view(rows, 1, heads, width)


def _by_products(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, scale: float | None) -> Tensor:
    """Attend by two matrix products in float32.

    For one query a head torch's fused CPU kernel takes two to ten times as long, longest in bfloat16, where it packs
    every key and value anew for every token.
    """
    with torch.autocast("cpu", enabled=False):
        scores = query.float() @ key.float().mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            scores = torch.where(attn_mask, scores, -torch.inf)
        output = scores.softmax(dim=-1) @ value.float()
    return output.to(query.dtype)
