"""Tensors that have a size and no content: a model of 100 GB runs its step on them in little memory.

A `SizedTensor` says that it lies on the CPU, so autograd, autocast and the choice of attention kernels work as for any
tensor there; what is computed of it is its shape alone, by torch's meta kernels. Token ids, positions and masks stay
ordinary tensors, so that code which reads them (lengths, places, grids of patches) runs as it is. An operation on both
gives a SizedTensor. torch's own FakeTensor does the same at ten times the cost for each operation.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from visionr1.errors import TrainingError

aten = torch.ops.aten
MASKED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""Operations whose indices may be masks; the size of the result depends on the content of a mask."""
TENSOR = "tensor"
_results: dict[Any, Any] = {}
"""The sizes of the results of operations that came before, by operation and the sizes of its arguments."""
_scalars: list[int] = []
"""What the number in a SizedTensor is said to be; without any, to read it is an error."""


class SizedTensor(Tensor):
    """A tensor without content on the CPU; `meta` is its twin on torch's meta device."""

    meta: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, meta: Tensor, requires_grad: bool = False) -> "SizedTensor":
        tensor: SizedTensor = Tensor._make_wrapper_subclass(
            cls,
            meta.size(),
            strides=meta.stride(),
            storage_offset=meta.storage_offset(),
            dtype=meta.dtype,
            device=torch.device("cpu"),
            requires_grad=requires_grad,
        )
        tensor.meta = meta
        return tensor

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"SizedTensor({tuple(self.shape)}, {self.dtype})"

    def data_ptr(self) -> int:
        """Return a number that views of one place have in common, as an address is for tensors with content."""
        return int(self.meta.untyped_storage()._cdata + self.meta.storage_offset() * self.element_size())

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return run_sized(func, args, kwargs or {})


def sized(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> SizedTensor:
    """Return a tensor of this shape without content."""
    return SizedTensor(torch.empty(tuple(shape), dtype=dtype, device="meta"))


def like(tensor: Tensor) -> SizedTensor:
    """Return a tensor of the shape of `tensor` without content."""
    return sized(tensor.shape, tensor.dtype)


def remove_content(model: nn.Module, dtype: torch.dtype) -> None:
    """Put SizedTensors in place of a model's parameters (meta or not); those of floats get `dtype`. Buffers stay."""
    replaced: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            # Tied weights stay one parameter.
            if id(parameter) not in replaced:
                kind = dtype if parameter.is_floating_point() else parameter.dtype
                weight = sized(parameter.shape, kind)
                replaced[id(parameter)] = nn.Parameter(weight, requires_grad=parameter.requires_grad)
            module._parameters[name] = replaced[id(parameter)]


@contextmanager
def reading_as(number: int) -> Iterator[None]:
    """Let code that reads the number in a SizedTensor, such as a checksum, read `number`."""
    _scalars.append(number)
    try:
        yield
    finally:
        _scalars.pop()


def is_sized(value: Any) -> bool:
    """Return True for a SizedTensor, or a list with one in it."""
    if isinstance(value, SizedTensor):
        return True
    if isinstance(value, list | tuple):
        return any(map(is_sized, value))
    return False


def run_sized(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Run one ATen operation for its sizes. At least one argument is a SizedTensor.

    Raises TrainingError if the size of its result, or the program's way, depends on a content that is not there.
    """
    if func in MASKED:
        args = (args[0], _places(args[1]), *args[2:])
    special = SPECIAL.get(func)
    if special is not None:
        return special(func, args, kwargs)

    # Layers of one shape repeat each other.
    key = (func, _describe(args), _describe(tuple(sorted(kwargs.items())))) if _is_fresh(func) else None
    if key in _results:
        return _make(_results[key])

    meta_kwargs = {name: _to_meta(value) for name, value in kwargs.items()}
    output = func(*map(_to_meta, args), **meta_kwargs)
    if key is not None:
        _results[key] = _describe(output)
    if func._schema.is_mutable:
        # What is written in place is the argument itself.
        return None if output is None else kwargs.get("out", args[0])
    return _from_meta(output)


@cache
def _is_fresh(func: Any) -> bool:
    """Return True if the results of an operation are new tensors, and never views of its arguments."""
    return func is not aten._unsafe_view.default and all(value.alias_info is None for value in func._schema.returns)


def _describe(value: Any) -> Hashable:
    """Return what decides over the sizes of a result: those of tensors, and all other values as they are."""
    if isinstance(value, Tensor):
        return (TENSOR, value.shape, value.stride(), value.dtype)
    if isinstance(value, list | tuple):
        return tuple(map(_describe, value))
    return (type(value), value)  # 1, 1.0 and True are equal, and decide differently over a dtype


def _make(described: Any) -> Any:
    """Return new tensors without content, as `_describe` described them."""
    if described[:1] == (TENSOR,):
        _, shape, stride, dtype = described
        return SizedTensor(torch.empty_strided(shape, stride, dtype=dtype, device="meta"))
    if described and isinstance(described[0], type):
        return described[1]
    return tuple(map(_make, described))


def _to_meta(value: Any) -> Any:
    """Return the twin on the meta device of a tensor, of those in a list, or of a device."""
    if isinstance(value, SizedTensor):
        return value.meta
    if isinstance(value, Tensor):
        return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, list | tuple):
        return type(value)([_to_meta(item) for item in value])
    if isinstance(value, torch.device):
        return torch.device("meta")
    return value


def _from_meta(value: Any) -> Any:
    """Return the SizedTensor of a meta tensor, or of those in a list."""
    if isinstance(value, Tensor):
        return SizedTensor(value)
    if isinstance(value, list | tuple):
        return type(value)([_from_meta(item) for item in value])
    return value


def _places(indices: Sequence[Any]) -> list[Any]:
    """Return indices with the places in a mask for each mask."""
    places: list[Any] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool and not isinstance(index, SizedTensor):
            places.extend(index.nonzero().unbind(1))
        else:
            places.append(index)
    return places


def _choose_attention(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Ask torch which attention kernel it takes for tensors of these shapes, none of which takes memory."""

    def flat(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        row = torch.empty(value.shape[-1], dtype=value.dtype)
        return row.as_strided(value.shape, [0] * (value.ndim - 1) + [1])

    return func(*map(flat, args), **{name: flat(value) for name, value in kwargs.items()})


def _read_number(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Return the number that `reading_as` gives; TrainingError outside of it."""
    if not _scalars:
        raise TrainingError(
            "this model reads a number that depends on the content of its weights, which a plan does not have"
        )
    return _scalars[-1]


def _grouped_product(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> SizedTensor:
    """Return the product of rows (T, K) with the matrices (E, K, N) of their experts: (T, N); or, for the gradient of
    the matrices, of (K, T) with (T, N): (E, K, N).

    torch's meta kernel takes bfloat16 alone.
    """
    rows, matrices = args[:2]
    offsets = args[2] if len(args) > 2 else kwargs["offs"]
    if rows.ndim == 2 and matrices.ndim == 2:
        return sized((len(offsets), rows.shape[0], matrices.shape[1]), rows.dtype)
    return sized((*rows.shape[:-1], matrices.shape[-1]), rows.dtype)


SPECIAL: dict[Any, Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Any]] = {
    aten._fused_sdp_choice.default: _choose_attention,
    aten._local_scalar_dense.default: _read_number,
    aten._grouped_mm.default: _grouped_product,
}
"""Operations that meta kernels cannot do."""
