"""Attention of one token a row, against torch's own with every prompt's keys copied to its rows and heads."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from visionr1.models.attention.decode import SharedPrefix, decode_attention

PROMPTS, SLOTS, HEADS, PROMPT_COLUMNS, BRANCH_COLUMNS, WIDTH = 2, 3, 4, 5, 4, 8
ALL_SLOTS = PROMPTS * SLOTS


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("num_keys", [4, 2, 1])
@pytest.mark.parametrize(
    "slots",
    [
        None,  # all taken, in order
        [0, 1, 2, 3, 4, 5],  # the same, named
        [1, 2, 3],  # some rows have ended
        [5, 0],  # in another order
        [4],  # one prompt has no row left
    ],
    ids=str,
)
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_it_is_torch_s_attention(num_keys: int, slots: list[int] | None, scaling: float | None) -> None:
    rows = slots or list(range(ALL_SLOTS))
    prefix = SharedPrefix(
        keys=random(PROMPTS, num_keys, PROMPT_COLUMNS, WIDTH),
        values=random(PROMPTS, num_keys, PROMPT_COLUMNS, WIDTH) + 1,
        num_slots=SLOTS,
        slots=None if slots is None else torch.tensor(slots),
    )
    query = random(len(rows), HEADS, 1, WIDTH)
    key, value = random(2, len(rows), num_keys, BRANCH_COLUMNS, WIDTH)

    # Prompts of 3 and 5 tokens, and one column of the branches not yet written.
    columns = torch.arange(PROMPT_COLUMNS + BRANCH_COLUMNS)
    lengths = torch.tensor([3, 5])[torch.tensor(rows) // SLOTS][:, None]
    is_prompt = columns < lengths
    is_branch = (columns >= PROMPT_COLUMNS) & (columns < PROMPT_COLUMNS + BRANCH_COLUMNS - 1)
    mask = (is_prompt | is_branch)[:, None, None]

    prompts = torch.tensor(rows) // SLOTS
    copied = [
        torch.cat((shared[prompts], part), dim=2).repeat_interleave(HEADS // num_keys, dim=1)
        for shared, part in ((prefix.keys, key), (prefix.values, value))
    ]
    expected = scaled_dot_product_attention(query, *copied, attn_mask=mask, scale=scaling).transpose(1, 2)
    torch.testing.assert_close(decode_attention(query, key, value, mask, scaling, prefix), expected)

    # float32 inside, and out as the query came
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = decode_attention(query.bfloat16(), key, value, mask, scaling, prefix)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), expected, atol=0.02, rtol=0.02)
