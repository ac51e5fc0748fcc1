"""The cache of decoding: which prompt each row follows, and what its branch holds, whatever rows leave."""

from itertools import product

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from visionr1.rollout.cache import BranchCache

PROMPTS, COMPLETIONS, LAYERS, HEADS, COLUMNS, WIDTH = 3, 4, 2, 2, 5, 6
LENGTHS = torch.tensor([3, 5, 4])


def make_cache(*, block: int, compact: bool) -> tuple[DynamicCache, BranchCache]:
    """Return what a pass over three prompts leaves, and the cache of four branches after each."""
    generator = torch.Generator().manual_seed(0)
    prefill = DynamicCache()
    for layer in range(LAYERS):
        keys, values = torch.randn((2, PROMPTS, HEADS, COLUMNS, WIDTH), generator=generator)
        prefill.update(keys, values, layer)
    cache = BranchCache(
        prefill,
        torch.arange(COLUMNS) < LENGTHS[:, None],
        num_completions=COMPLETIONS,
        max_new_tokens=20,
        block=block,
        allocate=lambda number, shape, most_columns, like: like.new_full(shape, torch.nan),
        compact=compact,
    )
    return prefill, cache


def write(cache: BranchCache, rows: Tensor, step: int) -> None:
    """Write a token in every layer: its keys are 100 times its row plus its step, its values the same negative."""
    cache.open_column()
    token = (100.0 * rows + step)[:, None, None, None].expand(-1, HEADS, 1, WIDTH)
    for layer in range(LAYERS):
        cache.update(token, -token, layer)


def check(cache: BranchCache, prefill: DynamicCache, rows: Tensor, num_steps: int) -> None:
    """Compare what each of `rows`, by their first numbers, sees with its prompt and its tokens so far."""
    for layer in range(LAYERS):
        prefix = cache.prefix(layer)
        grid = prefix.prompts
        slots = torch.arange(len(rows)) if grid.slots is None else grid.slots
        shared = prefix.keys[slots // grid.num_slots]
        for place, row in enumerate(rows.tolist()):
            prompt = row // COMPLETIONS
            visible = cache.mask[place, 0, 0].nonzero().flatten()
            seen = torch.cat((shared[place], cache.parts[2 * layer][place]), dim=1)[:, visible]
            expected_prompt = prefill.layers[layer].keys[prompt, :, : LENGTHS[prompt]]
            expected_branch = (100.0 * row + torch.arange(num_steps))[None, :, None].expand(HEADS, -1, WIDTH)
            torch.testing.assert_close(seen, torch.cat((expected_prompt, expected_branch), dim=1))


@pytest.mark.parametrize(("block", "compact"), list(product([2, 8], [True, False])))
def test_each_row_sees_its_prompt_and_its_branch(block: int, compact: bool) -> None:
    prefill, cache = make_cache(block=block, compact=compact)
    rows = torch.arange(PROMPTS * COMPLETIONS)
    step = 0
    for kept in (
        list(range(12)),  # all, as they are
        [0, 1, 3, 4, 5, 6, 7, 9],  # prompts with different numbers of rows left
        [2, 1, 7, 3],  # another order; the first prompt has two left, the second one, the third one
        [3, 1],  # the second and the first
        [0],
    ):
        if len(kept) < len(rows):
            cache.keep(torch.tensor(kept))
            rows = rows[kept]
        for _ in range(3):
            write(cache, rows, step)
            step += 1
        check(cache, prefill, rows, step)


@pytest.mark.parametrize("block", [2, 8])
def test_rows_of_different_lengths(block: int) -> None:
    cache = make_cache(block=block, compact=True)[1]
    cache.keep(torch.tensor([0, 1, 5, 11]))
    rows = torch.tensor([0, 1, 5, 11])
    lengths = [0, 0, 0, 0]
    # Tokens fed to each row, and how many of them hold: the others were wrong guesses.
    for fed, held in [([1, 3, 2, 1], [1, 1, 2, 1]), ([4, 1, 0, 2], [2, 1, 0, 2]), ([1, 1, 1, 1], [1, 1, 1, 1])]:
        of_rows, columns = [], []
        for row, count in enumerate(fed):
            of_rows += [row] * count
            columns += range(lengths[row], lengths[row] + count)
        cache.open_places(torch.tensor(of_rows), torch.tensor(columns))
        token = (100.0 * rows[of_rows] + torch.tensor(columns))[:, None, None, None].expand(-1, HEADS, 1, WIDTH)
        for layer in range(LAYERS):
            keys, _ = cache.update(token, -token, layer)
            grid = cache.prefix(layer).branches
            slots = torch.arange(len(of_rows)) if grid.slots is None else grid.slots
            assert (slots // grid.num_slots).tolist() == of_rows
            for place, (row, column) in enumerate(zip(of_rows, columns, strict=True)):
                # A token sees its row from the first column to its own.
                visible = cache.mask[place, 0, 0, -keys.shape[2] :].nonzero().flatten()
                assert visible.tolist() == list(range(column + 1))
                expected = 100.0 * float(rows[row]) + torch.arange(column + 1)
                torch.testing.assert_close(keys[row, 0, visible, 0], expected)
        lengths = [length + count for length, count in zip(lengths, held, strict=True)]


def test_a_prompt_is_dropped_with_its_last_row() -> None:
    prefill, cache = make_cache(block=4, compact=True)
    assert cache.prefix(0).prompts.slots is None  # all rows are there, in order
    cache.keep(torch.tensor([0, 1, 2, 8, 9]))  # three rows of the first prompt, two of the third
    prefix = cache.prefix(1)
    assert (len(prefix.keys), prefix.prompts.num_slots) == (2, 3)
    torch.testing.assert_close(prefix.keys[1, :, :COLUMNS], prefill.layers[1].keys[2])
    cache.keep(torch.tensor([0, 1, 3, 4]))  # two of each
    assert cache.prefix(0).prompts.slots is None
    assert cache.prefix(0).prompts.num_slots == 2


def test_shapes_stay_for_graphs() -> None:
    cache = make_cache(block=4, compact=False)[1]
    before = cache.prefix(0)
    cache.keep(torch.tensor([0, 8]))
    after = cache.prefix(0)
    assert after.keys is before.keys
    assert after.prompts.num_slots == before.prompts.num_slots == COMPLETIONS
    assert before.prompts.slots is not None
    assert after.prompts.slots is not None
    assert after.prompts.slots.tolist() == [0, 8]
