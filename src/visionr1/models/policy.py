"""What training, evaluation and prediction need of a VLM: load it, encode a prompt, score tokens.

Any transformers folder of a known family loads: the small model that ships, and real checkpoints.
Images go through the folder's PIL image processor; torchvision is not needed.
Axis letters: A axes of position ids, R rows, T tokens, M image tokens, D width, K features of one image
token: what takes its place, and what is added to it in later layers; V vocabulary.
"""

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from visionr1.assets import embedded_path
from visionr1.dialects import Dialect, describe_dialects, get_dialect, instruction, resolve_dialect
from visionr1.errors import CheckpointError, DataError, RecipeError, needs_extra
from visionr1.files import write_json_atomic
from visionr1.models import plain
from visionr1.models.adapters import (
    base_folder,
    has_adapters,
    is_adapter_folder,
    load_adapters,
    merged_weights,
    save_adapters,
)
from visionr1.models.attention.tree import NAME as TREE_ATTENTION
from visionr1.models.attention.tree import Tree
from visionr1.models.families.internvl import InternVL
from visionr1.models.families.qwen3_vl import Qwen3VL
from visionr1.models.families.qwen25_vl import Qwen25VL
from visionr1.models.families.smolvlm import SmolVLM
from visionr1.models.family import Family, Inputs
from visionr1.samples import Boxes, Query, Size

_FAMILIES: tuple[Family, ...] = (Qwen25VL(), Qwen3VL(), InternVL(), SmolVLM(), SmolVLM("idefics3"))
FAMILIES = {family.model_type: family for family in _FAMILIES}
DIALECT_FILE = "visionr1.json"
PROCESSOR_FILES = ("processor_config.json", "video_preprocessor_config.json")
"""What a folder's processor knows beside tokenizer and image processor: saved as it was loaded."""
LOGITS_PER_CHUNK = 1 << 26
"""Logits held at once when tokens are scored; beyond it they are recomputed for the gradient."""


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """One image and one query, ready for the model."""

    input_ids: Tensor
    """(T,)"""
    position_ids: Tensor
    """(A, T); A is 0 where the model counts by itself, on the plain path."""
    inputs: Inputs
    """What the vision tower takes of the image."""
    input_size_wh: Size
    """What the model sees of the image, in its pixels."""
    text: str
    """As the chat template wrote it, the image one placeholder."""
    features: Tensor | None = None
    """(M, K, D) of its image tokens, where they are computed beforehand; then it has no inputs."""
    image: Image.Image | None = None
    """What was encoded, for a rollout engine with an image processor of its own."""

    @property
    def is_plain(self) -> bool:
        """Whether it is a prompt of the plain path."""
        return not len(self.position_ids)


def image_features(prompts: Sequence[Prompt]) -> Tensor | None:
    """Features (M, K, D) of the prompts' image tokens, one prompt after the other, if they have any."""
    features = [prompt.features for prompt in prompts if prompt.features is not None]
    return torch.cat(features) if features else None


def join_inputs(prompts: Sequence[Prompt]) -> Inputs:
    """What the vision tower takes of the prompts' images, one prompt after the other."""
    return {name: torch.cat([prompt.inputs[name] for prompt in prompts]) for name in prompts[0].inputs}


