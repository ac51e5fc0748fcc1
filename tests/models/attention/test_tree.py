"""Attention of prefixes and branches against one dense tree mask."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from visionr1.models.attention.tree import Tree, tree_attention, tree_mask

PREFIXES = ((0, 5), (12, 3))  # first place and length, of two samples in a row of 24, of which 21 are tokens
BRANCHES = ((5, 4), (9, 1), (10, 2), (15, 2), (17, 4))
PREFIX_OF = (0, 0, 0, 1, 1)
TOKENS = 24


def dense_mask() -> torch.Tensor:
    """True (T, T) where a token may look: its own part so far, and the whole prefix of its branch."""
    mask = torch.zeros(TOKENS, TOKENS, dtype=torch.bool)
    for start, length in (*PREFIXES, *BRANCHES):
        mask[start : start + length, start : start + length] = torch.ones(length, length).tril().bool()
    for (start, length), owner in zip(BRANCHES, PREFIX_OF, strict=True):
        first, size = PREFIXES[owner]
        mask[start : start + length, first : first + size] = True
    return mask


def test_it_is_that_of_the_dense_mask_gradients_included() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, TOKENS, 8, generator=generator, requires_grad=True)
    key, value = (torch.randn(1, 2, TOKENS, 8, generator=generator, requires_grad=True) for _ in range(2))
    tokens = dense_mask().any(dim=1)
    expected = scaled_dot_product_attention(
        query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), attn_mask=dense_mask(), scale=0.3
    )[0, :, tokens]
    tree = Tree(PREFIXES, BRANCHES, PREFIX_OF, TOKENS)
    output, _ = tree_attention(nn.Module(), query, key, value, None, tree=tree, scaling=0.3)
    found = output[0].transpose(0, 1)[:, tokens]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert not output[0, ~tokens].any()  # padding looks at nothing
    wanted = torch.autograd.grad(expected.square().sum(), (query, key, value))
    for mine, theirs in zip(torch.autograd.grad(found.square().sum(), (query, key, value)), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_layers_share_one_mask_under_autocast_too() -> None:
    tree, masks = Tree(((0, 5),), ((5, 3), (8, 3)), (0, 0), 11), set()

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape == (2, 1, 2 * 3, 5 + 3):  # (N, 1, groups x C, P + C)
            masks.add((tensor.data_ptr(), tensor.dtype))
        return tensor

    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        for _ in range(3):
            query, key = (torch.randn(1, heads, 11, 16, requires_grad=True) for heads in (4, 2))
            output, _ = tree_attention(nn.Module(), query, key, key.bfloat16(), None, tree=tree)
            assert output.dtype == torch.bfloat16
    assert [dtype for _, dtype in masks] == [torch.bfloat16]


def test_a_mask_is_made_for_padding_and_for_longer_pasts_alone() -> None:
    shape = {"batch_size": 1, "q_length": 4}
    assert tree_mask(**shape, kv_length=4, attention_mask=None) is None
    padded = tree_mask(**shape, kv_length=4, attention_mask=torch.tensor([[False, True, True, True]]))
    assert padded is not None
    assert padded[0, 0, 3].tolist() == [False, True, True, True]
    later = tree_mask(**shape, kv_length=6, q_offset=2, attention_mask=None, allow_is_causal_skip=False)
    assert later is not None
    assert later[0, 0].sum(dim=-1).tolist() == [3, 4, 5, 6]
