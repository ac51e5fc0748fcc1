"""Attention of one token a row, against torch's own with every prompt's keys copied to its rows and heads."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from visionr1.models.attention.decode import Grid, SharedPrefix, decode_attention

PROMPTS, SLOTS, HEADS, PROMPT_COLUMNS, BRANCH_COLUMNS, WIDTH = 2, 3, 4, 5, 4, 8
ALL_ROWS = PROMPTS * SLOTS
CPU = torch.device("cpu")


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("num_keys", [4, 2, 1])
@pytest.mark.parametrize(
    "rows",
    [
        [0, 1, 2, 3, 4, 5],  # a token of each row
        [1, 2, 3],  # some rows have ended
        [5, 0],  # in another order
        [4],  # one prompt has no row left
        [0, 0, 0, 2, 3, 3],  # several tokens of some rows
    ],
    ids=str,
)
@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("num_slots", [0, 6])
def test_it_is_torch_s_attention(num_keys: int, rows: list[int], scaling: float | None, num_slots: int) -> None:
    row_of_token = torch.tensor(rows)
    prompt_of_token = row_of_token // SLOTS
    prefix = SharedPrefix(
        keys=random(PROMPTS, num_keys, PROMPT_COLUMNS, WIDTH),
        values=random(PROMPTS, num_keys, PROMPT_COLUMNS, WIDTH) + 1,
        prompts=Grid.of(prompt_of_token, PROMPTS, CPU, num_slots),
        branches=Grid.of(row_of_token, ALL_ROWS, CPU),
    )
    query = random(len(rows), HEADS, 1, WIDTH)
    key, value = random(2, ALL_ROWS, num_keys, BRANCH_COLUMNS, WIDTH)

    # Prompts of 3 and 5 tokens, and one column of the branches not yet written.
    columns = torch.arange(PROMPT_COLUMNS + BRANCH_COLUMNS)
    lengths = torch.tensor([3, 5])[prompt_of_token][:, None]
    is_prompt = columns < lengths
    is_branch = (columns >= PROMPT_COLUMNS) & (columns < PROMPT_COLUMNS + BRANCH_COLUMNS - 1)
    mask = (is_prompt | is_branch)[:, None, None]

    copied = []
    for shared, branches in ((prefix.keys, key), (prefix.values, value)):
        part = torch.cat((shared[prompt_of_token], branches[row_of_token]), dim=2)
        copied.append(part.repeat_interleave(HEADS // num_keys, dim=1))
    expected = scaled_dot_product_attention(query, *copied, attn_mask=mask, scale=scaling).transpose(1, 2)
    torch.testing.assert_close(decode_attention(query, key, value, mask, scaling, prefix), expected)

    # float32 inside, and out as the query came
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = decode_attention(query.bfloat16(), key, value, mask, scaling, prefix)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    ("groups", "num_slots", "slots"),
    [
        ([0, 0, 1, 1], 0, None),  # whole and in order: nothing is moved
        ([0, 0, 1, 1], 2, [0, 1, 2, 3]),  # a fixed width never changes what is computed
        ([1, 0, 1], 0, [2, 0, 3]),
        ([1, 0, 1], 4, [4, 0, 5]),
        ([2], 0, [2]),  # groups without a token
    ],
)
def test_tokens_take_the_first_slots_of_their_group(groups: list[int], num_slots: int, slots: list[int] | None) -> None:
    grid = Grid.of(torch.tensor(groups), max(groups) + 1, CPU, num_slots)
    assert (None if grid.slots is None else grid.slots.tolist()) == slots
    tokens = random(len(groups), 2, 3, 4)
    torch.testing.assert_close(grid.collect(grid.spread(tokens)), tokens)
