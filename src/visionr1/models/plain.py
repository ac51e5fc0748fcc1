"""The plain path, for models whose family has no file here: what transformers offers for all of them.

Nothing is shared: every completion is a row with its own image and prompt, in scoring and in
sampling. A row's image inputs are copies of its prompt's, joined along their first axis, which is
what the model's processor makes of a batch of equal prompts.
Axis letters: R rows, T tokens, P of the prompt, K of them scored, V vocabulary.
"""

import logging
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from visionr1.errors import CheckpointError, MissingDependency
from visionr1.models.family import Inputs

_log = logging.getLogger("visionr1")


@cache
def tell(model_type: str, reason: str) -> None:
    """Say, once for each kind of model, that it takes the plain path."""
    _log.warning(
        "models of type %r take the plain path, which is slower: %s, so every completion is sampled and "
        "scored with its own image and prompt",
        model_type,
        reason,
    )


def load_processor(folder: Path) -> Any:
    """The processor in `folder`, images by PIL; MissingDependency if it needs a package that is not here."""
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, backend="pil")
    except ImportError as error:
        raise MissingDependency(
            f"the processor in {folder} cannot be loaded: {error}. If it is torchvision that is missing, install "
            "the build that belongs to your torch: pip install torchvision (on a machine without a GPU with "
            "--index-url https://download.pytorch.org/whl/cpu)"
        ) from error
    if not hasattr(processor, "image_processor"):
        raise CheckpointError(f"{folder} has no image processor: preprocessor_config.json is missing")
    if processor.chat_template is None:
        raise CheckpointError(f"{folder} has no chat template; is it an instruct model?")
    return processor


def encode(processor: Any, image: Image.Image, instruction: str) -> tuple[Tensor, Inputs, str]:
    """Token ids (P,) of a prompt, what else the model takes of it, and its text; ValueError if it cannot be."""
    content = [{"type": "image", "image": image}, {"type": "text", "text": instruction}]
    chat = [{"role": "user", "content": content}]
    text: str = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    inputs = processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    kept = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    kept.pop("attention_mask", None)
    return kept.pop("input_ids")[0], kept, text


def repeat_inputs(inputs: Inputs, num_rows: int, prompt_length: int, num_tokens: int) -> Inputs:
    """The inputs of `num_rows` rows (R, T) that begin with a prompt (P,), from the prompt's own. What
    says something of each token (1, P), such as its type, says 0 of those behind the prompt."""
    longer = {
        name: nn.functional.pad(tensor, (0, num_tokens - prompt_length))
        if tensor.shape == (1, prompt_length)
        else tensor
        for name, tensor in inputs.items()
    }
    return {name: torch.cat([tensor] * num_rows) for name, tensor in longer.items()}


def logits(model: Any, input_ids: Tensor, inputs: Inputs, num_kept: int) -> Tensor:
    """Logits (R, K, V) of the last K tokens of rows (R, T)."""
    kept: Tensor = model(input_ids=input_ids, logits_to_keep=num_kept, use_cache=False, **inputs).logits
    return kept[:, -num_kept:]
