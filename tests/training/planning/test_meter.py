"""The meter: bytes alive by part, and what operations cost."""

import itertools

import pytest
import torch
from torch import nn

from visionr1.training.planning.meter import Meter
from visionr1.training.planning.sized import like, sized

KIB = 1024


def alive(meter: Meter) -> dict[str, int]:
    """The bytes of each part that are alive now."""
    parts: dict[str, int] = {}
    for number, size in meter.events:
        label = meter.labels[number]
        parts[label] = parts.get(label, 0) + size
    return {label: size for label, size in parts.items() if size}


@pytest.mark.parametrize("with_content", [True, False])
def test_a_tensor_counts_once_and_as_long_as_a_view_of_it_lives(with_content: bool) -> None:
    given = torch.zeros(KIB) if with_content else sized((KIB,))
    meter = Meter(lambda operation: 0.0)
    meter.count(given, "weights")
    with meter:
        doubled = given * 2
        view = doubled[:10].view(2, 5)
        del doubled
        assert alive(meter) == {"weights": 4 * KIB, "activations": 4 * KIB}
        with meter.part("logits"):
            logits = view * 1
        assert alive(meter)["logits"] == 40
        meter.relabel([logits], "gradients")
        del view
        assert alive(meter) == {"weights": 4 * KIB, "gradients": 40}


def test_without_content_a_step_has_the_peak_that_it_has_with_it() -> None:
    peaks = []
    for with_content in (True, False):
        model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
        if not with_content:
            for module in (model[0], model[2]):
                for name in ("weight", "bias"):
                    setattr(module, name, nn.Parameter(like(getattr(module, name).detach())))
        meter = Meter(lambda operation: 0.0)
        with meter:
            batch = torch.ones(32, 64) if with_content else sized((32, 64))
            model(batch).square().sum().backward()
        peaks.append(max(itertools.accumulate(size for _, size in meter.events)))
    assert peaks[0] == peaks[1] > 4 * 2 * 64 * 256


def test_flops_and_traffic_of_products_attention_and_lookups() -> None:
    meter = Meter(lambda operation: 1.0)
    table, row = sized((1000, 8)), sized((1, 8))
    with meter, meter.measured() as works:
        row @ sized((8, 4))
    assert works["activations"].flops == 2 * 8 * 4
    with meter, meter.measured() as works:
        torch.nn.functional.embedding(torch.tensor([1, 2]), table)
    assert works["activations"].num_bytes == 2 * 2 * 8 * 4  # not the whole table
    states = sized((1, 2, 16, 8))
    with meter, meter.measured() as works:
        torch.nn.functional.scaled_dot_product_attention(states, states, states)
    assert works["activations"].flops == 2 * (2 * 2 * 16 * 16 * 8)
    with meter, meter.measured() as works:
        table.view(8, 1000)
    assert works == {}  # a view is no operation
