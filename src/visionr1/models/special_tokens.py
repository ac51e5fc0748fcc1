"""Token ids with a meaning of their own: those that end a reply, and those that no reply may hold."""

from typing import Any

import torch
from torch import Tensor

from visionr1.dialects import Dialect, HasTokens
from visionr1.errors import CheckpointError, short_repr
from visionr1.samples import Boxes


def end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Return every token that ends a reply, first the one that training writes.

    Settings may name tokens that the model does not have, as transformers' defaults do: they are left out. Raises
    CheckpointError if nothing is left, or if a setting is no token.
    """
    # The setting is one token, several or none.
    configured = model.generation_config.eos_token_id
    if not isinstance(configured, list):
        configured = [configured]
    ids = [tokenizer.eos_token_id, *configured]
    named = [i for i in ids if i is not None]

    # A token beyond the vocabulary can never be written.
    vocabulary = model.config.get_text_config().vocab_size
    are_numbers = all(type(i) is int and i >= 0 for i in named)
    if not are_numbers or not any(i < vocabulary for i in named):
        raise CheckpointError(
            "eos_token_id in tokenizer_config.json or generation_config.json: expected tokens that end a reply, whole "
            f"numbers below {vocabulary}, found {short_repr(named)}"
        )
    return tuple(dict.fromkeys(i for i in named if i < vocabulary))


def special_ids(tokenizer: Any, dialect: Dialect) -> set[int]:
    """Return the tokenizer's special tokens without those that `dialect` writes boxes in."""
    named = frozenset(dialect.tokens) if isinstance(dialect, HasTokens) else frozenset()
    special = set()
    for i, token in tokenizer.added_tokens_decoder.items():
        if token.special and token.content not in named:
            special.add(i)

    # Of a dialect that names none they are those of a reply that it renders.
    one_box = Boxes.of([[0, 0, 1, 1]], ["cat"])
    reply = dialect.render(one_box, size_wh=(9, 9), input_size_wh=(9, 9))
    return special - set(tokenizer.encode(reply, add_special_tokens=False))


def suppressed_ids(config: Any, tokenizer: Any, dialect: Dialect, end: tuple[int, ...]) -> Tensor:
    """Return the tokens that no reply may hold, but never those that `end` a reply.

    They are special tokens, those that the config names (of images, for example), and rows of the output layer beyond
    the tokenizer's vocabulary. Tokens that the model does not have need no mention.
    """
    vocabulary = config.get_text_config().vocab_size
    named = set()
    for key, value in config.to_dict().items():
        if key.endswith(("_token_id", "_token_index")) and isinstance(value, int):
            named.add(value)
    beyond = set(range(len(tokenizer), vocabulary))
    ids = (special_ids(tokenizer, dialect) | named | beyond) - set(end)
    return torch.tensor(sorted(i for i in ids if i < vocabulary), dtype=torch.long)
