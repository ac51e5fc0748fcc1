"""Small checkpoints of Griffon-G laid out as their authors release them, with what the authors' code makes of them.

tests/parity/griffon.json holds the configurations, names and shapes that their code writes, and its results.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from visionr1.files import read_json, write_json_atomic
from visionr1.models.conversion.griffon import convert_griffon

RECORD = Path(__file__).parents[1] / "parity/griffon.json"
TOKENS = {
    "gemma2": ("<pad>", "<eos>", "<bos>", "<unused0>", "<start_of_turn>", "<end_of_turn>"),
    "llama": ("<unk>", "<s>", "</s>", "<0x00>"),
    "qwen2": ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>"),
}
"""Tokens with a meaning of their own, by language model."""
BEGIN_END = {"gemma2": ("<bos>", "<eos>"), "llama": ("<s>", "</s>"), "qwen2": (None, "<|im_end|>")}


def read_record() -> dict[str, Any]:
    """Return what the authors' code wrote."""
    record: dict[str, Any] = read_json(RECORD)
    return record


def build_release(folder: Path, kind: str, *, file: str = "model.safetensors") -> Path:
    """Write the checkpoint around a language model of `kind` to `folder`, its weights to `file`; CLIP's lies beside."""
    recorded = read_record()["models"][kind]
    folder.mkdir(parents=True)
    write_json_atomic(folder / "config.json", recorded["config"])
    write_json_atomic(folder / "generation_config.json", {"eos_token_id": 1, "cache_implementation": "hybrid"})
    weights = make_weights(recorded["shapes"])
    if file.endswith(".bin"):
        torch.save(weights, folder / file)
    else:
        save_file(weights, folder / file, metadata={"format": "pt"})
    make_tokenizer(kind).save_pretrained(folder)

    clip = folder.parent / "clip-tower"
    clip.mkdir(exist_ok=True)
    for name, content in read_record()["clip"].items():
        write_json_atomic(clip / name, content)
    return folder


def build_griffon(folder: Path, kind: str = "gemma2") -> Path:
    """Write the model that `visionr1 models convert` makes of such a checkpoint to `folder`."""
    released = build_release(folder.parent / f"released-{kind}", kind)
    convert_griffon(released, released.parent / "clip-tower", folder)
    return folder


def make_weights(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Return the random weights that the record was made with."""
    generator = np.random.RandomState(7)
    weights = {}
    for name in sorted(shapes):
        values = 0.15 * generator.standard_normal(tuple(shapes[name]))
        if name.endswith("norm.weight") or ("layer_norm" in name and name.endswith("weight")):
            values += 1
        weights[name] = torch.tensor(values, dtype=torch.float32)
    return weights


def make_image(size_wh: tuple[int, int], seed: int) -> Image.Image:
    """Return the noise that the record was made with."""
    generator = np.random.RandomState(seed)
    width, height = size_wh
    return Image.fromarray(generator.randint(0, 256, (height, width, 3)).astype(np.uint8), "RGB")


def make_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of single bytes with the special tokens of a language model of `kind`."""
    begin, end = BEGIN_END[kind]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*TOKENS[kind], *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([token for token in TOKENS[kind] if token not in ("<unused0>", "<0x00>")])
    if begin:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, vocabulary[begin])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=begin,
        eos_token=end,
        pad_token=TOKENS[kind][0],
        clean_up_tokenization_spaces=False,
    )
