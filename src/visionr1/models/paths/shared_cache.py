"""The cache of a prompt, which many completions read: transformers' own layers, forked instead of written.

A layer of transformers' cache holds what later tokens need of earlier ones: keys and values, of all tokens or of a
window, or the states of a recurrence. A pass writes into it. Three things stand against sharing one prompt's cache
between completions and differentiating through it: a pass that writes into the cache changes what other passes read; a
recurrent state is overwritten in place, though the gradient still needs it; and gradient checkpointing runs a layer
again, which would write twice. So a pass here reads its past and keeps what it adds aside, in copies.

Axis letters: B prompts, G rows for one prompt, H heads, T tokens, D width of a head.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionCacheLayerMixin

Layer = Any
"""A layer of transformers' cache."""

JOINED_LAYERS = frozenset(
    {
        "DummyLayer",
        "DynamicLayer",
        "DynamicSlidingWindowLayer",
        "LinearAttentionLayer",
        "LinearAttentionAndFullAttentionLayer",
        "LinearAttentionAndSlidingWindowAttentionLayer",
    }
)
"""Classes of layers whose state `join_rows` knows how to pad and concatenate; older versions do not have them all."""


class PassCache(DynamicCache):  # type: ignore[misc]
    """The cache of one forward pass: it reads `past` and writes into `result`, so the pass can be run again.

    Gradients flow from what reads `result` back through the pass, and through `past`.
    """

    layers: list[Layer]

    def __init__(self, config: Any, past: Sequence[Layer] | None = None) -> None:
        """`config` is the model's; without `past` the pass begins at the first token."""
        super().__init__(config=config)
        self._past = self.layers if past is None else list(past)
        self._added: dict[int, Layer] = {}
        self._updates: dict[int, set[Any]] = {}
        self.layers = _PassLayers(self._past, self._added)

    @property
    def result(self) -> list[Layer]:
        """The layers after the pass, for passes that go on from here."""
        return [self._added.get(number, layer) for number, layer in enumerate(self._past)]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return keys and values (B, H, T, D) of the past and of this pass. Attention layers call this."""
        layer = self._writable(layer_idx, "keys")
        keys, values = layer.update(key_states, value_states, *args, **kwargs)
        return keys, values

    def update_conv_state(self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any) -> Tensor:
        """Return the inputs of a convolution with those of the past before them. Convolutions call this."""
        layer = self._writable(layer_idx, ("conv", state_idx))
        states: Tensor = layer.update_conv_state(conv_states, state_idx, **kwargs)
        return states

    def update_recurrent_state(
        self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any
    ) -> Tensor:
        """Keep the last state of a recurrence. Linear attention calls this."""
        layer = self._writable(layer_idx, ("recurrent", state_idx))
        states: Tensor = layer.update_recurrent_state(recurrent_states, state_idx, **kwargs)
        return states

    def update_indexer(self, indexer_key_states: Tensor, layer_idx: int) -> Tensor:
        """Return the keys by which sparse attention chooses, of the past and of this pass."""
        keys: Tensor = self._writable(layer_idx, "indexer").update_indexer(indexer_key_states)
        return keys

    def _writable(self, number: int, update: Any) -> Layer:
        """Return the layer that this pass may write into.

        A layer makes each of its updates once. One that comes again says that the layer is run again, as checkpointing
        does for the gradient: it starts anew from the past.
        """
        if number not in self._added or update in self._updates[number]:
            self._added[number] = _copy(self._past[number])
            self._updates[number] = set()
        self._updates[number].add(update)
        return self._added[number]


class DecodeCache(DynamicCache):  # type: ignore[misc]
    """The cache of decoding: a token's keys and values are written behind those of the past, which stay where they are.

    transformers' own layers concatenate, which copies all keys and values at each token. Without gradients alone.
    """

    ROOM = 64
    """Columns to spare when keys and values are moved into larger memory."""

    def __init__(self, config: Any, layers: Sequence[Layer]) -> None:
        """`config` is the model's; `layers` are written into, and may be replaced by others with fewer rows."""
        super().__init__(config=config)
        self.layers = list(layers)
        self._memory: dict[tuple[int, str], _Columns] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return keys and values (B, H, T, D) of the past and of this token. Attention layers call this."""
        layer = self.layers[layer_idx]
        can_grow = type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) and layer.is_initialized
        if not can_grow or layer.keys.dtype != key_states.dtype:
            keys, values = super().update(key_states, value_states, layer_idx, *args, **kwargs)
            return keys, values

        keys = self._append((layer_idx, "keys"), layer.keys, key_states)
        values = self._append((layer_idx, "values"), layer.values, value_states)
        layer.keys, layer.values = keys, values

        # A window keeps one token less than it is wide: the next one makes it whole.
        if isinstance(layer, DynamicSlidingWindowLayer):
            layer.cumulative_length += key_states.shape[2]
            layer.keys = keys[:, :, -layer.sliding_window + 1 :]
            layer.values = values[:, :, -layer.sliding_window + 1 :]
        return keys, values

    def _append(self, name: tuple[int, str], past: Tensor, new: Tensor) -> Tensor:
        """Return `past` (B, H, T, D) with `new` behind it, as a view of memory that has room for more."""
        columns = self._memory.get(name)
        if columns is None or not columns.ends_with(past, new.shape[2]):
            columns = self._memory[name] = _Columns(past, new.shape[2] + self.ROOM)
        return columns.append(past.shape[2], new)


class _Columns:
    """Memory (B, H, columns, D) of which the first columns are written."""

    def __init__(self, past: Tensor, room: int) -> None:
        """Begin with `past`, and `room` for so many columns more."""
        rows, heads, self.end, width = past.shape
        self.memory = past.new_empty((rows, heads, self.end + room, width))
        self.memory[:, :, : self.end] = past

    def ends_with(self, past: Tensor, num_new: int) -> bool:
        """Return True if `past` is a view of the last written columns, behind which `num_new` more have room."""
        last = self.memory[:, :, self.end - past.shape[2] : self.end]
        is_view = past.shape == last.shape and past.stride() == last.stride() and past.data_ptr() == last.data_ptr()
        return is_view and self.end + num_new <= self.memory.shape[2]

    def append(self, num_past: int, new: Tensor) -> Tensor:
        """Write `new` behind the last column; return it with the `num_past` columns before it."""
        start = self.end - num_past
        self.memory[:, :, self.end : self.end + new.shape[2]] = new
        self.end += new.shape[2]
        return self.memory[:, :, start : self.end]


class _PassLayers(list[Layer]):
    """The layers of a pass by number: its past, but what the pass has written of layers with an index of keys.

    Sparse attention may reach for its layer itself, behind the layer's first update (GLM-5, MiniMax M3). All other
    layers are read before they are written, also when checkpointing runs them again.
    """

    def __init__(self, past: Sequence[Layer], added: Mapping[int, Layer]) -> None:
        super().__init__(past)
        self._added = added

    def __getitem__(self, number: Any) -> Any:
        layer = super().__getitem__(number)
        has_index = hasattr(layer, "update_indexer") or hasattr(layer, "update_index")
        return self._added.get(number, layer) if has_index else layer


def _copy(layer: Layer) -> Layer:
    """Return a layer that can be written into without a change to `layer`."""
    # Keys and values are concatenated into new tensors, so that copying the references to them is enough.
    copied = copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, dict):
            setattr(copied, name, dict(value))

    # The states of convolutions and recurrences are written in place.
    if isinstance(layer, LinearAttentionCacheLayerMixin):
        for states in (copied.conv_states, copied.recurrent_states):
            for index, state in states.items():
                if state is not None:
                    states[index] = state.clone()
    return copied


def select_rows(layers: Sequence[Layer], rows: Tensor) -> list[Layer]:
    """Return layers with these of their `rows`; a row may come several times. `layers` stay as they are."""
    selected = []
    for layer in layers:
        layer = _copy(layer)
        layer.reorder_cache(rows)
        selected.append(layer)
    return selected


def lengthen(layers: Sequence[Layer], num_tokens: int) -> list[Layer]:
    """Return layers as long as after so many tokens more, without their content; `layers` stay as they are."""
    longer = []
    for layer in layers:
        layer = _copy(layer)
        longer.append(layer)
        if not isinstance(layer, DynamicLayer) or not layer.is_initialized:
            continue  # states do not grow

        # A window holds one token less than it sees.
        length = layer.keys.shape[2] + num_tokens
        if isinstance(layer, DynamicSlidingWindowLayer):
            length = min(length, layer.sliding_window - 1)
            layer.cumulative_length += num_tokens
        for name in ("keys", "values"):
            states = getattr(layer, name)
            setattr(layer, name, states.new_empty((*states.shape[:2], length, states.shape[3])))
    return longer


def state_tensors(layers: Sequence[Layer]) -> list[Tensor]:
    """Return all tensors in which layers keep what later tokens need."""
    tensors: list[Tensor] = []
    for layer in layers:
        values = list(vars(layer).values())
        for value in list(values):
            values.extend(value.values() if isinstance(value, dict) else ())
        tensors.extend(value for value in values if isinstance(value, Tensor))
    return tensors


def can_join(layers: Sequence[Layer]) -> bool:
    """Return True if `join_rows` knows all kinds of these layers."""
    return all(type(layer).__name__ in JOINED_LAYERS for layer in layers)


def join_rows(caches: Sequence[Sequence[Layer]]) -> list[Layer]:
    """Return the layers whose rows are those of all `caches`, each padded on the left to the longest.

    A mask has to hide the padding. Layers must be of the kinds in JOINED_LAYERS.
    """
    return [_join(layers) for layers in zip(*caches, strict=True)]


def _join(layers: Sequence[Layer]) -> Layer:
    """Return one layer with the rows of all `layers`."""
    joined = _copy(layers[0])
    if isinstance(joined, DynamicLayer) and joined.is_initialized:
        joined.keys = _join_left_padded([layer.keys for layer in layers])
        joined.values = _join_left_padded([layer.values for layer in layers])
        if isinstance(joined, DynamicSlidingWindowLayer):
            joined.cumulative_length = max(layer.cumulative_length for layer in layers)

    # States have no axis of tokens.
    if isinstance(joined, LinearAttentionCacheLayerMixin):
        for index, state in joined.conv_states.items():
            if state is not None:
                joined.conv_states[index] = torch.cat([layer.conv_states[index] for layer in layers])
        for index, state in joined.recurrent_states.items():
            if state is not None:
                joined.recurrent_states[index] = torch.cat([layer.recurrent_states[index] for layer in layers])
    return joined


def _join_left_padded(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate keys or values (B, H, T, D) along the rows, with zeros before the shorter ones."""
    longest = max(part.shape[2] for part in parts)
    return torch.cat([pad(part, (0, 0, longest - part.shape[2], 0)) for part in parts])
