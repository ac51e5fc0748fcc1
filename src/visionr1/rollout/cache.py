"""The KV cache of decoding: keys and values of each prompt once, and of each completion's branch.

Axis letters: B prompts, G completions of one prompt, N rows, P columns of the prompts, K heads with keys, D width of a
head.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from visionr1.models.attention.decode import SharedPrefix

Allocate = Callable[[int, tuple[int, ...], int, Tensor], Tensor]
"""Called with the number of a part, its shape (N, K, columns, D), the most columns it will ever have, and a tensor
of its dtype and device; returns dense memory of that shape."""


class BranchCache:
    """Keys and values (N, K, columns, D) of the running rows: layers write and read them while decoding.

    Attention reads all columns, those not yet written under `mask`, because it is fastest on whole tensors.
    """

    def __init__(
        self,
        prefill: DynamicCache,
        is_prompt: Tensor,
        *,
        num_completions: int,
        max_new_tokens: int,
        block: int,
        allocate: Allocate,
        compact: bool,
    ) -> None:
        """Begin G branches after each prompt, which lie where `is_prompt` (B, P) in `prefill`.

        Branches grow by `block` columns when they are full, into memory from `allocate`; prompts are padded to a
        multiple of it. With `compact` a prompt is dropped with its last row; else shapes change as little as they can.
        """
        self._block = block
        self._allocate = allocate
        self._compact = compact
        self._most_columns = self._round_up(max_new_tokens)
        self._num_slots = num_completions
        device = is_prompt.device

        # Parts 2i and 2i + 1 are the keys and values of layer i, in a list for prompts and one for branches.
        self.prefix_parts = self._copy_prefill(prefill, is_prompt.shape[1])
        self.parts: list[Tensor] = []
        for number, part in enumerate(self.prefix_parts):
            shape = (len(is_prompt) * num_completions, part.shape[1], block, part.shape[3])
            self.parts.append(allocate(number, shape, self._most_columns, part).zero_())

        self.length: int = 0
        """Columns of the branches that are written."""
        self.column = torch.zeros(1, dtype=torch.long, device=device)
        """(1,) number of the column to be written."""
        num_padding = self.prefix_parts[0].shape[2] - is_prompt.shape[1]
        visible = nn.functional.pad(is_prompt, (0, num_padding + block))
        self.mask = visible.repeat_interleave(num_completions, dim=0)[:, None, None]
        """(N, 1, 1, P + columns) True where a row may look."""
        self.slots = torch.arange(len(self.mask), device=device)
        """(N,) each row's slot, as in `SharedPrefix`."""
        self._is_full = True

    def keep(self, rows: Tensor) -> None:
        """Select `rows` of those there are."""
        self.mask = self.mask[rows]
        self.slots = self.slots[rows]
        self._is_full = False
        self._copy_branches(rows, self.parts[0].shape[2])
        if self._compact:
            self._drop_ended_prompts()

    def open_column(self) -> None:
        """Let every row see, and write, one column more."""
        columns = self.parts[0].shape[2]
        if self.length == columns:
            self.mask = nn.functional.pad(self.mask, (0, self._block))
            self._copy_branches(torch.arange(len(self.mask), device=self.mask.device), columns + self._block)
        self.mask[..., self.prefix_parts[0].shape[2] + self.length] = True
        self.column.fill_(self.length)
        self.length += 1

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any) -> tuple[Tensor, Tensor]:
        """Write the open column (N, K, 1, D) of a layer and return all of its branches. Attention layers call this."""
        cached_keys, cached_values = self.parts[2 * layer], self.parts[2 * layer + 1]
        cached_keys.index_copy_(2, self.column, keys.to(cached_keys.dtype))
        cached_values.index_copy_(2, self.column, values.to(cached_values.dtype))
        return cached_keys, cached_values

    def prefix(self, layer: int) -> SharedPrefix:
        """Return what the rows of a layer share."""
        return SharedPrefix(
            keys=self.prefix_parts[2 * layer],
            values=self.prefix_parts[2 * layer + 1],
            num_slots=self._num_slots,
            slots=None if self._compact and self._is_full else self.slots,
        )

    def _copy_prefill(self, prefill: DynamicCache, length: int) -> list[Tensor]:
        """Return the keys and values of a prefill, padded to a whole block, in the dtype that attention uses."""
        device = prefill.layers[0].keys.device
        dtype = _cache_dtype(prefill, device)
        columns = self._round_up(length)
        copies: list[Tensor] = []
        for layer in prefill.layers:
            for part in (layer.keys, layer.values):
                number = 2 * len(prefill.layers) + len(copies)  # after those of the branches
                shape = (*part.shape[:2], columns, part.shape[3])
                copy = self._allocate(number, shape, columns, part.new_empty(0, dtype=dtype))
                copy[:, :, :length] = part
                copy[:, :, length:] = 0
                copies.append(copy)
        return copies

    def _copy_branches(self, rows: Tensor, columns: int) -> None:
        """Copy `rows` into new memory of so many columns."""
        length = self.length
        for number, part in enumerate(self.parts):
            kept = part[:, :, :length].index_select(0, rows)
            shape = (*kept.shape[:2], columns, kept.shape[3])
            self.parts[number] = self._allocate(number, shape, self._most_columns, part)
            self.parts[number][:, :, :length] = kept
            self.parts[number][:, :, length:] = 0

    def _drop_ended_prompts(self) -> None:
        """Leave out prompts that no row follows, and slots that none of the others needs."""
        prompts, prompt_of_row = (self.slots // self._num_slots).unique(return_inverse=True)
        if len(prompts) < len(self.prefix_parts[0]):
            self.prefix_parts = [part.index_select(0, prompts) for part in self.prefix_parts]

        # Rows of one prompt take its first slots, in their order.
        is_same = prompt_of_row[:, None] == prompt_of_row
        rank = is_same.tril(-1).sum(dim=1)
        self._num_slots = int(rank.max()) + 1
        self.slots = prompt_of_row * self._num_slots + rank
        every_slot = torch.arange(len(prompts) * self._num_slots, device=self.slots.device)
        self._is_full = torch.equal(self.slots, every_slot)

    def _round_up(self, length: int) -> int:
        """Round a number of columns up to a multiple of the block."""
        return -(-length // self._block) * self._block


def _cache_dtype(prefill: DynamicCache, device: torch.device) -> torch.dtype:
    """Return the dtype in which attention uses keys: casting them once spares a cast per token."""
    if device.type == "cpu":
        return torch.float32  # attention computes in it there: see `models.attention.decode`
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    dtype: torch.dtype = prefill.layers[0].keys.dtype
    return dtype