class Policy:
    """A model with its tokenizer, image processor and dialect."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        dialect: Dialect,
        family: Family | None,
        processor: Any = None,
        processor_files: Mapping[str, bytes] | None = None,
    ) -> None:
        """`processor_files` are what `save` adds, by name, where it does not write them itself."""
        self.model = model
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.dialect = dialect
        self._family = family
        self._processor = processor
        self._processor_files = processor_files or {}
        self.config = model.config
        self.eos_ids = _eos_ids(model, tokenizer)
        self._unread_ids = _special_ids(self)
        self.suppressed_ids = _suppressed_ids(self)
        self._template_ids = lru_cache(maxsize=1024)(self._render_template)

    def __getstate__(self) -> dict[str, Any]:
        """What encodes prompts: a worker process gets no weights."""
        without = ("model", "suppressed_ids", "_template_ids")
        return {name: value for name, value in vars(self).items() if name not in without}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._template_ids = lru_cache(maxsize=1024)(self._render_template)

    @property
    def shares_prefix(self) -> bool:
        """Whether a sample's completions share its image and prompt; else it takes the plain path."""
        return self._family is not None

    @property
    def family(self) -> Family:
        """The model's family; there is none on the plain path."""
        assert self._family is not None
        return self._family

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    @property
    def context(self) -> int:
        """How many tokens a prompt and its completion may have together."""
        length: int = self.config.get_text_config().max_position_embeddings
        return length

    def encode(self, image: Image.Image, query: Query, template: str = "") -> Prompt:
        """The prompt for one RGB image and one query; `template` as in `dialects.instruction`.

        Raises DataError if the image cannot be resized or the prompt leaves no room for a reply.
        """
        question = instruction(query, self.dialect, template)
        if not self.shares_prefix:
            return self._encode_plain(image, question)
        try:
            encoded = self.family.encode_image(self.config, self.image_processor, self.tokenizer, image)
        except ValueError as error:
            raise _unfit(image, error) from error
        text, before, after = self._template_ids(question)
        input_ids = torch.cat((before, encoded.token_ids, after))
        if len(input_ids) >= self.context:
            raise DataError(
                f"the prompt takes {len(input_ids)} tokens, {len(encoded.token_ids)} of them for an "
                f"image of {image.width}x{image.height} pixels, but the model's context holds {self.context}; "
                f"use smaller images or lower {self.family.fewer_tokens} in preprocessor_config.json"
            )
        return Prompt(
            input_ids=input_ids,
            position_ids=self.family.position_ids(self.config, input_ids, encoded.inputs),
            inputs=encoded.inputs,
            input_size_wh=encoded.input_size_wh,
            text=text,
            image=image,
        )

    def _encode_plain(self, image: Image.Image, question: str) -> Prompt:
        try:
            input_ids, inputs, text = plain.encode(self._processor, image, question)
        except ValueError as error:
            raise _unfit(image, error) from error
        if len(input_ids) >= self.context:
            raise DataError(
                f"the prompt for an image of {image.width}x{image.height} pixels takes {len(input_ids)} tokens, but "
                f"the model's context holds {self.context}; use smaller images"
            )
        nowhere = input_ids.new_empty((0, len(input_ids)))
        return Prompt(input_ids, nowhere, inputs, input_size_wh=image.size, text=text, image=image)

    def encode_reply(self, text: str) -> Tensor:
        """Token ids (T,) of a reply, its end token included."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return torch.tensor([*ids, self.eos_ids[0]])

    def decode_reply(self, token_ids: Sequence[int]) -> str:
        """The text of a reply's tokens, without special tokens, its end token among them, but with those
        that its dialect is written in."""
        read = [token for token in token_ids if token not in self._unread_ids]
        text: str = self.tokenizer.decode(read, skip_special_tokens=False)
        return text

    @property
    def decoder(self) -> Any:
        """The language model: `embed_tokens`, `layers`, `norm`, `rotary_emb`."""
        return self.model.model.get_decoder()

    def hidden_states(
        self,
        *,
        input_ids: Tensor,
        position_ids: Tensor,
        tree: Tree | None,
        inputs: Inputs,
        features: Tensor | None = None,
        cache: Any = None,
    ) -> Tensor:
        """Last hidden states (R, T, D) of rows (R, T) with positions (A, R, T): causal, or one row that
        is a `tree`. Its image tokens, row by row, have `features` (M, K, D); without those the vision
        tower makes them of `inputs`."""
        if features is None:
            features = self.family.image_features(self.model, inputs)
        decoder, is_image = self.decoder, input_ids == self.config.image_token_id
        embeddings = decoder.embed_tokens(input_ids)
        first, *later = features.to(embeddings.dtype).unbind(dim=1)
        # The decoder is called by itself, so the model's `rope_deltas`, left by an earlier call, are unused.
        output = decoder(
            inputs_embeds=embeddings.masked_scatter(is_image[..., None], first),
            position_ids=rotary_positions(position_ids),
            tree=tree,
            past_key_values=cache,
            use_cache=cache is not None,
            **self.family.later_features(is_image, later),
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    @torch.no_grad()
    def encode_images(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """`prompts` with the features of their images in place of inputs, for a vision tower that does
        not train: each image goes through it once, whatever is done with the prompts then. On the plain
        path, which has no features apart from the model's forward pass, they stay as they are."""
        if not self.shares_prefix:
            return list(prompts)
        inputs = {name: tensor.to(self.device) for name, tensor in join_inputs(prompts).items()}
        lengths = [int((prompt.input_ids == self.config.image_token_id).sum()) for prompt in prompts]
        features = self.family.image_features(self.model, inputs).split(lengths)
        return [replace(prompt, features=own, inputs={}) for prompt, own in zip(prompts, features, strict=True)]

    def logits(self, hidden: Tensor, *, temperature: float = 1.0, suppress: bool = True) -> Tensor:
        """Logits (..., V) in float32 of the policy: tempered, and where `suppress`, minus infinity
        for image and special tokens other than the end."""
        return self.restrict(self.model.lm_head(hidden), temperature=temperature, suppress=suppress)

    def restrict(self, logits: Tensor, *, temperature: float = 1.0, suppress: bool = True) -> Tensor:
        """`logits` of the model as those of the policy: see there."""
        logits = logits.float()
        if temperature != 1.0:
            logits = logits / temperature
        return logits.index_fill(-1, self.suppressed_ids, -torch.inf) if suppress else logits

    def token_logprobs(
        self, hidden: Tensor, targets: Tensor, *, temperature: float = 1.0, suppress: bool = True
    ) -> Tensor:
        """Log-probabilities (N,) of `targets` (N,) given hidden states (N, D), in chunks."""

        def score(hidden: Tensor, targets: Tensor) -> Tensor:
            logits = self.logits(hidden, temperature=temperature, suppress=suppress)
            return -nn.functional.cross_entropy(logits, targets, reduction="none")

        chunk = max(1, LOGITS_PER_CHUNK // self.config.get_text_config().vocab_size)
        if len(targets) <= chunk:
            return score(hidden, targets)
        return torch.cat(
            [
                checkpoint(score, h, t, use_reentrant=False)
                for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True)
            ]
        )

    def save(self, folder: Path, dtype: torch.dtype | None = None, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write an ordinary transformers folder; weights in `dtype`, else as they are in memory.

        Adapters are added to the weights, and also written by themselves to `folder`/adapter. `weights` is
        the model's state where it is not whole here, but in shards.
        """
        state = self.model.state_dict() if weights is None else weights
        merged = {name: tensor.cpu() for name, tensor in merged_weights(self.model, state, dtype)}
        self.model.save_pretrained(folder, state_dict=merged)
        if dtype:
            config = copy.deepcopy(self.model.config)
            config.dtype = dtype
            config.save_pretrained(folder)
        if has_adapters(self.model):
            save_adapters(self.model, state, folder / "adapter")
        for part in (self.tokenizer, self.image_processor) if self._processor is None else (self._processor,):
            part.save_pretrained(folder)
        for name, content in self._processor_files.items():
            if not (folder / name).exists():
                (folder / name).write_bytes(content)
        write_json_atomic(folder / DIALECT_FILE, {"dialect": self.dialect.name})

    def save_trained(self, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write what `load_policy` needs to restore this policy: its adapters alone if it has any."""
        if has_adapters(self.model):
            save_adapters(self.model, self.model.state_dict() if weights is None else weights, folder)
        else:
            self.save(folder, weights=weights)

    def _render_template(self, text: str) -> tuple[str, Tensor, Tensor]:
        """The chat prompt for instruction `text`, and its token ids before and after the image."""
        content = [{"type": "image"}, {"type": "text", "text": text}]
        chat: str = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        ids = torch.tensor(self.tokenizer.encode(chat, add_special_tokens=False))
        places = (ids == self.config.image_token_id).nonzero().flatten().tolist()
        if len(places) != 1 or places[0] == len(ids) - 1:
            raise DataError(
                f"the prompt must hold one image placeholder with text after it, but holds "
                f"{len(places)}; is there an image token in the query? Prompt: {chat!r}"
            )
        return chat, ids[: places[0]], ids[places[0] + 1 :]


def rotary_positions(position_ids: Tensor) -> Tensor:
    """Position ids (A, R, T) as decoders take them: (R, T) where there is one axis."""
    return position_ids if len(position_ids) > 1 else position_ids[0]


def model_folder(path: str | Path) -> Path:
    """The folder that `path` names: itself, a run's final/, or for "tiny" the model that ships."""
    if path == "tiny":
        return embedded_path("tiny")
    final = Path(path) / "final"
    return final if final.is_dir() else Path(path)


def load_policy(
    path: str | Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    dialect: str | None = None,
    base: str | Path | None = None,
) -> Policy:
    """The policy in transformers folder `path`; "tiny" is the model that ships.

    A folder of adapters is loaded with the model that they were trained on: `base`, else where it was.
    `dialect` names how it writes boxes; else the folder's visionr1.json does, else its model type.
    Raises CheckpointError if the folder is missing, of an unknown family, or lacks weights in safetensors files, and
    RecipeError if the device is not there.
    """
    with needs_extra("train"):
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        from transformers.utils.logging import disable_progress_bar
    disable_progress_bar()

    check_device(device)
    folder = model_folder(path)
    if is_adapter_folder(folder):
        below = model_folder(base or base_folder(folder))
        if is_adapter_folder(below):
            raise CheckpointError(f"the base of the adapters in {folder}, {below}, holds adapters itself, not a model")
        policy = load_policy(below, device=device, dtype=dtype, dialect=dialect)
        load_adapters(policy.model, folder)
        return policy
    if not (folder / "config.json").is_file():
        is_name = not folder.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(path))
        hint = f"; if it is a name on the hub, first: hf download {path} --local-dir {path}" if is_name else ""
        raise CheckpointError(f"no model in {folder}: config.json is missing{hint}")
    config = AutoConfig.from_pretrained(folder)
    if config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise CheckpointError(
            f"{folder} holds a model of type {config.model_type!r}, which reads no images; "
            f"known best: {', '.join(FAMILIES)}"
        )
    family = _find_family(config)
    writes = _find_dialect(dialect, folder, config.model_type, family)
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"cannot load the model in {folder}: {error}") from error
    wrong = {key: sorted(map(str, names)) for key, names in report.items() if names}
    if wrong:
        raise CheckpointError(f"the weights in {folder} do not fit its config.json: {wrong}")
    if family is None:
        processor = plain.load_processor(folder)
        return Policy(model.to(device), processor.tokenizer, processor.image_processor, writes, None, processor)
    family.prepare(model)
    model.set_attn_implementation({"text_config": TREE_ATTENTION})
    return Policy(
        model.to(device),
        _load_tokenizer(folder),
        AutoImageProcessor.from_pretrained(folder, backend="pil"),
        writes,
        family,
        processor_files={name: (folder / name).read_bytes() for name in PROCESSOR_FILES if (folder / name).is_file()},
    )


