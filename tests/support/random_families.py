"""Models with random weights, of any width, of families that cut images into tiles: InternVL, SmolVLM, Idefics3.

`more_shapes.build_by_name` builds those and all others at one small size.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    GotOcr2ImageProcessorPil,
    Idefics3ImageProcessorPil,
    PreTrainedTokenizerFast,
    SmolVLMImageProcessorPil,
)

from visionr1.files import write_json_atomic
from visionr1.models.loading import load_policy
from visionr1.models.tiny import CHAT_TEMPLATE

TILE, PATCH = 40, 10  # pixels; 2 x 2 patches make one image token, so a tile takes 4
TILE_TOKENS = (TILE // PATCH) ** 2 // 4

QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
INTERNVL_TEMPLATE = CHAT_TEMPLATE.replace(QWEN_IMAGE, "<IMG_CONTEXT>\n")  # as released
SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def build_internvl(folder: Path, like: Path, *, width: int = 256, layers: int = 4) -> Path:
    """An InternVL folder (Qwen2 inside, grouped keys), both towers `width` wide and `layers` deep; its tokenizer is
    that of the folder `like` with the family's own tokens."""
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = _tokenizer(like, [*named.values(), "<ref>", "</ref>", "<box>", "</box>"], INTERNVL_TEMPLATE, named)
    image_token_id = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    config = AutoConfig.for_model(
        "internvl",
        text_config={"model_type": "qwen2", **_decoder(tokenizer, width, layers)},
        vision_config=_tower(width, layers),
        image_token_id=image_token_id,
        image_seq_length=TILE_TOKENS,
        tie_word_embeddings=False,
    )
    processor = GotOcr2ImageProcessorPil(size={"height": TILE, "width": TILE}, crop_to_patches=False, max_patches=6)
    return _write(folder, config, tokenizer, processor)


def build_smolvlm(folder: Path, like: Path, *, model_type: str = "smolvlm", width: int = 256, layers: int = 4) -> Path:
    """A SmolVLM or (`model_type` "idefics3") Idefics3 folder (Llama inside, grouped keys), both towers `width` wide and
    `layers` deep; its tokenizer is that of the folder `like` with the family's own tokens."""
    places = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    own = ["<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>", *places]
    tokenizer = _tokenizer(like, own, SMOLVLM_TEMPLATE, {})
    tokenizer.eos_token = "<end_of_utterance>"
    config = AutoConfig.for_model(
        model_type,
        text_config={"model_type": "llama", **_decoder(tokenizer, width, layers)},
        vision_config=_tower(width, layers),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    kind = {"smolvlm": SmolVLMImageProcessorPil, "idefics3": Idefics3ImageProcessorPil}[model_type]
    processor = kind(size={"longest_edge": 3 * TILE}, max_image_size={"longest_edge": TILE})
    return _write(folder, config, tokenizer, processor)


def _tower(width: int, layers: int) -> dict[str, Any]:
    return {
        "image_size": TILE,
        "patch_size": PATCH,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "hidden_size": width,
        "intermediate_size": 2 * width,
    }


def _tokenizer(like: Path, tokens: list[str], template: str, named: dict[str, str]) -> PreTrainedTokenizerFast:
    tokenizer = load_policy(like).tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": tokens}, replace_extra_special_tokens=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        extra_special_tokens=named,
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def _decoder(tokenizer: Any, width: int, layers: int) -> dict[str, Any]:
    return {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _write(folder: Path, config: Any, *processors: Any) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    model.generation_config.eos_token_id = config.get_text_config().eos_token_id
    for part in (model, *processors):
        part.save_pretrained(folder)
    if config.model_type != "internvl":
        write_json_atomic(folder / "visionr1.json", {"dialect": "qwen3"})
    return folder
