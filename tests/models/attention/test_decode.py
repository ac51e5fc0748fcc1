"""Attention of one token a row, against torch's own with keys repeated for the heads that share them."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from visionr1.models.attention.decode import decode_attention


@pytest.mark.parametrize("num_keys", [4, 2, 1])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_it_is_torch_s_attention(num_keys: int, masked: bool, scaling: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn((3, 4, 1, 8), generator=generator)
    key, value = torch.randn((2, 3, num_keys, 7, 8), generator=generator)
    mask = torch.arange(7) < torch.tensor([2, 7, 5])[:, None, None, None] if masked else None
    repeated = (part.repeat_interleave(4 // num_keys, dim=1) for part in (key, value))
    expected = scaled_dot_product_attention(query, *repeated, attn_mask=mask, scale=scaling).transpose(1, 2)
    torch.testing.assert_close(decode_attention(query, key, value, mask, scaling), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # float32 inside, and out as the query came
        found = decode_attention(query.bfloat16(), key, value, mask, scaling)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)
