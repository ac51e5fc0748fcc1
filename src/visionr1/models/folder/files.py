"""The JSON files of a model folder and the header of its weights, as they are before transformers reads them.

A folder may come from anyone. What is checked here would otherwise run for hours or take all memory before
transformers finds that it is wrong: layer counts beyond the weights, for example.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from visionr1.errors import CheckpointError, DataError, short_repr
from visionr1.files import read_json

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "depth", "num_blocks", "encoder_layers")
"""Keys of configurations that say how many modules are built one after the other."""
MOST_EXPERTS = 1 << 12
"""Of a layer; released models have hundreds. Experts may lie in one tensor, so weights do not bound their number."""
LARGEST_COUNTS = {
    "num_experts": MOST_EXPERTS,
    "num_local_experts": MOST_EXPERTS,
    "n_routed_experts": MOST_EXPERTS,
    "n_shared_experts": MOST_EXPERTS,
    "moe_num_experts": MOST_EXPERTS,
    "num_labels": 1 << 16,
}
"""Other counts of configurations that take time or memory before any weight is read, with bounds."""
LONGEST_LIST = 1 << 14
"""Of a configuration, where lists name layers, sizes or factors."""
INTEGERS = ("I8", "U8", "I16", "U16", "I32", "U32")
"""Types of quantized weights in safetensors; I64 is that of buffers, such as positions."""
Shapes = Mapping[str, tuple[int, ...]]


def check_entries(folder: Path) -> None:
    """Raise CheckpointError if `folder` holds a pipe or a device, which transformers would read for ever."""
    if not folder.is_dir():
        return
    for entry in sorted(folder.iterdir()):
        if entry.exists() and not entry.is_file() and not entry.is_dir():
            raise CheckpointError(f"{entry}: expected a file, found a pipe, a socket or a device; take it away")


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`; CheckpointError if it cannot be read or is something else."""
    try:
        content = read_json(path)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def read_shapes(folder: Path, *, floats: bool) -> Shapes:
    """Return the shapes of all weights in `folder` by name, from the headers of its safetensors files.

    Raises CheckpointError if there are none, or one cannot be read; with `floats`, if a matrix is of whole numbers,
    which would be taken for the weights that they stand for.
    """
    shapes = {}
    for path, file in _weight_files(folder):
        for key in file.keys():  # noqa: SIM118 - it is no dict
            weight = file.get_slice(key)
            shapes[key] = tuple(weight.get_shape())
            if floats and len(shapes[key]) > 1 and weight.get_dtype() in INTEGERS:
                raise CheckpointError(
                    f"{path}: {key} is of whole numbers ({weight.get_dtype()}), as of a quantized "
                    "model, but config.json has no quantization_config; use weights that are not quantized "
                    "(docs/faq.md#weights-of-whole-numbers-or-an-unknown-quant_method)"
                )
    return shapes


def read_weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield all weights in `folder` by name, one after the other; CheckpointError as in `read_shapes`."""
    for _, file in _weight_files(folder):
        for name in file.keys():  # noqa: SIM118 - it is no dict
            yield name, file.get_tensor(name)


def _weight_files(folder: Path) -> Iterator[tuple[Path, Any]]:
    """Yield each safetensors file of weights in `folder`, opened; CheckpointError if one cannot be read."""
    for name in weight_file_names(folder, WEIGHTS):
        try:
            with safe_open(folder / name, "pt") as file:
                yield folder / name, file
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"cannot load the model in {folder}: {name}: {error}; expected weights in {WEIGHTS}, or in the files "
                f"that {INDEX} names"
            ) from error


def weight_file_names(folder: Path, whole: str) -> list[str]:
    """Return the names of the files in `folder` that hold its weights: `whole`, else those that its index names."""
    index = folder / f"{whole}.index.json"
    if (folder / whole).is_file() or not index.is_file():
        return [whole]
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(_is_plain(name) for name in weight_map.values()):
        raise CheckpointError(f"{index}: expected weight_map to give each weight the name of a file")
    return sorted(set(weight_map.values()))


def check_layer_counts(config: Mapping[str, Any], num_weights: int, path: Path) -> None:
    """Raise CheckpointError if `config`, read from `path`, has more layers anywhere than there are weights.

    Nor may other counts and lists be longer than any model's.
    """
    for name, value in _walk(config):
        if isinstance(value, list) and len(value) > LONGEST_LIST:
            raise CheckpointError(f"{path}: {name}: expected at most {LONGEST_LIST} values, found {len(value)}")
        if name in LARGEST_COUNTS:
            _check_count(name, value, path)
        if name not in LAYER_COUNTS or value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= num_weights:
            raise CheckpointError(
                f"{path}: {name}: expected a number of layers, of which there are at most as many as there are "
                f"weights ({num_weights}), found {short_repr(value)}"
            )


def check_no_hub_code(config: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError if `config`, read from `path`, names code on the hub.

    transformers takes `user/repo` as attn_implementation for code that it fetches and runs, without asking.
    """
    for name, value in _walk(config):
        if re.fullmatch(r"\w*_implementation(_internal)?", name) and _names_repository(value):
            raise CheckpointError(
                f"{path}: {name}: names code on the hub ({short_repr(value)}), which visionr1 never fetches; take "
                "the key out of the file"
            )


def _names_repository(value: Any) -> bool:
    """Return True if a text, or one of several by the parts of a model, is of the form `user/repo`."""
    texts = [value, *(part for _, part in _walk(value))]
    return any(isinstance(text, str) and "/" in text for text in texts)


def _check_count(name: str, value: Any, path: Path) -> None:
    """Raise CheckpointError if a count of LARGEST_COUNTS, or one of several (for texts, for images), is none."""
    largest = LARGEST_COUNTS[name]
    counts = value if isinstance(value, list) else [value]
    for count in counts:
        if count is not None and (type(count) is not int or not 0 <= count <= largest):
            raise CheckpointError(f"{path}: {name}: expected a number from 0 to {largest}, found {short_repr(value)}")


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key with its value of nested objects and lists; the depth is that which JSON readers allow."""
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            yield from part.items()
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)


def _is_plain(name: object) -> bool:
    """Return True if `name` is that of a file in the folder itself."""
    return isinstance(name, str) and name not in ("", "..") and Path(name).name == name
