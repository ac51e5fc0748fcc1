"""The packed path: prompts and completions of several samples in one row, for families with a file.

The G completions of a sample differ only after the prompt, so a row holds the prompt once, and the
samples of a micro-batch follow each other in one row:

    [p_1 ... p_n-1 | p_n c1_1 c1_2 ... | p_n c2_1 c2_2 ... | ... | q_1 ... q_m-1 | q_m d1_1 ... | ...]

The prompt without its last token is the prefix; what follows it are branches. Each branch repeats the last prompt
token, whose hidden state predicts the branch's first token, and leaves out its own last token, which predicts nothing.
A branch sees its prefix and itself (tree attention) and counts its positions on from the prompt. This is exact:
log-probabilities and gradients are those of one row per completion, at the cost of one image, one prompt and G
completions a sample.

A sample with one branch is a plain causal row; supervised training uses the same code. Models whose family has no file
here take the generic path (`models/paths/generic.py`).
Axis letters: A axes of position ids, R rows, T tokens, N completion tokens in all, M image tokens, K features of one
image token, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from visionr1.models.attention.block_sparse import Span
from visionr1.models.attention.tree import Tree
from visionr1.models.family import Family, Inputs
from visionr1.models.image_bounds import name_bound
from visionr1.models.paths.scoring import score_in_chunks
from visionr1.models.policy import Policy, context_length
from visionr1.models.prompts import Prompt, check_length, feeding, join_features, join_inputs, render_chat
from visionr1.models.rows import Group, Rows

PAD_TO = 64
"""Rows are as long as a multiple of this: a CPU prepares a matrix product anew for each new shape."""


@dataclass(frozen=True, slots=True)
class PackedRow(Rows):
    """One padded row of prompts and completions, and where in it each completion token is predicted."""

    input_ids: Tensor
    """(1, T)"""
    position_ids: Tensor
    """(A, 1, T)"""
    tree: Tree
    """Where prompts and completions lie in the row."""
    inputs: Inputs
    """What the vision tower takes of the images."""
    features: Tensor | None
    """(M, K, D) of the image tokens, where prompts have them."""
    place: Tensor
    """(N,) place in the row of the hidden state that predicts each completion token."""

    def to(self, device: torch.device) -> "PackedRow":
        """As in `Rows`."""
        return replace(
            self,
            targets=self.targets.to(device),
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            tree=self.tree.to(device),
            inputs={name: tensor.to(device) for name, tensor in self.inputs.items()},
            features=self.features if self.features is None else self.features.to(device),
            place=self.place.to(device),
        )


class PackedPath:
    """Prompts and forward passes of a family whose decoder attends causally, so that completions share a prefix."""

    packs_rows = True

    def __init__(
        self,
        family: Family,
        config: Any,
        tokenizer: Any,
        image_processor: Any,
        processor_files: Mapping[str, bytes] | None = None,
    ) -> None:
        """`processor_files` are files of the model folder, by name, that `save_processor` writes back unchanged."""
        self.family = family
        self._config = config
        self._tokenizer = tokenizer
        self._image_processor = image_processor
        self._processor_files = processor_files or {}

    @property
    def uses_all_weights(self) -> bool:
        """As in `ForwardPath`."""
        return self.family.uses_all_weights

    def encode(self, image: Image.Image, instruction: str) -> Prompt:
        """As in `ForwardPath`."""
        with feeding(image):
            encoded = self.family.encode_image(self._config, self._image_processor, self._tokenizer, image)
        text, before, after = render_chat(self._tokenizer, self._config.image_token_id, instruction)
        input_ids = torch.cat((before, encoded.token_ids, after))
        check_length(
            image,
            input_ids,
            context_length(self._config),
            f"{len(encoded.token_ids)} of them are the image's: use smaller images, set model.max_pixels in a "
            f"recipe, or lower {name_bound(self._processor_files, self.family.fewer_tokens)}",
        )
        return Prompt(
            input_ids=input_ids,
            position_ids=self.family.position_ids(self._config, input_ids, encoded.inputs),
            inputs=encoded.inputs,
            input_size_wh=encoded.input_size_wh,
            text=text,
            image=image,
        )

    def encode_images(self, policy: Policy, prompts: Sequence[Prompt]) -> list[Prompt]:
        """As in `ForwardPath`."""
        # All images go through the vision tower together.
        inputs = {name: tensor.to(policy.device) for name, tensor in join_inputs(prompts).items()}
        features = self.family.image_features(policy.model, inputs)

        # Each prompt gets as many features as it has image tokens, and needs its image no more.
        lengths = [int((prompt.input_ids == self._config.image_token_id).sum()) for prompt in prompts]
        encoded = []
        for prompt, part in zip(prompts, features.split(lengths), strict=True):
            encoded.append(replace(prompt, features=part, inputs={}))
        return encoded

    def hidden_states(
        self,
        policy: Policy,
        *,
        input_ids: Tensor,
        position_ids: Tensor,
        tree: Tree | None,
        inputs: Inputs,
        features: Tensor | None = None,
        cache: Any = None,
    ) -> Tensor:
        """Return the last hidden states (R, T, D) of rows (R, T) with positions (A, R, T).

        Rows are causal, or there is one row that is a `tree`. `features` (M, K, D) are those of the image tokens, row
        by row; without them the vision tower makes them of `inputs`. Keys and values are added to `cache` if there is
        one.
        """
        if features is None:
            features = self.family.image_features(policy.model, inputs)

        # Of a token's features the first takes the place of its embedding, the others are added in later layers.
        is_image = input_ids == self._config.image_token_id
        embeddings = policy.decoder.embed_tokens(input_ids)
        first, *later = features.to(embeddings.dtype).unbind(dim=1)

        # The decoder is called by itself, so the model's `rope_deltas`, left by an earlier call, are unused.
        output = policy.decoder(
            inputs_embeds=embeddings.masked_scatter(is_image[..., None], first),
            position_ids=rotary_positions(position_ids),
            tree=tree,
            past_key_values=cache,
            use_cache=cache is not None,
            **self.family.later_features(is_image, later),
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    @staticmethod
    def micro_batches(groups: Sequence[Group], tokens_per_forward: int) -> list[list[Group]]:
        """As in `ForwardPath`: first-fit decreasing, the longest first, each into the first micro-batch with room."""
        parts = [part for group in groups for part in _split_group(group, tokens_per_forward)]
        batches: list[list[Group]] = []
        room: list[int] = []
        for part in sorted(parts, key=lambda part: -part.num_tokens):
            number = 0
            while number < len(batches) and part.num_tokens > room[number]:
                number += 1
            if number == len(batches):
                batches.append([])
                room.append(tokens_per_forward)
            batches[number].append(part)
            room[number] -= part.num_tokens
        return batches

    @staticmethod
    def pack(groups: Sequence[Group]) -> PackedRow:
        """Return the one row of `groups`, one after the other."""
        row = _RowBuilder()
        for group in groups:
            row.add(group)
        return row.build([group.prompt for group in groups])

    def token_logprobs(self, policy: Policy, rows: Rows, *, temperature: float, suppress: bool) -> Tensor:
        """As in `ForwardPath`; logits are held for a chunk of tokens at a time."""
        assert isinstance(rows, PackedRow)
        hidden = self.hidden_states(
            policy,
            input_ids=rows.input_ids,
            position_ids=rows.position_ids,
            tree=rows.tree,
            inputs=rows.inputs,
            features=rows.features,
        )

        def logits_after(states: Tensor) -> Tensor:
            return policy.logits(states, temperature=temperature, suppress=suppress)

        vocabulary = self._config.get_text_config().vocab_size
        return score_in_chunks(logits_after, hidden[0, rows.place], rows.targets, vocabulary)

    def save_processor(self, folder: Path) -> None:
        """As in `ForwardPath`."""
        self._tokenizer.save_pretrained(folder)
        self._image_processor.save_pretrained(folder)
        for name, content in self._processor_files.items():
            if not (folder / name).exists():
                (folder / name).write_bytes(content)


@dataclass(slots=True)
class _RowBuilder:
    """A row while groups are added to it. See the top of this file for its layout."""

    input_ids: list[Tensor] = field(default_factory=list)
    position_ids: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    prefixes: list[Span] = field(default_factory=list)
    branches: list[Span] = field(default_factory=list)
    prefix_of: list[int] = field(default_factory=list)
    """Number of each branch's prefix."""
    indices: list[int] = field(default_factory=list)
    """Number of each branch's completion in the batch."""
    length: int = 0

    def add(self, group: Group) -> None:
        """Append a prefix and its branches; a completion without tokens has none."""
        prompt = group.prompt
        prefix_length = len(prompt.input_ids) - 1
        self.prefixes.append((self.length, prefix_length))
        self._append(prompt.input_ids[:-1], prompt.position_ids[:, :-1])

        # Every branch counts on from the prompt, as if it were alone behind it.
        last_position = prompt.position_ids[:, -1:]
        next_position = int(prompt.position_ids.max()) + 1
        for ids, index in zip(group.completions, group.indices, strict=True):
            if not len(ids):
                continue
            self.branches.append((self.length, len(ids)))
            self.prefix_of.append(len(self.prefixes) - 1)
            self.indices.append(index)
            self.targets.append(ids)
            counted = torch.arange(next_position, next_position + len(ids) - 1).expand(len(last_position), -1)
            self._append(
                torch.cat((prompt.input_ids[-1:], ids[:-1])),
                torch.cat((last_position, counted), dim=1),
            )

    def _append(self, input_ids: Tensor, position_ids: Tensor) -> None:
        """Append tokens (T,) with positions (A, T)."""
        self.input_ids.append(input_ids)
        self.position_ids.append(position_ids)
        self.length += len(input_ids)

    def build(self, prompts: Sequence[Prompt]) -> PackedRow:
        """Return the padded row; `prompts` are those of its groups."""
        padding = (0, -self.length % PAD_TO)
        filler = int(self.input_ids[-1][-1])  # text: any other token might be that of images
        predicting = [torch.arange(start, start + length) for start, length in self.branches]
        branch_lengths = torch.tensor([length for _, length in self.branches])
        return PackedRow(
            input_ids=pad(torch.cat(self.input_ids), padding, value=filler)[None],
            position_ids=pad(torch.cat(self.position_ids, dim=1), padding)[:, None],
            tree=Tree(
                prefixes=tuple(self.prefixes),
                branches=tuple(self.branches),
                prefix_of=tuple(self.prefix_of),
                num_tokens=self.length + padding[1],
            ),
            inputs=join_inputs(prompts),
            features=join_features(prompts),
            place=torch.cat(predicting),
            targets=torch.cat(self.targets),
            completion=torch.tensor(self.indices).repeat_interleave(branch_lengths),
        )


def _split_group(group: Group, tokens_per_forward: int) -> list[Group]:
    """Split a group, in order, into parts of at most `tokens_per_forward` tokens; each repeats the prompt.

    A part always has one completion, however long.
    """
    parts: list[list[int]] = []
    length = 0
    for place, completion in enumerate(group.completions):
        if not parts or length + len(completion) > tokens_per_forward:
            parts.append([])
            length = len(group.prompt.input_ids) - 1
        parts[-1].append(place)
        length += len(completion)
    return [group.part(places) for places in parts]


def rotary_positions(position_ids: Tensor) -> Tensor:
    """Return position ids (A, R, T) in the shape that decoders take: (R, T) if there is one axis."""
    return position_ids if len(position_ids) > 1 else position_ids[0]
