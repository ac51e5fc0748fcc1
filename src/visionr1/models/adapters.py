"""LoRA (Hu et al., 2021), by peft: low-rank maps beside the frozen linear layers of a model.

    y = W x + alpha / rank * B A x        A is random, B starts at zero, only they train

With the adapters off the model is bit for bit the one that training started from: it is GRPO's
reference, and no second copy of it is held. There is no dropout, for the policy that is scored must be
the one that sampled. Adapters are float32, whatever the dtype of the weights.

A folder of adapters is peft's own: adapter_config.json, which names the base model, and
adapter_model.safetensors, whose metadata holds a checksum of the weights that the adapters belong to.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from visionr1.errors import CheckpointError, RecipeError, needs_extra
from visionr1.models.checksum import weights_checksum
from visionr1.models.settings import LoRASection

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
CHECKSUM = "base_checksum"
PEFT_PREFIX = "base_model.model."


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
    candidates = set(model.model.get_decoder().layers.modules())
    if settings.vision:
        candidates |= set(vision_modules(model))
    layers: dict[str, list[str]] = {}  # full names, by the last part: q_proj, ...
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
    config = _read_config(folder)
    try:
        with safe_open(folder / WEIGHTS_FILE, "pt") as file:
            checksum = (file.metadata() or {}).get(CHECKSUM)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the adapters in {folder}: {error}") from error
    _inject(model, config)
    if checksum not in (None, str(model.base_checksum)):
        raise CheckpointError(
            f"the adapters in {folder} belong to a base model with other weights than the one loaded; "
            f"put back the model that they were trained on (once in {config.base_model_name_or_path})"
        )

    attached = _adapter_tensors(model.state_dict())
    wrong = {name for name in {*attached, *tensors} if _shape(attached, name) != _shape(tensors, name)}
    if wrong:
        raise CheckpointError(f"the adapters in {folder} do not fit the model or {CONFIG_FILE}: {sorted(wrong)}")
    with torch.no_grad():
        for name, tensor in attached.items():
            tensor.copy_(tensors[name])


def base_folder(folder: Path) -> str:
    """Return the folder of the model that the adapters were trained on; CheckpointError if none is named."""
    base = _read_config(folder).base_model_name_or_path
    if not base:
        raise CheckpointError(f"{folder / CONFIG_FILE}: expected the base model's folder in base_model_name_or_path")
    return str(base)


def merged_weights(
    model: nn.Module, state: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield the full weights `state` of `model` in `dtype`, by the base's own names, with the adapters added in.

    Tied weights come once, by their first name; the model is left as it is.
    """
    modules: list[tuple[str, Any]] = list(model.named_modules())
    scales = {f"{name}.": module.scaling["default"] for name, module in modules if _is_adapted(module)}
    yielded: set[int] = set()
    for name, parameter in model.state_dict(keep_vars=True).items():
        if _is_adapter(name) or id(parameter) in yielded:
            continue
        yielded.add(id(parameter))

        weight = state[name]
        layer, is_base_weight, _ = name.partition("base_layer.weight")
        if is_base_weight:
            a, b = state[f"{layer}lora_A.default.weight"], state[f"{layer}lora_B.default.weight"]
            with torch.no_grad():
                weight = torch.add(weight, b @ a, alpha=scales[layer])
        yield name.replace(".base_layer.", "."), weight.to(dtype or state[name].dtype)


def base_checksum(model: nn.Module) -> int:
    """Return the checksum of all weights but the adapters', which is computed once, before there are any."""
    if has_adapters(model):
        return int(model.base_checksum)  # type: ignore[arg-type]
    return weights_checksum(model.parameters())


def _read_config(folder: Path) -> Any:
    """Return peft's configuration in `folder`; CheckpointError if it cannot be read or is not of LoRA."""
    with needs_extra("train"):
        from peft import LoraConfig, PeftConfig
    try:
        config = PeftConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"cannot read {folder / CONFIG_FILE}: {error}") from error
    if not isinstance(config, LoraConfig):
        raise CheckpointError(f"{folder / CONFIG_FILE}: expected adapters of type LORA, found {config.peft_type}")
    config.inference_mode = False
    return config


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
    named = {name: tensor for name, tensor in state.items() if _is_adapter(name)}
    return {PEFT_PREFIX + name.replace(".default.", "."): tensor.contiguous() for name, tensor in named.items()}


def _is_adapter(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


def _is_adapted(module: nn.Module) -> bool:
    return hasattr(module, "lora_A")


def _shape(tensors: Any, name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
