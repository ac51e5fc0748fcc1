"""Tensors without content: their sizes are those that torch gives tensors with it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm, scaled_dot_product_attention

from visionr1.errors import TrainingError
from visionr1.training.planning.sized import SizedTensor, like, reading_as, remove_content, sized

OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "a broadcast sum": lambda x: x + torch.ones(4, 1),
    "a product": lambda x: x @ x.mT,
    "a view": lambda x: x.transpose(1, 2)[..., 1:],
    "a comparison": lambda x: x > 0,
    "another dtype": lambda x: x.bfloat16(),
    "norm": lambda x: layer_norm(x, (6,)),
    "a mask of tokens": lambda x: x[torch.tensor([True, False, True])],
    "places": lambda x: x[:, torch.tensor([0, 2])],
    "scattered": lambda x: x.masked_scatter(torch.ones(3, 4, 1, dtype=torch.bool), torch.zeros(12, 6)),
    "written in place": lambda x: x.clone().mul_(2),
    "attention": lambda x: scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True),
    "loss": lambda x: cross_entropy(x[0], torch.tensor([0, 1, 2, 3])),
    "several results": lambda x: x.max(dim=-1).values,
    "a whole number is no float": lambda x: (x > 0).sum() + 1,
    "a float is no whole number": lambda x: (x > 0).sum() + 1.0,
    "rows of two": lambda x: torch.cat((x, torch.zeros(1, 4, 6))),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_sizes_are_those_of_tensors_with_content(name: str) -> None:
    content = torch.randn(3, 4, 6)
    expected = OPERATIONS[name](content)
    for _ in range(2):  # the second time they are remembered
        result = OPERATIONS[name](like(content))
        assert isinstance(result, SizedTensor)
        described = [(t.shape, t.stride(), t.dtype, t.device.type) for t in (result, expected)]
        assert described[0] == described[1]


def test_gradients_have_the_sizes_of_their_weights_and_tied_weights_stay_one() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4, bias=False))
        model.append(nn.Linear(4, 8, bias=False))
    model[3].weight = model[0].weight
    remove_content(model, torch.bfloat16)
    assert model[3].weight is model[0].weight
    model(sized((2, 4), torch.bfloat16)).sum().backward()
    for weight in model.parameters():
        assert weight.grad is not None
        assert (weight.grad.shape, weight.grad.dtype) == (weight.shape, torch.bfloat16)


def test_autocast_casts_them() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert (sized((2, 4)) @ sized((4, 3))).dtype == torch.bfloat16


def test_a_number_that_is_not_there_is_an_error_unless_one_is_given() -> None:
    total = sized((3,)).sum()
    with pytest.raises(TrainingError, match="content"):
        total.item()
    with reading_as(7):
        assert int(total) == 7
