"""Models with random weights of families beside Qwen's: InternVL, SmolVLM and Idefics3, which cut images into tiles,
and some that have no file in visionr1.models: LLaVA, Gemma 3, and Qwen's of other generations."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    CLIPImageProcessorPil,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    GotOcr2ImageProcessorPil,
    Idefics3ImageProcessorPil,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
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


def build_llava(folder: Path, like: Path, *, width: int = 64, layers: int = 2) -> Path:
    """A LLaVA folder (CLIP and Llama), both towers `width` wide and `layers` deep: one tile of 16 tokens."""
    tokenizer = _tokenizer(like, ["<image>"], CHAT_TEMPLATE.replace(QWEN_IMAGE, "<image>"), {})
    config = AutoConfig.for_model(
        "llava",
        text_config={"model_type": "llama", **_decoder(tokenizer, width, layers)},
        vision_config={"model_type": "clip_vision_model", **_tower(width, layers)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": TILE}, crop_size={"height": TILE, "width": TILE}),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )
    return _write(folder, config, processor)


def build_gemma3(folder: Path, like: Path, *, width: int = 64, layers: int = 2) -> Path:
    """A Gemma 3 folder, both towers `width` wide and `layers` deep: the tokens of an image see each other, one layer in
    two sees a window of 16 tokens, and logits are capped."""
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    template = CHAT_TEMPLATE.replace(QWEN_IMAGE, "<start_of_image>")
    tokenizer = _tokenizer(like, list(named.values()), template, named)
    decoder = _decoder(tokenizer, width, layers)
    window = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] * (layers // 2)}
    config = AutoConfig.for_model(
        "gemma3",
        text_config={"head_dim": 16, "final_logit_softcapping": 5.0, **window, **decoder},
        vision_config=_tower(width, layers),
        mm_tokens_per_image=TILE_TOKENS,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
    )
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": TILE, "width": TILE}),
        tokenizer=tokenizer,
        chat_template=template,
        image_seq_length=TILE_TOKENS,
    )
    return _write(folder, config, processor)


_MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
_QWEN_TEXT: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"rope_parameters": _MROPE},
    "qwen3_vl_moe": {"rope_parameters": {**_MROPE, "mrope_interleaved": True}, "head_dim": 16, **_EXPERTS},
    # Three layers in four are recurrences (gated delta net) behind a short convolution.
    "qwen3_5": {
        "rope_parameters": {
            **_MROPE,
            "mrope_section": [2, 1, 1],
            "mrope_interleaved": True,
            "partial_rotary_factor": 0.5,
        },
        "head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
    },
}
"""What the language model of a Qwen without a file needs beyond the common settings."""
_QWEN_TOWER = {"hidden_size": 64, "depth": 2, "num_heads": 4, "patch_size": PATCH, "spatial_merge_size": 2}
_QWEN_VISION: dict[str, dict[str, Any]] = {
    "qwen2_vl": {**_QWEN_TOWER, "embed_dim": 64, "mlp_ratio": 2},
    "qwen3_vl_moe": {
        **_QWEN_TOWER,
        "intermediate_size": 128,
        "out_hidden_size": 64,
        "num_position_embeddings": 256,
        "deepstack_visual_indexes": [0],
    },
    "qwen3_5": {**_QWEN_TOWER, "intermediate_size": 128, "out_hidden_size": 64, "num_position_embeddings": 256},
}
QWEN_LIKE = tuple(_QWEN_TEXT)


def build_qwen_like(folder: Path, like: Path, model_type: str) -> Path:
    """A folder of a Qwen without a file, one of QWEN_LIKE, with the tokenizer of the folder `like`: a tower of 2 layers
    and a language model of 4, both 64 wide."""
    tokenizer = load_policy(like).tokenizer
    pad = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    edges = {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    config = AutoConfig.for_model(
        model_type,
        text_config={**_decoder(tokenizer, 64, 4), "bos_token_id": None, **_QWEN_TEXT[model_type]},
        vision_config={**_QWEN_VISION[model_type], "temporal_patch_size": 2},
        tie_word_embeddings=False,
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in {**pad, **edges}.items()},
    )
    size = {"shortest_edge": 400, "longest_edge": 6400}
    processor = Qwen2VLImageProcessorPil(patch_size=PATCH, temporal_patch_size=2, merge_size=2, size=size)
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
        if config.model_type == "gemma3":
            # It begins at zero, with which images would say nothing.
            torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.05)
    model.generation_config.eos_token_id = config.get_text_config().eos_token_id
    for part in (model, *processors):
        part.save_pretrained(folder)
    if config.model_type != "internvl":
        write_json_atomic(folder / "visionr1.json", {"dialect": "qwen3"})
    return folder
