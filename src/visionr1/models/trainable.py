"""Choosing the weights that train, and what is kept in memory for their gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from visionr1.errors import RecipeError
from visionr1.models.adapters import attach, has_adapters, vision_modules
from visionr1.models.policy import Policy
from visionr1.models.settings import LoRASection, ModelSection


def make_trainable(policy: Policy, settings: ModelSection, lora: LoRASection, *, seed: int = 0) -> None:
    """Make `policy`, as loaded, what the recipe trains: adapters, the language model alone, or all of it.

    New adapters start from `seed`; those that were loaded with the policy stay as they are. Raises RecipeError if no
    layer fits the `lora` table, or if the folder's own weights are quantized.
    """
    model = policy.model
    if policy.quantization == "none" and hasattr(model.config, "quantization_config"):
        raise RecipeError(
            f"model.path: the weights in {model.name_or_path} are quantized, of which neither training nor merged "
            'weights can be made; take the model with weights in bfloat16 or float32, and model.quantization = "nf4" '
            "with lora.rank for a base of 4 bits"
        )
    if lora.rank and not has_adapters(model):
        attach(model, lora, seed=seed, base=model.config.name_or_path)
    if settings.freeze_vision:
        for module in vision_modules(model):
            module.requires_grad_(False)
    if settings.gradient_checkpointing:
        checkpoint_layers(model, offload=settings.offload_activations)


def vision_trains(policy: Policy) -> bool:
    """Return True if image features change from one update to the next."""
    vision = vision_modules(policy.model)
    return any(parameter.requires_grad for module in vision for parameter in module.parameters(recurse=False))


def checkpoint_layers(model: nn.Module, *, offload: bool = False) -> None:
    """Let each layer keep its input alone for the gradient, and compute the rest again in the backward pass.

    With `offload` the input waits in the CPU's memory. Without a gradient (rollout, reference) a layer runs as before,
    with its KV cache.
    """
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.forward = partial(_checkpointed, module.forward, offload)


def _checkpointed(forward: Callable[..., Any], offload: bool, *arguments: Any, **settings: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **settings)
    run = partial(checkpoint, forward, *arguments, use_reentrant=False, preserve_rng_state=False, **settings)
    if not offload:
        return run()

    # The outer hooks see what `checkpoint` saves, the inputs; what the layer itself would save, it drops.
    with save_on_cpu(pin_memory=torch.cuda.is_available()):
        return run()
