"""The KV cache of decoding: keys and values of each prompt once, and of each completion's branch.

Axis letters: B prompts, G completions of one prompt, N rows, S tokens of one pass, P columns of the prompts, K heads
with keys, D width of a head.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from visionr1.models.attention.decode import Grid, SharedPrefix

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
        self._num_slots = 0 if compact else num_completions
        self._most_columns = self._round_up(max_new_tokens)
        self._device = is_prompt.device

        # Parts 2i and 2i + 1 are the keys and values of layer i, in a list for prompts and one for branches.
        self.prefix_parts = self._copy_prefill(prefill, is_prompt.shape[1])
        self.parts: list[Tensor] = []
        for number, part in enumerate(self.prefix_parts):
            shape = (len(is_prompt) * num_completions, part.shape[1], block, part.shape[3])
            self.parts.append(allocate(number, shape, self._most_columns, part).zero_())
        self._num_written = 0  # columns of the longest branch

        num_padding = self.prefix_parts[0].shape[2] - is_prompt.shape[1]
        padded = nn.functional.pad(is_prompt, (0, num_padding))
        self._sees_prompt = padded.repeat_interleave(num_completions, dim=0)  # (N, P)
        self._prompt_of_row = torch.arange(len(is_prompt)).repeat_interleave(num_completions)
        self._place_rows()

    def keep(self, rows: Tensor) -> None:
        """Select `rows` of those there are."""
        self._sees_prompt = self._sees_prompt[rows]
        self._prompt_of_row = self._prompt_of_row[rows.cpu()]
        self._copy_branches(rows, self.parts[0].shape[2])

        # Drop the keys of prompts that no row follows.
        if not self._num_slots:
            prompts, self._prompt_of_row = self._prompt_of_row.unique(return_inverse=True)
            if len(prompts) < len(self.prefix_parts[0]):
                prompts = prompts.to(self._device)
                self.prefix_parts = [part.index_select(0, prompts) for part in self.prefix_parts]
        self._place_rows()

    def open_column(self) -> None:
        """Let the next token of every row be written behind the last one."""
        rows = torch.arange(len(self._prompt_of_row), device=self._device)
        self._open(rows, torch.full_like(rows, self._num_written), self._num_written)

    def open_places(self, rows: Tensor, columns: Tensor) -> None:
        """Let the next S tokens be of `rows` (S,), in their `columns` (S,), both on a CPU.

        A token sees its row up to itself; what was written in later columns is forgotten.
        """
        self._prompts = Grid.of(self._prompt_of_row[rows], len(self.prefix_parts[0]), self._device)
        self._branches = Grid.of(rows, len(self._prompt_of_row), self._device)
        self._open(rows.to(self._device), columns.to(self._device), int(columns.max()))

    def skip(self, steps: int) -> None:
        """Go on as if up to `steps` columns had been written: to the last one before the cache grows again, if it does.

        For plans of memory, which need no content: the columns hold none.
        """
        end = self._num_written + steps
        last_block = end // self._block * self._block
        self._num_written = last_block if last_block > self._num_written else end
        columns = self._round_up(self._num_written)
        self.parts = [part.new_empty((*part.shape[:2], columns, part.shape[3])) for part in self.parts]

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any) -> tuple[Tensor, Tensor]:
        """Write the tokens (S, K, 1, D) of a layer and return all of its branches. Attention layers call this."""
        cached_keys, cached_values = self.parts[2 * layer], self.parts[2 * layer + 1]
        cached_keys[self.rows, :, self.columns] = keys[:, :, 0].to(cached_keys.dtype)
        cached_values[self.rows, :, self.columns] = values[:, :, 0].to(cached_values.dtype)
        return cached_keys, cached_values

    def prefix(self, layer: int) -> SharedPrefix:
        """Return what the tokens of a layer share."""
        return SharedPrefix(
            keys=self.prefix_parts[2 * layer],
            values=self.prefix_parts[2 * layer + 1],
            prompts=self._prompts,
            branches=self._branches,
        )

    def dynamic_tensors(self) -> list[Tensor]:
        """Return the tensors whose first axis is as long as there are rows."""
        tensors = [self.mask, self.rows, self.columns, *self.parts]
        if self._prompts.slots is not None:
            tensors.append(self._prompts.slots)
        return tensors

    def _place_rows(self) -> None:
        """Place one token of each row beside the others of its prompt."""
        num_rows = len(self._prompt_of_row)
        self._prompts = Grid.of(self._prompt_of_row, len(self.prefix_parts[0]), self._device, self._num_slots)
        self._branches = Grid(num_rows, 1, None)

    def _open(self, rows: Tensor, columns: Tensor, last_column: int) -> None:
        """Make room for tokens, and the mask of what they see."""
        if last_column >= self.parts[0].shape[2]:
            every_row = torch.arange(len(self._prompt_of_row), device=self._device)
            self._copy_branches(every_row, self._round_up(last_column + 1))
        self._num_written = max(self._num_written, last_column + 1)
        self.rows = rows
        """(S,) the row of each token to be written."""
        self.columns = columns
        """(S,) its column in that row."""
        sees_branch = torch.arange(self.parts[0].shape[2], device=self._device) <= columns[:, None]
        self.mask = torch.cat((self._sees_prompt[rows], sees_branch), dim=1)[:, None, None]
        """(S, 1, 1, P + columns) True where a token may look."""

    def _copy_prefill(self, prefill: DynamicCache, length: int) -> list[Tensor]:
        """Return the keys and values of a prefill, padded to a whole block, in the dtype that attention uses."""
        dtype = _cache_dtype(prefill, self._device)
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
        written = min(self._num_written, self.parts[0].shape[2])
        for number, part in enumerate(self.parts):
            kept = part[:, :, :written].index_select(0, rows)
            shape = (*kept.shape[:2], columns, kept.shape[3])
            self.parts[number] = self._allocate(number, shape, self._most_columns, part)
            self.parts[number][:, :, :written] = kept
            self.parts[number][:, :, written:] = 0

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
