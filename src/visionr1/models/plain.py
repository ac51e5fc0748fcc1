"""The plain path, for models whose family has no file here: what transformers offers for all of them.

Nothing is shared: every completion is a row with its own image and prompt, in scoring and in sampling. A row's image
inputs are copies of its prompt's, joined along their first axis: the model's processor makes the same of a batch of
equal prompts.
Axis letters: R rows, T tokens, P of the prompt, N completion tokens in all, V vocabulary.
"""

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoProcessor

from visionr1.errors import CheckpointError, DataError, MissingDependency
from visionr1.models.family import Inputs
from visionr1.models.policy import Policy, context_length, target_logprobs
from visionr1.models.prompts import Prompt, unfit_image
from visionr1.models.rows import Group, Rows

_log = logging.getLogger("visionr1")


class PlainPath:
    """Prompts by the model's own processor, one row for each completion."""

    shares_prefix = False
    uses_all_weights = False  # no reply depends on LLaVA's last CLIP layer, for example

    def __init__(self, config: Any, processor: Any) -> None:
        self._config = config
        self._processor = processor

    def encode(self, image: Image.Image, instruction: str) -> Prompt:
        """As in `ForwardPath`; the size at which the model sees the image is not known here."""
        content = [{"type": "image", "image": image}, {"type": "text", "text": instruction}]
        chat = [{"role": "user", "content": content}]
        template = self._processor.apply_chat_template
        try:
            text: str = template(chat, add_generation_prompt=True, tokenize=False)
            encoded = template(chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
        except ValueError as error:
            raise unfit_image(image, error) from error
        inputs = {name: value for name, value in encoded.items() if isinstance(value, Tensor)}
        inputs.pop("attention_mask", None)
        input_ids = inputs.pop("input_ids")[0]

        context = context_length(self._config)
        if len(input_ids) >= context:
            raise DataError(
                f"the prompt for an image of {image.width}x{image.height} pixels takes {len(input_ids)} tokens, but "
                f"the model's context holds {context}; use smaller images"
            )
        no_positions = input_ids.new_empty((0, len(input_ids)))
        return Prompt(input_ids, no_positions, inputs, input_size_wh=image.size, text=text, image=image)

    def encode_images(self, policy: Policy, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the prompts as they are: such a model makes image features in its forward pass alone."""
        return list(prompts)

    def micro_batches(self, groups: Sequence[Group], tokens_per_forward: int) -> list[list[Group]]:
        """As in `ForwardPath`; every completion repeats its prompt, and each micro-batch is of one group."""
        return [[part] for group in groups for part in _split_group(group, tokens_per_forward)]

    def pack(self, groups: Sequence[Group]) -> Rows:
        """Return the rows of the one group: each is the prompt and a completion without its last token, which
        predicts nothing."""
        (group,) = groups
        prompt = group.prompt
        filled = [place for place, ids in enumerate(group.completions) if len(ids)]
        completions = group.part(filled).completions
        indices = torch.tensor(group.part(filled).indices)
        lengths = torch.tensor([len(ids) for ids in completions])

        # Rows end at different lengths; the prompt's last token, at `first`, predicts the first of a completion.
        first = len(prompt.input_ids) - 1
        num_tokens = first + int(lengths.max())
        columns = torch.arange(num_tokens)
        is_token = columns < first + lengths[:, None]
        predicts = is_token & (columns >= first)

        rows = [torch.cat((prompt.input_ids, ids[:-1])) for ids in completions]
        image_inputs = repeat_inputs(prompt.inputs, len(rows), len(prompt.input_ids), num_tokens)
        return Rows(
            input_ids=nn.utils.rnn.pad_sequence(rows, batch_first=True),
            position_ids=prompt.position_ids.new_empty((0, len(rows), num_tokens)),
            tree=None,
            inputs={"attention_mask": is_token.long(), **image_inputs},
            features=None,
            place=predicts.flatten().nonzero().flatten(),
            targets=torch.cat(completions),
            completion=indices.repeat_interleave(lengths),
        )

    def token_logprobs(self, policy: Policy, rows: Rows, *, temperature: float, suppress: bool) -> Tensor:
        """As in `ForwardPath`; the logits of all completions are held at once."""
        num_tokens = rows.input_ids.shape[1]
        first = int(rows.place.min())  # the prompt's last token, in every row
        kept = num_tokens - first
        output = policy.model(input_ids=rows.input_ids, logits_to_keep=kept, use_cache=False, **rows.inputs)
        logits = output.logits[:, -kept:].flatten(0, 1)

        row = rows.place // num_tokens
        place_in_kept = rows.place - first * (1 + row)
        logits = policy.restrict(logits[place_in_kept], temperature=temperature, suppress=suppress)
        return target_logprobs(logits, rows.targets)

    def save_processor(self, folder: Path) -> None:
        """As in `ForwardPath`."""
        self._processor.save_pretrained(folder)


def _split_group(group: Group, tokens_per_forward: int) -> list[Group]:
    """Split a group into parts whose padded rows fit into `tokens_per_forward`; one row is always allowed."""
    longest_first = sorted(range(len(group.completions)), key=lambda place: -len(group.completions[place]))
    parts: list[Group] = []
    while longest_first:
        row_length = len(group.prompt.input_ids) + len(group.completions[longest_first[0]])
        num_rows = max(1, tokens_per_forward // row_length)
        parts.append(group.part(longest_first[:num_rows]))
        longest_first = longest_first[num_rows:]
    return parts


def repeat_inputs(inputs: Inputs, num_rows: int, prompt_length: int, num_tokens: int) -> Inputs:
    """Return the image inputs of `num_rows` rows of `num_tokens` (R, T) from those of their one prompt.

    Inputs with an entry for each token (1, P), such as its type, are 0 behind the prompt.
    """
    repeated = {}
    for name, tensor in inputs.items():
        if tensor.shape == (1, prompt_length):
            tensor = nn.functional.pad(tensor, (0, num_tokens - prompt_length))
        repeated[name] = torch.cat([tensor] * num_rows)
    return repeated


@cache
def warn_plain_path(model_type: str, reason: str) -> None:
    """Warn, once for each kind of model, that it takes the plain path."""
    _log.warning(
        "models of type %r take the plain path, which is slower: %s, so every completion is sampled and "
        "scored with its own image and prompt",
        model_type,
        reason,
    )


def load_processor(folder: Path) -> Any:
    """Return the processor in `folder`, which resizes images by PIL.

    Raises MissingDependency if it needs a package that is not installed, and CheckpointError if the folder has no
    image processor or no chat template.
    """
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
