"""LoRA (Hu et al., 2021), by peft: low-rank maps beside the frozen linear layers of a model.

    y = W x + alpha / rank * B A x        A is random, B starts at zero, only they train

With the adapters off the model is bit for bit the one that training started from: it is GRPO's
reference, and no second copy of it is held. There is no dropout, for the policy that is scored must be
the one that sampled. Adapters are float32, whatever the dtype of the weights.

A folder of adapters is peft's own: adapter_config.json, which names the base model, and
adapter_model.safetensors, whose metadata holds a checksum of the weights that the adapters belong to.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from visionr1.errors import CheckpointError, RecipeError, needs_extra, short_repr
from visionr1.models.folder.files import read_object
from visionr1.models.folder.foreign import foreign
from visionr1.models.memory.quantization import dequantize, quantized_layers, stored_weights
from visionr1.models.settings import LoRASection
from visionr1.models.weights import check_finite, full_tensor, weights_checksum

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
CHECKSUM = "base_checksum"
PEFT_PREFIX = "base_model.model."
MOST_RANK = 1 << 16
"""Far beyond any rank that is used; a file that asks for more is damaged."""


def has_adapters(model: nn.Module) -> bool:
    """Return True if `attach` or `load_adapters` has given the model adapters."""
    return hasattr(model, "peft_config")


def attach(model: nn.Module, settings: LoRASection, *, seed: int, base: str) -> None:
    """Give the language model's linear layers new adapters, and freeze all else.

    `base` is the model's folder, for the adapters' users. Raises RecipeError if no layer fits `settings`.
    """
    with needs_extra("train"):
        from peft import LoraConfig
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=target_modules(model, settings),
        base_model_name_or_path=base,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _inject(model, config)


def target_modules(model: Any, settings: LoRASection) -> list[str]:
    """Return the names of the linear layers that get adapters: in the decoder, and in the vision tower if asked.

    Raises RecipeError if `lora.targets` names a layer that there is not.
    """
    # Layers by the last part of their names, such as q_proj.
    candidates = set(model.model.get_decoder().layers.modules())
    if settings.vision:
        candidates |= set(vision_modules(model))
    layers: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module in candidates:
            layers.setdefault(name.rpartition(".")[2], []).append(name)

    unknown = set(settings.targets) - set(layers)
    if unknown:
        raise RecipeError(f"lora.targets: expected some of {', '.join(sorted(layers))}, found {sorted(unknown)}")
    targets = settings.targets or tuple(layers)
    return [name for target in targets for name in layers[target]]


def vision_modules(model: Any) -> list[nn.Module]:
    """Return every module that makes image features: those that hold no part of the language model."""
    language = {*model.model.get_decoder().modules(), *model.get_output_embeddings().modules()}
    return [module for module in model.modules() if language.isdisjoint(module.modules())]


def is_adapter_folder(folder: Path) -> bool:
    """Return True if `folder` holds adapters and not a model."""
    return (folder / CONFIG_FILE).is_file() and not (folder / "config.json").exists()


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Switch the adapters off inside this block, without gradient: `model` is then its base."""
    layers: list[Any] = [module for module in model.modules() if _is_adapted(module)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def save_adapters(model: Any, state: Mapping[str, Tensor], folder: Path) -> None:
    """Write the adapters of `model`, whose weights are `state`, as a folder that peft loads too."""
    folder.mkdir(parents=True, exist_ok=True)
    model.peft_config["default"].save_pretrained(folder)
    metadata = {"format": "pt", CHECKSUM: str(model.base_checksum)}
    save_file(_adapter_tensors(state), folder / WEIGHTS_FILE, metadata=metadata)


def load_adapters(model: Any, folder: Path) -> None:
    """Give `model` all adapters in `folder`.

    Raises CheckpointError if a tensor is missing, too many or of another shape, or if the adapters
    belong to other weights than the model's.
    """
    # All that the files say is checked before peft builds anything by it.
    settings = _read_settings(folder)
    try:
        with safe_open(folder / WEIGHTS_FILE, "pt") as file:
            checksum = (file.metadata() or {}).get(CHECKSUM)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the adapters in {folder}: {error}") from error
    check_finite(tensors.items(), folder)
    _check_ranks(settings, tensors, folder)
    config = _make_config(settings, _find_targets(model, tensors, folder), folder)
    with foreign(f"the adapters in {folder}: {CONFIG_FILE}"):
        _inject(model, config)
    if checksum not in (None, str(model.base_checksum)):
        raise CheckpointError(
            f"the adapters in {folder} belong to a base model with other weights than the one loaded; "
            f"put back the model that they were trained on (once in {config.base_model_name_or_path})"
        )

    # Strictly: the tensors of the file are those of the layers that were made.
    attached = _adapter_tensors(model.state_dict())
    wrong = {name for name in {*attached, *tensors} if _shape(attached, name) != _shape(tensors, name)}
    if wrong:
        raise CheckpointError(f"the adapters in {folder} do not fit the model or {CONFIG_FILE}: {sorted(wrong)}")
    with torch.no_grad():
        for name, tensor in attached.items():
            tensor.copy_(tensors[name])


def base_folder(folder: Path) -> str:
    """Return the folder of the model that the adapters were trained on; CheckpointError if none is named."""
    base = _read_settings(folder).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise CheckpointError(f"{folder / CONFIG_FILE}: expected the base model's folder in base_model_name_or_path")
    return base


def merged_weights(
    model: nn.Module, state: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield the full weights `state` of `model` in `dtype`, by the base's own names, with the adapters added in.

    Tied weights come once, by their first name, and quantized ones as the numbers that they stand for; the model is
    left as it is.
    """
    names: dict[int, str] = {}
    for name, parameter in model.state_dict(keep_vars=True).items():
        names.setdefault(id(parameter), name)
    return _merge(model, list(names.values()), state, dtype)


def gathered_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the model's parameters as they are now, as `merged_weights`, each gathered from its shards when it is due.

    So no more than one of them is whole at a time. All ranks must go through it together. No state dict is made: under
    FSDP2 that would reshard what a forward pass around this call has unsharded.
    """
    parameters = dict(model.named_parameters())  # tied ones by their first name
    return _merge(model, list(parameters), parameters)


def weight_shapes(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield each weight of `gathered_weights` without its numbers: a tensor of its shape and dtype, on no device."""
    quantized = quantized_layers(model)
    for name, parameter in model.named_parameters():
        if _is_adapter(name):
            continue
        layer = quantized.get(name.removesuffix(".weight"))
        whole = parameter if layer is None else layer.weight.quant_state  # which has the shape of the unpacked weight
        yield name.replace(".base_layer.", "."), torch.empty(whole.shape, dtype=whole.dtype, device="meta")


def _merge(
    model: nn.Module, names: Sequence[str], state: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights `names` of `state`, with the adapters added in."""
    quantized = quantized_layers(model)
    modules: list[tuple[str, Any]] = list(model.named_modules())
    scales = {f"{name}.": module.scaling["default"] for name, module in modules if _is_adapted(module)}
    for name in names:
        # The scales of quantized weights stand in a state dict beside them.
        is_scale = ".weight." in name and name.partition(".weight.")[0] in quantized
        if _is_adapter(name) or is_scale:
            continue
        layer = quantized.get(name.removesuffix(".weight"))
        base = full_tensor(state[name].detach()) if layer is None else dequantize(layer)
        yield name.replace(".base_layer.", "."), _merge_weight(name, base, state, scales, dtype)


@torch.no_grad()
def _merge_weight(
    name: str, base: Tensor, state: Mapping[str, Tensor], scales: Mapping[str, float], dtype: torch.dtype | None
) -> Tensor:
    """Return one full weight in `dtype`: W + alpha / rank * B A where its layer has adapters, W being `base`."""
    weight = base
    layer, is_base_weight, _ = name.partition("base_layer.weight")
    if is_base_weight:
        a = full_tensor(state[f"{layer}lora_A.default.weight"].detach())
        b = full_tensor(state[f"{layer}lora_B.default.weight"].detach())

        # The autocast of a forward pass around this call would round the product.
        with torch.autocast(weight.device.type, enabled=False):
            weight = torch.add(weight, b @ a, alpha=scales[layer])
    return weight.to(dtype or base.dtype)


def base_checksum(model: nn.Module) -> int:
    """Return the checksum of all weights but the adapters', which is computed once, before there are any."""
    if has_adapters(model):
        return int(model.base_checksum)  # type: ignore[arg-type]
    return weights_checksum(weight for _, weight in stored_weights(model))


def _read_settings(folder: Path) -> dict[str, Any]:
    """Return what adapter_config.json says; CheckpointError if it cannot be read or is not of LoRA."""
    path = folder / CONFIG_FILE
    settings = read_object(path)
    if settings.get("peft_type") != "LORA":
        raise CheckpointError(f"{path}: expected adapters of type LORA, found {short_repr(settings.get('peft_type'))}")
    rank, alpha = settings.get("r"), settings.get("lora_alpha", 8)
    if type(rank) is not int or not 1 <= rank <= MOST_RANK:
        raise CheckpointError(f"{path}: r: expected a rank from 1 to {MOST_RANK}, found {short_repr(rank)}")
    if type(alpha) not in (int, float) or not 0 < alpha < float("inf"):
        raise CheckpointError(f"{path}: lora_alpha: expected a number above 0, found {short_repr(alpha)}")
    for name in ("rank_pattern", "alpha_pattern"):
        _check_pattern(settings.get(name) or {}, name, path)
    for name in ("use_dora", "layer_replication", "modules_to_save", "alora_invocation_tokens"):
        if settings.get(name):
            raise CheckpointError(
                f"{path}: {name} is not supported; merge the adapters into their model with peft first"
            )
    return settings


def _check_pattern(pattern: object, name: str, path: Path) -> None:
    """Raise CheckpointError if ranks or alphas of single layers are not numbers by plain names.

    peft takes the names for regular expressions, which of a foreign file may run for ever.
    """
    is_fit = isinstance(pattern, dict)
    if isinstance(pattern, dict):
        for layer, number in pattern.items():
            is_number = type(number) in (int, float) and 0 < number <= MOST_RANK
            is_fit = is_fit and is_number and re.fullmatch(r"[\w.]+", layer) is not None
    if not is_fit:
        raise CheckpointError(
            f"{path}: {name}: expected numbers from 1 to {MOST_RANK} by the names of layers, "
            f"found {short_repr(pattern)}"
        )


def _find_targets(model: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> list[str]:
    """Return the names of the layers that have adapters among the `tensors` of a folder.

    Not those that its target_modules name, which may be a regular expression. Raises CheckpointError if one of them
    is no linear layer of the model.
    """
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    targets = []
    unknown = []
    for tensor_name in sorted(tensors):
        layer, is_adapter, _ = tensor_name.removeprefix(PEFT_PREFIX).partition(".lora_A.weight")
        if is_adapter and layer in linear:
            targets.append(layer)
        elif is_adapter:
            unknown.append(tensor_name)
    if unknown or not targets:
        raise CheckpointError(
            f"the adapters in {folder} do not fit the model: expected lora_A of its linear layers in {WEIGHTS_FILE}, "
            f"found {unknown[:3] or 'none'}"
        )
    return targets


def _check_ranks(settings: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Raise CheckpointError if the ranks of the `tensors` are not those of the settings, which decide their memory."""
    ranks = {len(tensor) for name, tensor in tensors.items() if name.endswith(".lora_A.weight") and tensor.ndim}
    named_ranks = {settings["r"], *(settings.get("rank_pattern") or {}).values()}
    if ranks and (not ranks <= named_ranks or max(named_ranks) > max(ranks)):
        raise CheckpointError(
            f"the adapters in {folder} do not fit the model or {CONFIG_FILE}: it says ranks {sorted(named_ranks)}, but "
            f"{WEIGHTS_FILE} holds {sorted(ranks)}"
        )


def _make_config(settings: Mapping[str, Any], targets: list[str], folder: Path) -> Any:
    """Return peft's configuration of the checked `settings`, for adapters of the layers `targets`."""
    with needs_extra("train"):
        from peft import LoraConfig
    with foreign(f"{folder / CONFIG_FILE}"):
        return LoraConfig(
            r=settings["r"],
            lora_alpha=settings.get("lora_alpha", 8),
            use_rslora=settings.get("use_rslora") is True,
            rank_pattern=settings.get("rank_pattern") or {},
            alpha_pattern=settings.get("alpha_pattern") or {},
            target_modules=targets,
            base_model_name_or_path=settings.get("base_model_name_or_path"),
        )


def _inject(model: Any, config: Any) -> None:
    """Put adapters into the layers that `config` names, and keep the checksum of the weights below them."""
    from peft import inject_adapter_in_model

    model.base_checksum = base_checksum(model)
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if _is_adapter(name):
            parameter.data = parameter.data.float()


def _adapter_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the adapters' part of a state dict, by the names that peft gives it in files."""
    tensors = {}
    for name, tensor in state.items():
        if _is_adapter(name):
            tensors[PEFT_PREFIX + name.replace(".default.", ".")] = tensor.contiguous()
    return tensors


def _is_adapter(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


def _is_adapted(module: nn.Module) -> bool:
    return hasattr(module, "lora_A")


def _shape(tensors: Any, name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
