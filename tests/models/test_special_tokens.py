"""Tokens of their own that dialects are written in: sampled and read, though a tokenizer holds them as special."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from visionr1.dialects import HasTokens, get_dialect
from visionr1.models.special_tokens import special_ids
from visionr1.samples import Boxes

NAMES = ["qwen2vl", "rex", "deepseek_vl2", "kosmos2", "paligemma", "florence2", "minicpm", "internvl", "glm"]


@pytest.fixture(scope="module")
def tokenizer(qwen3_folder: Path) -> PreTrainedTokenizerFast:
    """Return a tokenizer that holds the tokens of every dialect as special ones, and one of its own."""
    loaded = AutoTokenizer.from_pretrained(qwen3_folder, trust_remote_code=False)
    tokens = ["<|other|>"]
    for name in NAMES:
        dialect = get_dialect(name)
        assert isinstance(dialect, HasTokens)
        tokens += dialect.tokens
    loaded.add_special_tokens({"additional_special_tokens": list(dict.fromkeys(tokens))})
    return loaded  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", [*NAMES, "think+rex", "open-think+paligemma"])
def test_every_token_of_the_dialect_may_be_written_and_no_other(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    dialect = get_dialect(name)
    assert isinstance(dialect, HasTokens)
    special = special_ids(tokenizer, dialect)
    # Whichever coordinates a reply has, not those of one box alone.
    assert not special & set(tokenizer.convert_tokens_to_ids(list(dialect.tokens)))
    assert tokenizer.convert_tokens_to_ids("<|other|>") in special

    # What is decoded without the rest is read as it was written.
    boxes = Boxes.of([[10, 20, 500, 700], [900, 30, 990, 980]], ["cat", "dog"])
    text = dialect.render(boxes, size_wh=(1000, 1000), input_size_wh=(1000, 1000))
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert not special & set(ids)
    decoded = tokenizer.decode([token for token in ids if token not in special], skip_special_tokens=False)
    assert decoded == text
    assert dialect.parse(decoded, size_wh=(1000, 1000), input_size_wh=(1000, 1000)).well_formed


def test_a_dialect_of_plain_text_lets_no_special_token_pass(tokenizer: PreTrainedTokenizerFast) -> None:
    special = special_ids(tokenizer, get_dialect("qwen3"))
    assert {tokenizer.convert_tokens_to_ids(token) for token in ("<|box_start|>", "<loc0001>", "<|other|>")} <= special
