"""The generic path, for models whose family has no file here: completions share a prompt's cache.

Image and prompt go through the model once; the cache that this leaves is forked to the G completions, which go on from
it side by side, padded on the right. This is exact, whatever the layers are: full attention, windows, recurrent states,
convolutions, images whose tokens see each other. All it asks of a model is transformers' cache. It is somewhat slower
than the row of `packed`, which pads nothing and holds several samples.
Axis letters: G completions of one prompt, R rows, T tokens, P of the prompt, N completion tokens in all, V vocabulary.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from visionr1.dialects import Dialect
from visionr1.errors import CheckpointError
from visionr1.models.folder.chat_template import render_prompt
from visionr1.models.folder.processor import save_processor
from visionr1.models.paths.scoring import last_hidden_states, model_logits, score_in_chunks
from visionr1.models.paths.shared_cache import Layer, PassCache, select_rows
from visionr1.models.policy import Policy, context_length
from visionr1.models.prompts import Prompt, check_length, feeding, holds_pixels
from visionr1.models.rows import Group, Rows
from visionr1.samples import Size

UNUSED_INPUTS = ("attention_mask", "labels")
"""What processors return that one unpadded prompt does not need: all its tokens are seen, and none is a target."""

UNCAST_PIXELS = frozenset({"lfm3_vl"})
"""Model types whose vision tower takes pixels in the type of its weights; all others cast them."""

FIRST_POSITIONS = {"paligemma": 1}
"""The position of a prompt's first token, where it is not 0, by model type."""


@dataclass(frozen=True, slots=True)
class BranchRows(Rows):
    """One prompt, and the rows of its completions, which go on from the prompt's cache."""

    prompt: Prompt
    input_ids: Tensor
    """(R, T) the completions without their last tokens, which predict nothing; padded on the right."""
    place: Tensor
    """(N,) what predicts each completion token: 0 is the prompt's last token, 1 + n token n of the rows, flattened."""

    def to(self, device: torch.device) -> "BranchRows":
        """As in `Rows`."""
        return replace(
            self,
            targets=self.targets.to(device),
            prompt=self.prompt.to(device),
            input_ids=self.input_ids.to(device),
            place=self.place.to(device),
        )


@dataclass(frozen=True, slots=True)
class Prefill:
    """What a pass over a prompt leaves for its completions."""

    states: Tensor
    """(1, D) the last hidden state of its last token, after which the first token comes."""
    layers: list[Layer]
    length: int
    """P, the tokens that the layers hold."""
    rope_delta: Tensor | None
    """(1, 1) what is added to a token's number to get its position, where images take fewer positions than tokens."""


