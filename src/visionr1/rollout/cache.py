"""The KV cache of decoding: one row for each completion, copied from the prefill of its prompt.

Axis letters: B prompts, G completions of one prompt, N rows, P columns of the prefill, D width of a head.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

Allocate = Callable[[int, tuple[int, ...], int, Tensor], Tensor]
"""Called with the number of a part, its shape (N, heads, columns, D), the most columns it will ever have, and a tensor
of its dtype and device; returns dense memory of that shape."""


class BranchCache:
    """Keys and values (N, heads, columns, D) of the running rows: layers write and read them while decoding.

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
    ) -> None:
        """Expand each row (B, P) of `prefill`, whose prompts lie where `is_prompt`, to G rows.

        The cache grows by `block` columns when it is full, into memory from `allocate`.
        """
        self._block = block
        self._allocate = allocate
        self.length: int = is_prompt.shape[1]
        """Columns that are written."""
        self._most_columns = self._round_up(self.length + max_new_tokens)

        # Keys and values of all layers, in one list: those of layer i are parts 2i and 2i + 1.
        device = is_prompt.device
        dtype = _cache_dtype(prefill, device)
        self.parts: list[Tensor] = []
        for layer in prefill.layers:
            self.parts += [layer.keys.to(dtype), layer.values.to(dtype)]

        self._visible = nn.functional.pad(is_prompt, (0, self._most_columns - self.length))[:, None, None]
        self.column = torch.zeros(1, dtype=torch.long, device=device)
        """(1,) number of the column to be written."""
        self.keep(torch.arange(len(is_prompt), device=device).repeat_interleave(num_completions))

    def keep(self, rows: Tensor) -> None:
        """Select `rows` of those there are; a row may come several times."""
        self._visible = self._visible[rows]
        self._copy(rows)

    def open_column(self) -> None:
        """Let every row see, and write, one column more."""
        if self.length == self.mask.shape[-1]:
            self._copy(torch.arange(len(self.mask), device=self.mask.device))
        self.mask[..., self.length] = True
        self.column.fill_(self.length)
        self.length += 1

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any) -> tuple[Tensor, Tensor]:
        """Write the open column (N, heads, 1, D) of a layer and return all columns. Attention layers call this."""
        cached_keys, cached_values = self.parts[2 * layer], self.parts[2 * layer + 1]
        cached_keys.index_copy_(2, self.column, keys.to(cached_keys.dtype))
        cached_values.index_copy_(2, self.column, values.to(cached_values.dtype))
        return cached_keys, cached_values

    def _copy(self, rows: Tensor) -> None:
        """Copy `rows` into new memory, with room for one column more."""
        columns, length = self._round_up(self.length + 1), self.length
        self.mask = self._visible[..., :columns]
        """(N, 1, 1, columns) True where a row may look."""
        for number, part in enumerate(self.parts):
            kept = part[:, :, :length].index_select(0, rows)
            shape = (*kept.shape[:2], columns, kept.shape[3])
            self.parts[number] = self._allocate(number, shape, self._most_columns, part)
            self.parts[number][:, :, :length] = kept
            self.parts[number][:, :, length:] = 0

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
