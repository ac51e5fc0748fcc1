"""Attention by blocks: which blocks there are, and on a GPU the compiled kernel against stacked attention."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch._inductor.exc import InductorError
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from visionr1.errors import TrainingError
from visionr1.models.attention.block_sparse import BLOCK, block_sparse_attention, make_block_mask
from visionr1.models.attention.tree import LONG_ROW, Tree, tree_attention
from visionr1.training.recipe import Recipe
from visionr1.training.train import backward

CPU = torch.device("cpu")
ROWS = [
    (((0, 5), (12, 3)), ((5, 4), (9, 1), (10, 2), (15, 2), (17, 4)), (0, 0, 0, 1, 1), 24),  # all in one block
    (((0, 300),), ((300, 60), (360, 1), (361, 250)), (0, 0, 0), 640),  # whole blocks of the prefix
    (((0, 256), (640, 400)), ((256, 128), (384, 256), (1040, 300)), (0, 0, 1), 1408),  # edges at a block's, padding
    (((0, 128),), ((128, 64), (192, 64), (256, 64), (320, 64)), (0, 0, 0, 0), 384),  # several branches fill a block
    (((0, 1),), ((1, 570),), (0,), 576),  # padding of many blocks
]


def looking(prefixes: tuple, branches: tuple, prefix_of: tuple, tokens: int) -> Tensor:
    """True (T, T) where a place may look; padding, to a power of two, looks at itself."""
    places = max(BLOCK, 2 ** math.ceil(math.log2(tokens)))
    mask = torch.eye(places, dtype=torch.bool)
    for start, length in (*prefixes, *branches):
        mask[start : start + length, start : start + length] = torch.ones(length, length).tril().bool()
    for (start, length), owner in zip(branches, prefix_of, strict=True):
        first, size = prefixes[owner]
        mask[start : start + length, first : first + size] = True
    return mask


@pytest.mark.parametrize("row", ROWS)
def test_blocks_are_those_that_a_dense_mask_has(row: tuple) -> None:
    dense, mask = looking(*row), make_block_mask(*row, CPU)
    places = torch.arange(len(dense))
    assert torch.equal(mask.mask_mod(CPU, CPU, places[:, None], places[None]), dense)
    expected = create_block_mask(lambda b, h, q, k: dense[q, k], 1, 1, *dense.shape, device="cpu", BLOCK_SIZE=BLOCK)
    assert mask.shape == expected.shape == (1, 1, *dense.shape) and mask.BLOCK_SIZE == expected.BLOCK_SIZE
    assert torch.equal(mask.to_dense(), expected.to_dense())
    for name in ("kv", "full_kv", "q", "full_q"):
        counts, wanted = getattr(mask, f"{name}_num_blocks"), getattr(expected, f"{name}_num_blocks")
        assert torch.equal(counts, wanted), name
        lists, orders = getattr(mask, f"{name}_indices"), getattr(expected, f"{name}_indices")
        for count, mine, theirs in zip(counts.flatten(), lists.flatten(0, 2), orders.flatten(0, 2), strict=True):
            assert torch.equal(mine[:count], theirs[:count]), name


def test_rows_of_like_length_take_one_compilation() -> None:
    counted = []
    for tokens in (700, 1024, 900, 1025):
        mask = make_block_mask(((0, 400),), ((400, 100), (500, 77)), (0, 0), tokens, CPU)
        query, key = torch.zeros(1, 2, tokens, 8), torch.zeros(1, 1, tokens, 8)
        assert block_sparse_attention(query, key, key, mask, 0.3).shape == query.shape
        counted.append(counters["stats"]["unique_graphs"])
    assert counted[0] == counted[1] == counted[2] == counted[3] - 1


def test_what_cannot_be_compiled_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(graph: object, inputs: object) -> None:
        raise RuntimeError("no compiler here")

    broken = torch.compile(flex_attention, fullgraph=True, backend=refuse)
    monkeypatch.setattr("visionr1.models.attention.block_sparse._kernel", lambda kind: broken)
    mask, states = make_block_mask(((0, 9),), ((9, 3),), (0,), 12, CPU), torch.zeros(1, 1, 12, 8)
    with pytest.raises(TrainingError, match=r"long row cannot be compiled: .*no compiler here.*tokens_per_forward"):
        block_sparse_attention(states, states, states, mask, None)


def test_what_cannot_be_compiled_of_the_backward_pass_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(graph: object, inputs: object) -> None:
        raise InductorError(RuntimeError("out of resource: shared memory"), None)

    backend = aot_autograd(fw_compiler=lambda graph, inputs: graph.forward, bw_compiler=refuse)
    broken = torch.compile(flex_attention, fullgraph=True, backend=backend)
    monkeypatch.setattr("visionr1.models.attention.block_sparse._kernel", lambda kind: broken)
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *states: None)
    mask, states = make_block_mask(((0, 9),), ((9, 3),), (0,), 12, CPU), torch.zeros(1, 1, 12, 8, requires_grad=True)

    def loss(part: object) -> tuple[Tensor, dict[str, Any]]:
        return block_sparse_attention(states, states, states, mask, None).sum(), {}

    run: Any = SimpleNamespace(
        recipe=Recipe(),
        policy=SimpleNamespace(device=CPU),
        learner=SimpleNamespace(loss=loss),
        trained=lambda function: function(),
        accelerator=SimpleNamespace(num_processes=1, distributed_type="NO"),
    )
    with pytest.raises(TrainingError, match=r"long row cannot be compiled: .*shared memory.*use smaller images"):
        backward(run, None, True, last=True)


def test_a_long_row_on_a_gpu_attends_by_blocks() -> None:
    prefixes, branches, prefix_of, _ = ROWS[1]
    short, long = (Tree(prefixes, branches, prefix_of, LONG_ROW["cuda"] + more) for more in (-1, 0))
    assert [tree.to(torch.device("cuda")).is_long for tree in (short, long)] == [False, True]
    assert not long.is_long


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel is compiled for GPUs")
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_compiled_kernel_is_stacked_attention(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, bound: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    for row in ROWS:
        *spans, tokens = row
        inputs = [
            torch.randn(1, heads, tokens, 64, generator=generator).to("cuda", dtype).requires_grad_()
            for heads in (8, 2, 2)
        ]
        found = []
        for start in (0, 10**9):
            monkeypatch.setitem(LONG_ROW, "cuda", start)
            tree = Tree(*spans, tokens).to(torch.device("cuda"))
            output, _ = tree_attention(nn.Module(), *inputs, None, tree=tree, scaling=0.125)
            output = output[:, : max(start + length for start, length in (*spans[0], *spans[1]))]
            found.append([output, *torch.autograd.grad(output.float().square().sum(), inputs)])
        for mine, theirs in zip(*found, strict=True):
            assert (mine - theirs).norm() < bound * theirs.norm()