class GenericPath:
    """Prompts by the model's own processor, completions by transformers' cache."""

    packs_rows = False
    uses_all_weights = False  # no reply depends on LLaVA's last CLIP layer, for example

    def __init__(self, config: Any, processor: Any, processor_files: Mapping[str, bytes]) -> None:
        """`processor_files` are files of the model folder, by name, that `save_processor` writes back unchanged."""
        self._config = config
        self._processor = processor
        self._processor_files = processor_files
        self._pixel_dtype = config.dtype if config.model_type in UNCAST_PIXELS else torch.float32

    def check_dialect(self, dialect: Dialect, folder: Path) -> None:
        """Raise CheckpointError if a dialect needs the size at which the model in `folder` sees an image, unknown."""
        if dialect.in_model_px and not self._tells_input_size:
            raise CheckpointError(
                f"{folder}: dialect {dialect.name!r} writes pixels of the model's input, whose size the processor of "
                f"models of type {self._config.model_type!r} does not tell; choose another dialect"
            )

    @property
    def _tells_input_size(self) -> bool:
        """True if an image is a grid of patches of one size, as Qwen's are."""
        processor = self._processor.image_processor
        return "image_grid_thw" in processor.model_input_names and isinstance(processor.patch_size, int)

    def encode(self, image: Image.Image, instruction: str) -> Prompt:
        """As in `ForwardPath`."""
        content: list[dict[str, Any]] = [{"type": "image", "image": image}, {"type": "text", "text": instruction}]
        chat = [{"role": "user", "content": content}]
        template = self._processor.apply_chat_template
        text = render_prompt(template, content)
        with feeding(image):
            encoded = template(chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
        inputs = {}
        for name, value in encoded.items():
            if isinstance(value, Tensor) and name not in UNUSED_INPUTS:
                # Models cast pixels themselves, but some processors return bfloat16 (Llama 4).
                inputs[name] = value.to(self._pixel_dtype) if value.is_floating_point() else value
        input_ids = inputs.pop("input_ids")[0]

        check_length(image, input_ids, context_length(self._config), "use smaller images, or set model.max_pixels")
        return Prompt(
            input_ids=input_ids,
            position_ids=input_ids.new_empty((0, len(input_ids))),
            inputs=inputs,
            input_size_wh=self._find_input_size(image, inputs),
            text=text,
            image=image,
        )

    def _find_input_size(self, image: Image.Image, inputs: Mapping[str, Tensor]) -> Size:
        """Return the size (pixels) at which the model sees the image, if the processor says so; else the image's."""
        if not self._tells_input_size:
            return image.size
        _, rows, columns = inputs["image_grid_thw"][0].tolist()
        patch = self._processor.image_processor.patch_size
        return (columns * patch, rows * patch)

    def encode_images(self, policy: Policy, prompts: Sequence[Prompt]) -> list[Prompt]:
        """As in `ForwardPath`; prompts stay as they are where the model takes no features made beforehand."""
        if "mm_encoder_outputs" not in inspect.signature(policy.model.forward).parameters:
            return list(prompts)
        encode = policy.model.model.get_image_features
        encoded = []
        for prompt in prompts:
            inputs = dict(prompt.inputs)
            arguments = {}
            for name in inspect.signature(encode).parameters:
                if name in inputs:
                    arguments[name] = inputs[name].to(policy.device)
            features = encode(**arguments, return_dict=True)
            for name in arguments:
                if holds_pixels(name, inputs[name]):
                    del inputs[name]
            encoded.append(replace(prompt, inputs=inputs, features=features))
        return encoded

    def micro_batches(self, groups: Sequence[Group], tokens_per_forward: int) -> list[list[Group]]:
        """As in `ForwardPath`; each micro-batch is of one group, its prompt counted once and its rows as padded."""
        return [[part] for group in groups for part in _split_group(group, tokens_per_forward)]

    def pack(self, groups: Sequence[Group]) -> BranchRows:
        """Return the rows of the one group."""
        (group,) = groups
        lengths = torch.tensor([len(ids) for ids in group.completions])

        # A token predicts the next one. Where all completions have one token, a row still has one, so that every
        # micro-batch makes the same passes: processes that share a model's weights have to.
        rows = [ids[:-1] if lengths.max() > 1 else ids for ids in group.completions]
        input_ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)

        # The prompt predicts the first token of every completion, a row's own tokens the others.
        row_length = input_ids.shape[1]
        first_place = 1 + row_length * torch.arange(len(lengths))
        places = torch.cat(
            (torch.zeros(len(lengths), 1, dtype=torch.long), first_place[:, None] + torch.arange(row_length)), 1
        )
        is_predicted = torch.arange(row_length + 1) < lengths[:, None]
        return BranchRows(
            targets=torch.cat(group.completions),
            completion=torch.tensor(group.indices).repeat_interleave(lengths),
            prompt=group.prompt,
            input_ids=input_ids,
            place=places[is_predicted],
        )

    def prefill(self, policy: Policy, prompt: Prompt) -> Prefill:
        """Pass a prompt on the policy's device through the model."""
        inputs: dict[str, Any] = dict(prompt.inputs)
        if prompt.features is not None:
            inputs["mm_encoder_outputs"] = {"image": prompt.features}
        cache = PassCache(self._config.get_text_config(decoder=True))
        states = last_hidden_states(
            policy.model, input_ids=prompt.input_ids[None], past_key_values=cache, use_cache=True, **inputs
        )
        return Prefill(
            states=states[:, -1],
            layers=cache.result,
            length=len(prompt.input_ids),
            rope_delta=getattr(policy.model.model, "rope_deltas", None),
        )

    def token_logprobs(self, policy: Policy, rows: Rows, *, temperature: float, suppress: bool) -> Tensor:
        """As in `ForwardPath`; logits are held for a chunk of tokens at a time."""
        assert isinstance(rows, BranchRows)
        num_rows = len(rows.input_ids)
        prefill = self.prefill(policy, rows.prompt)

        branches = select_rows(prefill.layers, rows.input_ids.new_zeros(num_rows))
        cache = PassCache(self._config.get_text_config(decoder=True), branches)
        states = last_hidden_states(policy.model, input_ids=rows.input_ids, past_key_values=cache, use_cache=True)

        def logits_after(states: Tensor) -> Tensor:
            return policy.restrict(model_logits(policy.model, states), temperature=temperature, suppress=suppress)

        predicting = torch.cat((prefill.states, states.flatten(0, 1)))[rows.place]
        return score_in_chunks(logits_after, predicting, rows.targets, self._config.get_text_config().vocab_size)

    def save_processor(self, folder: Path) -> None:
        """As in `ForwardPath`."""
        save_processor(self._processor, folder, self._processor_files)


def _split_group(group: Group, tokens_per_forward: int) -> list[Group]:
    """Split a group into parts whose prompt and padded rows fit into `tokens_per_forward`; one row is always allowed.

    The longest completions come together, so that little is padding; those without tokens are left out.
    """
    filled = [place for place, ids in enumerate(group.completions) if len(ids)]
    longest_first = sorted(filled, key=lambda place: -len(group.completions[place]))
    room = tokens_per_forward - len(group.prompt.input_ids)
    parts: list[Group] = []
    while longest_first:
        row_length = max(1, len(group.completions[longest_first[0]]) - 1)
        num_rows = max(1, room // row_length)
        parts.append(group.part(longest_first[:num_rows]))
        longest_first = longest_first[num_rows:]
    return parts
