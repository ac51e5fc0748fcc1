"""The weights of a checkpoint, read and written piece by piece, so that memory holds a few GB of them at once.

A checkpoint may come from anyone. A .bin file is a pickle, which can hold a program; torch's reader for weights alone
refuses all that is no tensor. It is used here and nowhere else: whatever trains or is asked takes safetensors.
"""

import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from visionr1.errors import CheckpointError, short_repr
from visionr1.files import write_json_atomic
from visionr1.models.folder.files import INDEX, WEIGHTS, weight_file_names

PICKLE = "pytorch_model.bin"
BYTES_A_FILE = 2 << 30
"""Size of the files that are written, and so of what memory holds at once."""
FLOATS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
"""Types that weights may have, by their names in safetensors files."""


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """Where a weight of a checkpoint is stored."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    """As safetensors names types, or torch those that are not in FLOATS."""

    @property
    def num_bytes(self) -> int:
        """Size of its values in memory."""
        return torch.Size(self.shape).numel() * FLOATS[self.dtype].itemsize


def find_weights(folder: Path) -> dict[str, StoredWeight]:
    """Return all weights of the checkpoint in `folder` by name; their values are not read.

    They are in model.safetensors, else in pytorch_model.bin, or in the files that the index of either names. Raises
    CheckpointError if such a file is missing, is damaged or holds something else, or if two hold the same name.
    """
    has_safetensors = (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()
    weights: dict[str, StoredWeight] = {}
    for file in weight_file_names(folder, WEIGHTS if has_safetensors else PICKLE):
        for weight in _list_weights(folder / file):
            if weight.name in weights:
                raise CheckpointError(
                    f"{folder}: weight {weight.name} is in {weights[weight.name].path.name} and in {file}; expected "
                    "it in one of them"
                )
            weights[weight.name] = weight
    return weights


def read_weights(weights: Iterable[StoredWeight]) -> Iterator[tuple[StoredWeight, Tensor]]:
    """Yield weights with their values, file by file."""
    # A mapped tensor is copied: its file may be closed before the values are written.
    for path, stored in groupby(weights, key=lambda weight: weight.path):
        if path.suffix == ".bin":
            tensors = _load_pickle(path)
            for weight in stored:
                yield weight, tensors[weight.name].detach().clone(memory_format=torch.contiguous_format)
        else:
            with safe_open(path, "pt") as file:
                for weight in stored:
                    yield weight, file.get_tensor(weight.name)


def write_weights(weights: Mapping[str, StoredWeight], folder: Path, bytes_a_file: int = BYTES_A_FILE) -> None:
    """Write `weights`, which are given by their new names, as the safetensors files of a model folder."""
    # Weights fill one file after the other, in their order.
    parts: list[dict[str, StoredWeight]] = [{}]
    room = bytes_a_file
    for name, weight in weights.items():
        if parts[-1] and weight.num_bytes > room:
            parts.append({})
            room = bytes_a_file
        parts[-1][name] = weight
        room -= weight.num_bytes

    # One part is in memory at a time.
    files = {}
    for number, part in enumerate(parts, start=1):
        file = WEIGHTS if len(parts) == 1 else f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        values = (tensor for _, tensor in read_weights(part.values()))
        save_file(dict(zip(part, values, strict=True)), folder / file, metadata={"format": "pt"})
        files.update(dict.fromkeys(part, file))
    if len(parts) > 1:
        total = sum(weight.num_bytes for weight in weights.values())
        write_json_atomic(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": files})


def _list_weights(path: Path) -> Iterator[StoredWeight]:
    """Yield where the weights in one file are stored."""
    if not path.is_file():
        raise CheckpointError(f"{path}: the file is missing; expected the weights of the checkpoint in it, or a part")
    # Of a pickle the values stay on the disk, of a safetensors file the header is read.
    if path.suffix == ".bin":
        names = {dtype: name for name, dtype in FLOATS.items()}
        for name, tensor in _load_pickle(path).items():
            yield StoredWeight(path, name, tuple(tensor.shape), names.get(tensor.dtype, str(tensor.dtype)))
        return
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                weight = file.get_slice(name)
                yield StoredWeight(path, name, tuple(weight.get_shape()), weight.get_dtype())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: expected a safetensors file, found that it cannot be read: {error}") from error


def _load_pickle(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a .bin file, whose values stay on the disk until they are used."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path}: expected tensors by name and nothing else, as torch.save writes them, found a file that torch "
            f"does not read as such ({reason:.300}); a file that holds code is never run: ask its authors for "
            "safetensors files"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected tensors by name, found {short_repr(content)}")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: expected tensors by name, found {short_repr(tensor)} by {short_repr(name)}")
        if tensor.layout is not torch.strided or tensor.device.type != "cpu":
            raise CheckpointError(
                f"{path}: {name}: expected an ordinary tensor with all its values, found one of {tensor.layout} on "
                f"{tensor.device}"
            )
    return content