def check_device(name: str) -> None:
    """Raise RecipeError if nothing can be computed on the device called `name`."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(
            f'device: expected "cpu", or "cuda" or "cuda:1" where there is one, found {name!r} '
            f"({str(error).partition(chr(10))[0]}); choose with --device cpu, of a recipe --set model.device=cpu"
        ) from error


def _unfit(image: Image.Image, error: ValueError) -> DataError:
    return DataError(f"the image of {image.width}x{image.height} pixels cannot be fed to the model: {error}")


def _find_family(config: Any) -> Family | None:
    """The family of a model, or none, with a word to the user, if it has to take the plain path."""
    family, text = FAMILIES.get(config.model_type), config.get_text_config()
    partial = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    if family is None:
        reason = f"prefixes are shared by {', '.join(FAMILIES)}"
    elif text.model_type not in family.text_types:
        reason = f"its language model is {text.model_type!r}, and not one of {', '.join(family.text_types)}"
    elif partial:
        reason = f"its language model has layers of {', '.join(sorted(partial))}"
    else:
        return family
    plain.tell(config.model_type, reason)
    return None


def _find_dialect(name: str | None, folder: Path, model_type: str, family: Family | None) -> Dialect:
    """Return the dialect that a user named, else the folder's, else the family's."""
    dialect = resolve_dialect(name) if name else _folder_dialect(folder)
    if dialect is None and family and family.dialect:
        dialect = get_dialect(family.dialect)
    if dialect is None:
        raise CheckpointError(
            f"{folder} does not say how its model writes boxes, and models of type {model_type!r} have no one way: "
            f'write {{"dialect": NAME}} into {folder / DIALECT_FILE}; known: {describe_dialects()}'
        )
    if family is None and dialect.in_model_px:
        raise CheckpointError(
            f"dialect {dialect.name!r} writes pixels of the model's input, whose size is not known for models of type "
            f"{model_type!r}; choose another in {folder / DIALECT_FILE}"
        )
    return dialect


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.chat_template is None and (folder / "chat_template.json").is_file():
        template = json.loads((folder / "chat_template.json").read_text(encoding="utf-8"))
        tokenizer.chat_template = template["chat_template"]
    if tokenizer.chat_template is None:
        raise CheckpointError(f"{folder} has no chat template; is it an instruct model?")
    return tokenizer


def _folder_dialect(folder: Path) -> Dialect | None:
    """Return the dialect that a model folder's visionr1.json names; no code is imported for it."""
    path = folder / DIALECT_FILE
    if not path.is_file():
        return None
    name: str = json.loads(path.read_text(encoding="utf-8")).get("dialect", "")
    try:
        return get_dialect(name)
    except RecipeError as error:
        hint = "give one of your own with --dialect my_dialect.py:NAME, in a recipe model.dialect"
        raise CheckpointError(f"{path}: {error}; {hint}") from error


