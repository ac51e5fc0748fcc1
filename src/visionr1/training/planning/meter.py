"""A meter of what runs inside its block: bytes alive by part, products, traffic of memory, and operations.

Every tensor counts as long as its storage lives: what autograd saves, what a cache holds, what an operation makes on
its way. Its part is the label that is set when it is made; `relabel` moves it later, for a gradient is known as one
only when it hangs on its weight.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from visionr1.training.planning.sized import SizedTensor, is_sized, run_sized

aten = torch.ops.aten
GATHERING = {aten.embedding, aten.index_select, aten.gather, aten.index}
"""Operations that read no more of their first argument than they return."""
PLACING = {aten.index_copy, aten.index_copy_, aten.index_put, aten.index_put_, aten.copy_, aten.fill_, aten.zero_}
"""Operations that write into their first argument without reading it."""
ALLOCATING = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided}
"""Operations that neither read nor write."""
CPU_ATTENTION = aten._scaled_dot_product_flash_attention_for_cpu
CPU_ATTENTION_BACKWARD = aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True, slots=True)
class Operation:
    """What one ATen operation costs, apart from starting it."""

    flops: int
    num_bytes: int
    """Read and written."""
    is_half: bool
    """True if it multiplies matrices below float32."""


@dataclass(frozen=True, slots=True)
class Work:
    """What was computed: the number of operations, their FLOPs and bytes, and the seconds that a machine needs."""

    operations: int = 0
    flops: float = 0.0
    num_bytes: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.operations + other.operations,
            self.flops + other.flops,
            self.num_bytes + other.num_bytes,
            self.seconds + other.seconds,
        )

    def __sub__(self, other: Work) -> Work:
        return self + other * -1

    def __mul__(self, factor: float) -> Work:
        return Work(
            round(self.operations * factor), self.flops * factor, self.num_bytes * factor, self.seconds * factor
        )


class Meter(TorchDispatchMode):
    """Count what is computed inside this block, on tensors with content and without."""

    def __init__(self, seconds: Callable[[Operation], float]) -> None:
        """`seconds` says how long a machine takes for an operation."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._seconds = seconds
        self.label = "activations"
        self.vocabulary = 0
        """Where set, floats whose last axis is as long are logits."""
        self.events: list[tuple[int, int]] = []
        """The number of a storage and its bytes, negative where it is freed, in order."""
        self.labels: list[str] = []
        """The part of each storage, by its number."""
        self._works: dict[str, Work] = {}
        self._numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def count(self, value: Any, label: str = "") -> None:
        """Count the tensors in `value` from now on."""
        for tensor in _tensors(value):
            storage = _storage(tensor)
            if storage in self._numbers:
                continue
            number = len(self.labels)
            self._numbers[storage] = number
            self.labels.append(label or self._label_of(tensor))
            size = storage.nbytes()
            self.events.append((number, size))
            weakref.finalize(storage, self.events.append, (number, -size))

    def relabel(self, tensors: Iterable[Tensor], label: str) -> None:
        """Move tensors that are counted to another part."""
        for tensor in tensors:
            number = self._numbers.get(_storage(tensor))
            if number is not None:
                self.labels[number] = label

    @contextmanager
    def part(self, label: str) -> Iterator[None]:
        """Label what is made inside this block, unless a module sets a label of its own."""
        before, self.label = self.label, label
        try:
            yield
        finally:
            self.label = before

    def label_modules(self, modules: Iterable[nn.Module], label: str) -> None:
        """Label what is made in the forward passes of these modules, those for a checkpoint's gradient included."""

        # A stack: a module may call another one that has a label.
        before: list[str] = []

        def enter(*_: Any) -> None:
            before.append(self.label)
            self.label = label

        def leave(*_: Any) -> None:
            self.label = before.pop()

        for module in modules:
            module.register_forward_pre_hook(enter)
            module.register_forward_hook(leave, always_call=True)

    @contextmanager
    def measured(self) -> Iterator[dict[str, Work]]:
        """Yield a table that holds, after this block, the work that was done in it, by label."""
        before = dict(self._works)
        works: dict[str, Work] = {}
        yield works
        for label, work in self._works.items():
            added = work - before.get(label, Work())
            if added.operations:
                works[label] = added

    def _label_of(self, tensor: Tensor) -> str:
        if self.vocabulary and tensor.ndim and tensor.shape[-1] == self.vocabulary and tensor.is_floating_point():
            return "logits"
        return self.label

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if is_sized(args) or is_sized(list(kwargs.values())):
            output = run_sized(func, args, kwargs)
        else:
            output = func(*args, **kwargs)

        # A view is no operation.
        if not func.is_view and func is not aten._unsafe_view.default:
            operation = measure_operation(func, args, kwargs, output)
            work = Work(1, operation.flops, operation.num_bytes, self._seconds(operation))
            self._works[self.label] = self._works.get(self.label, Work()) + work
        self.count(output)
        return output


def measure_operation(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Operation:
    """Return what an operation costs, by torch's own counts of FLOPs and by the sizes of what it reads and writes."""
    packet = func._overloadpacket
    written = list(_tensors(output))
    flops = 0
    if packet in (CPU_ATTENTION, CPU_ATTENTION_BACKWARD):
        flops = _attention_flops(packet, args)
    elif packet is aten._grouped_mm:
        flops = 2 * args[0].numel() * args[1].shape[-1]
    elif packet in flop_registry:
        flops = flop_registry[packet](*args, **kwargs, out_val=output)
    is_half = bool(flops) and bool(written) and written[0].element_size() < 4
    return Operation(flops, _traffic(packet, args, kwargs, written), is_half)


def _traffic(packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], written: list[Tensor]) -> int:
    """Return the bytes that an operation reads and writes."""
    num_written = sum(map(_num_bytes, written))
    if packet in ALLOCATING:
        return 0
    if packet in GATHERING:
        return 2 * num_written
    if packet in PLACING:
        return max(num_written if len(args) < 3 else 0, 2 * sum(map(_num_bytes, _tensors(args[1:]))))
    return num_written + sum(map(_num_bytes, _tensors((args, list(kwargs.values())))))


def _attention_flops(packet: Any, args: tuple[Any, ...]) -> int:
    """Return the FLOPs of torch's attention kernel for CPUs, which its own counts leave out."""
    if packet is CPU_ATTENTION:
        query, key, value = args[:3]
        return int(sdpa_flop_count(query.shape, key.shape, value.shape))
    gradient, query, key, value = args[:4]
    return int(sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape))


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _storage(tensor: Tensor) -> Any:
    return (tensor.meta if isinstance(tensor, SizedTensor) else tensor).untyped_storage()


def _num_bytes(tensor: Tensor) -> int:
    """Return the bytes that a tensor touches; those of an expanded one are fewer than its elements'."""
    return min(tensor.numel() * tensor.element_size(), int(_storage(tensor).nbytes()))
