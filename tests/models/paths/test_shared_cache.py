"""The cache of decoding against transformers' own, update by update."""

import pytest
import torch
from transformers import DynamicCache, Qwen3Config

from visionr1.models.paths.shared_cache import DecodeCache, select_rows

WINDOW = 6
KINDS = ["full_attention", "sliding_attention"]


def make_layers(prompt: int) -> tuple[Qwen3Config, DynamicCache]:
    """A layer that keeps all tokens and one that keeps a window, after a prompt of three rows."""
    generator = torch.Generator().manual_seed(0)
    config = Qwen3Config(num_hidden_layers=2, layer_types=KINDS, sliding_window=WINDOW, use_sliding_window=True)
    cache = DynamicCache(config=config)
    for number in range(2):
        cache.update(*torch.rand((2, 3, 2, prompt, 4), generator=generator), number)
    return config, cache


@pytest.mark.parametrize("prompt", [3, WINDOW - 1, WINDOW, 11])
def test_decoding_sees_what_concatenation_gives(prompt: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DecodeCache, "ROOM", 2)  # memory moves every third token
    config, plain = make_layers(prompt)
    cache = DecodeCache(config, select_rows(plain.layers, torch.arange(3)))
    generator = torch.Generator().manual_seed(1)
    rows = 3
    for step in range(12):
        # Rows end, and others take their places.
        if step == 5:
            rows = 2
            plain.layers = select_rows(plain.layers, torch.tensor([2, 0]))
            cache.layers = select_rows(cache.layers, torch.tensor([2, 0]))
        for number in range(2):
            assert cache.layers[number].get_mask_sizes(1) == plain.layers[number].get_mask_sizes(1)
            new = torch.rand((2, rows, 2, 1, 4), generator=generator)
            for mine, expected in zip(cache.update(*new, number), plain.update(*new, number), strict=True):
                assert torch.equal(mine, expected)
            assert torch.equal(cache.layers[number].keys, plain.layers[number].keys)
            assert cache.get_seq_length(number) == plain.get_seq_length(number)


def test_a_token_copies_nothing_while_there_is_room() -> None:
    config, plain = make_layers(11)
    cache = DecodeCache(config, plain.layers)
    new = torch.rand(2, 3, 2, 1, 4)
    places = {cache.update(*new, 0)[0].data_ptr() for _ in range(DecodeCache.ROOM)}
    assert len(places) == 1
