"""Choosing the weights that train, and what is kept in memory for their gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from visionr1.models.adapters import attach, has_adapters, vision_modules
from visionr1.models.policy import Policy
from visionr1.models.settings import LoRASection, ModelSection


def make_trainable(policy: Policy, settings: ModelSection, lora: LoRASection, *, seed: int = 0) -> None:
    """Make `policy`, as loaded, what the recipe trains: adapters, the language model alone, or all of it.

    New adapters start from `seed`; those that were loaded with the policy stay as they are. Raises RecipeError if no
    layer fits the `lora` table.
    """
    model = policy.model
    if lora.rank and not has_adapters(model):
        attach(model, lora, seed=seed, base=model.config.name_or_path)
    if settings.freeze_vision:
        for module in vision_modules(model):
            module.requires_grad_(False)
    if settings.gradient_checkpointing:
        checkpoint_layers(model)


def vision_trains(policy: Policy) -> bool:
    """Return True if image features change from one update to the next."""
    vision = vision_modules(policy.model)
    return any(parameter.requires_grad for module in vision for parameter in module.parameters(recurse=False))


def checkpoint_layers(model: nn.Module) -> None:
    """Let each layer keep its input alone for the gradient, and compute the rest again in the backward pass.

    Without a gradient (rollout, reference) a layer runs as before, with its KV cache.
    """
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.forward = partial(_checkpointed, module.forward)


def _checkpointed(forward: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **settings)
    return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False, **settings)