def _eos_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every token that ends a reply, the one that training writes first."""
    stated = model.generation_config.eos_token_id
    ids = [tokenizer.eos_token_id, *(stated if isinstance(stated, list) else [stated])]
    return tuple(dict.fromkeys(i for i in ids if i is not None))


def _special_ids(policy: Policy) -> set[int]:
    """The tokenizer's special tokens, but for those that the dialect writes boxes in."""
    box = Boxes.of([[0, 0, 1, 1]], ["cat"])
    written = policy.tokenizer.encode(
        policy.dialect.render(box, size_wh=(9, 9), input_size_wh=(9, 9)), add_special_tokens=False
    )
    return {i for i, token in policy.tokenizer.added_tokens_decoder.items() if token.special} - set(written)


def _suppressed_ids(policy: Policy) -> Tensor:
    """Tokens that no reply may hold: image and other special ones, and rows of the output layer
    beyond the tokenizer's vocabulary."""
    config, tokenizer = policy.config, policy.tokenizer
    special = _special_ids(policy)
    named = {v for k, v in config.to_dict().items() if k.endswith(("_token_id", "_token_index")) and isinstance(v, int)}
    beyond = set(range(len(tokenizer), config.get_text_config().vocab_size))
    ids = sorted((special | named | beyond) - set(policy.eos_ids))
    return torch.tensor(ids, dtype=torch.long, device=policy.device)
