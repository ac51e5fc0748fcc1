"""QLoRA (Dettmers et al., 2023): a frozen base in 4 bits, by bitsandbytes, with adapters that train.

The linear layers of the language model's blocks are rounded to NF4 in blocks of 64 weights, their scales to 8 bits
("double quantization"): 4.127 bits a weight. Each product makes its weight anew from them, in the model's dtype. All
else keeps the dtype: embeddings, the output layer and norms, whose errors reach every token; and the vision tower,
which is small, and where few images are seen often enough to tell what rounding does to it.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from visionr1.errors import RecipeError
from visionr1.models.memory.bnb import import_bitsandbytes

QUANTIZATIONS = ("none", "nf4")
"""What `model.quantization` may be."""


def quantize_on_loading(config: Any, folder: Path, dtype: torch.dtype, device: str) -> dict[str, Any]:
    """Return transformers' settings for a model on `device` whose weights are rounded one by one as they are read.

    Products are in `dtype`. Raises MissingDependency if bitsandbytes is not installed, and RecipeError if the weights
    in `folder`, of which `config` is the configuration, are quantized already.
    """
    import_bitsandbytes()
    if hasattr(config, "quantization_config"):
        raise RecipeError(
            f"model.quantization: the weights in {folder} are quantized already; take the model's folder with weights "
            "in bfloat16 or float32"
        )
    rounding = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=_find_kept_modules(config),
    )
    return {"quantization_config": rounding, "device_map": {"": device}}


def _find_kept_modules(config: Any) -> list[str]:
    """Return the names of the outermost modules that have no part of the language model's blocks."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    blocks = set(model.model.get_decoder().layers.modules())
    kept: list[str] = []
    for name, module in model.named_modules():
        is_inside = any(name.startswith(f"{outer}.") for outer in kept)
        if not is_inside and blocks.isdisjoint(module.modules()):
            kept.append(name)
    return kept


def quantized_layers(model: nn.Module) -> dict[str, Any]:
    """Return the layers of `model` whose weights are 4 bits, by name."""
    return {name: module for name, module in model.named_modules() if _is_quantized(module)}


def _is_quantized(module: nn.Module) -> bool:
    return hasattr(getattr(module, "weight", None), "quant_state")


def keep_layout(model: nn.Module) -> None:
    """Keep bitsandbytes from packing weights anew on some CPUs, at their first product without a gradient.

    The packed ones give other numbers than before, and no gradient to what comes below them.
    """
    for layer in quantized_layers(model).values():
        layer.support_avx512bf16_for_cpu = False


def dequantize(layer: Any) -> Tensor:
    """Return the weight that a quantized layer computes with."""
    weight: Tensor = import_bitsandbytes().functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return weight


def stored_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield all parameters, and the scales of those that are quantized, by name."""
    yield from model.named_parameters()
    for name, layer in quantized_layers(model).items():
        state = layer.weight.quant_state
        yield f"{name}.weight.absmax", state.absmax
        if state.nested:
            yield f"{name}.weight.nested_absmax", state.state2.absmax
            yield f"{name}.weight.offset", state.offset


def make_plain(model: Any) -> Any:
    """Return the quantized `model` as it would be without quantization, without weights: it writes the merged ones."""
    config = copy.deepcopy(model.config)
    del config.quantization_config
    with torch.device("meta"):
        plain = type(model)(config).to(model.dtype)
    plain.generation_config = model.generation_config
    plain._weight_conversions = getattr(model, "_weight_conversions", None)  # to the names in files
    return plain
