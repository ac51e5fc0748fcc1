"""The policy: a vision-language model with its tokenizer, image processor and dialect.

`loading` makes one from a transformers folder, `saving` writes it back. How prompts are made and go through the model
is the job of its `path`, either of which shares image and prompt between completions: `packed` for families with a
file, `generic` for all others.
Axis letters: R rows, T tokens, N completion tokens, D width, V vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from visionr1.dialects import Dialect, instruction
from visionr1.models.prompts import Prompt
from visionr1.models.rows import Group, Rows
from visionr1.models.special_tokens import end_ids, special_ids, suppressed_ids
from visionr1.samples import Query


class ForwardPath(Protocol):
    """How prompts are made and go through the model. It is chosen once, when a model is loaded."""

    @property
    def packs_rows(self) -> bool:
        """True if prompts and completions of several samples make one row; False if each prompt has a cache."""

    @property
    def uses_all_weights(self) -> bool:
        """True if every weight has a gradient after each backward pass; DDP must look for the others if not."""

    def encode(self, image: Image.Image, instruction: str) -> Prompt:
        """Return the prompt for one RGB image and the text of the query.

        Raises ImageRefused if the image cannot be resized or the prompt leaves no room for a reply.
        """

    def encode_images(self, policy: "Policy", prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the prompts with the features of their images in place of `inputs`, where the path can use them.

        For a frozen vision tower: each image goes through it once, however often its prompt is used afterwards.
        """

    def micro_batches(self, groups: Sequence[Group], tokens_per_forward: int) -> list[list[Group]]:
        """Split the groups into micro-batches of at most `tokens_per_forward` tokens.

        The completions of a group may come into several micro-batches; a single completion is never cut.
        """

    def pack(self, groups: Sequence[Group]) -> Rows:
        """Return one micro-batch as the path takes it."""

    def token_logprobs(self, policy: "Policy", rows: Rows, *, temperature: float, suppress: bool) -> Tensor:
        """Return the log-probabilities (N,) of the completion tokens, in the order of `rows.targets`."""

    def save_processor(self, folder: Path) -> None:
        """Write the tokenizer and everything else that prompts are made with."""


class Policy:
    """A model with its tokenizer, image processor and dialect."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        dialect: Dialect,
        path: ForwardPath,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.template = ""
        """What takes the place of the dialect's instructions, if not empty; see `dialects.instruction`."""
        self.max_pixels = 0
        """The bound on an image's pixels that `image_bounds` set; 0 is what the model folder says."""
        self.computes_on: torch.device | None = None
        """The device of its passes, where weights wait elsewhere between them; None is where they are."""
        self.quantization = "none"
        """How the language model's weights were rounded when they were loaded, as in `quantization.QUANTIZATIONS`."""
        self.path = path
        self.config = model.config
        self.eos_ids = end_ids(model, tokenizer)
        self.write_in(dialect)

    def write_in(self, dialect: Dialect) -> None:
        """Ask for, write and read boxes in `dialect`, whose own special tokens may be sampled."""
        self.dialect = dialect
        suppressed = suppressed_ids(self.config, self.tokenizer, dialect, self.eos_ids)
        self.suppressed_ids = suppressed.to(self.device) if self.has_weights else suppressed
        self._unread_ids = special_ids(self.tokenizer, dialect)

    def __getstate__(self) -> dict[str, Any]:
        """Return what encodes prompts: a worker process gets no weights."""
        return {name: value for name, value in vars(self).items() if name not in ("model", "suppressed_ids")}

    @property
    def device(self) -> torch.device:
        device: torch.device = self.computes_on or self.model.device
        return device

    @property
    def has_weights(self) -> bool:
        """False of a policy from `load_encoder`, which makes prompts and reads replies alone."""
        return self.device.type != "meta"

    @property
    def context(self) -> int:
        """The most tokens that a prompt and its completion may have together."""
        return context_length(self.config)

    @property
    def decoder(self) -> Any:
        """The language model: `embed_tokens`, `layers`, `norm`, `rotary_emb`."""
        return self.model.model.get_decoder()

    def encode(self, image: Image.Image, query: Query, template: str = "") -> Prompt:
        """Return the prompt for one RGB image and one query; `template` goes before the policy's own.

        Raises ImageRefused if the image cannot be resized or the prompt leaves no room for a reply.
        """
        return self.path.encode(image, instruction(query, self.dialect, template or self.template))

    def encode_reply(self, text: str) -> Tensor:
        """Return the token ids (T,) of a reply, its end token included."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return torch.tensor([*ids, self.eos_ids[0]])

    def decode_reply(self, token_ids: Sequence[int]) -> str:
        """Return the text of a reply's tokens, without special tokens other than those its dialect is written in."""
        read = [token for token in token_ids if token not in self._unread_ids]
        text: str = self.tokenizer.decode(read, skip_special_tokens=False)
        return text

    @torch.no_grad()
    def encode_images(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return the prompts with their images encoded by the vision tower, as `ForwardPath.encode_images`."""
        return self.path.encode_images(self, prompts)

    def token_logprobs(self, rows: Rows, *, temperature: float = 1.0, suppress: bool = True) -> Tensor:
        """Return the log-probabilities (N,) of the completion tokens in `rows`, in the order of `rows.targets`."""
        return self.path.token_logprobs(self, rows, temperature=temperature, suppress=suppress)

    def logits(self, hidden: Tensor, *, temperature: float = 1.0, suppress: bool = True) -> Tensor:
        """Return the policy's logits (..., V) after last hidden states (..., D), as `restrict` makes them."""
        return self.restrict(self.model.lm_head(hidden), temperature=temperature, suppress=suppress)

    def restrict(self, logits: Tensor, *, temperature: float = 1.0, suppress: bool = True) -> Tensor:
        """Return the model's `logits` as those of the policy, in float32 and divided by the temperature.

        With `suppress`, those of image and special tokens other than the end are minus infinity.
        """
        logits = logits.float()
        if temperature != 1.0:
            logits = logits / temperature
        return logits.index_fill(-1, self.suppressed_ids, -torch.inf) if suppress else logits


def context_length(config: Any) -> int:
    """Return the most tokens that a model reads at once."""
    length: int = config.get_text_config().max_position_embeddings
    return length


def target_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probabilities (N,) of `targets` (N,) under `logits` (N, V)."""
    return -nn.functional.cross_entropy(logits, targets, reduction="none")
