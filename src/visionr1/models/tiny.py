"""The small Qwen3-VL that ships: its shape, its tokenizer, its processor. `build_tiny` writes it with random weights.

It is an ordinary transformers folder (`Qwen3VLForConditionalGeneration`), small enough to train on two CPU cores:

- digits are single tokens, and every fixed piece of the prompts and of the answer (`dialects/qwen25.py`) is ONE token,
  so a box costs 13 to 17 tokens; common nouns and the visual words of `scenes.py` are one token each, any
  other text is spelled in bytes;
- images are fed at about 320 x 240 pixels (48 image tokens), whatever their size.

`docs/base_model.md` says how the shape was chosen.
"""

import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from visionr1.dialects import QUESTION_TEMPLATE
from visionr1.dialects.griffon import TEMPLATES as GRIFFON_TEMPLATES
from visionr1.dialects.json_dialect import TEMPLATES as QWEN_TEMPLATES
from visionr1.files import write_json_atomic

PATCH = 20  # pixels of one vision patch; 2 x 2 patches make one image token
GRID = 16  # positions a side that the vision tower learns, interpolated to the image's patches
INPUT_PIXELS = 320 * 240  # no image is fed larger than this

# ChatML with the image first, as Qwen's own template writes one user turn.
CHAT_TEMPLATE = (
    "{%- for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{%- if message['content'] is string %}{{ message['content'] }}"
    "{%- else %}{%- for part in message['content'] %}"
    "{%- if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- else %}{{ part['text'] }}{%- endif %}{%- endfor %}{%- endif %}{{ '<|im_end|>\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# The fixed text between the numbers and labels of an answer, longest first where one begins another.
ANSWER_PIECES = (
    '```json\n[\n\t{"bbox_2d": [',
    '"},\n\t{"bbox_2d": [',
    '], "label": "',
    '"}\n]\n```',
    "```json\n[]\n```",
    ", ",
)
WORDS = """
Is Are How What Which many any more than there yes no or and is are color further higher lower above below
larger smaller largest smallest leftmost rightmost topmost bottommost outlined
circles squares triangles rectangles rings ellipses stars pentagons hexagons diamonds hearts arrows crescents objects
discs blobs dots cells
chanterelle CoW package puffin raccoon stingray
RBC WBC Platelets a the of in on with and left right top bottom middle small large big tiny
red green blue yellow orange purple pink brown black white gray grey cyan magenta violet teal light dark
circle square triangle rectangle ring ellipse oval cross star pentagon hexagon diamond crescent heart arrow bar dot blob
disc cell shape thing object item striped dotted plain shaded checkered spotted
person bicycle car motorcycle airplane bus train truck boat traffic fire hydrant stop sign parking meter bench bird cat
dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee skis snowboard sports
ball
kite baseball bat glove skateboard surfboard tennis racket bottle wine glass cup fork knife spoon bowl banana apple
sandwich broccoli carrot hot pizza donut cake chair couch potted plant bed dining table toilet tv laptop mouse remote
keyboard cell phone microwave oven toaster sink refrigerator book clock vase scissors teddy hair drier toothbrush
man woman child boy girl face hand head eye shirt hat shoe helmet vest mask bag box basket bucket can jar plate pan pot
window door wall floor roof road street bridge building house tower fence gate tree leaf flower grass fruit vegetable
tomato potato pepper grape lemon peach pear plum strawberry mushroom egg bread fish shark crab jellyfish starfish turtle
penguin chicken duck goose rabbit deer fox wolf pig goat monkey lion tiger insect bee butterfly spider snake frog
ship plane drone helicopter van taxi wheel tire light lamp sign flag screw bolt nut hammer wrench drill saw pipe wire
coin card chess king queen rook bishop knight pawn dice paper pen pencil letter number text logo label symbol button
crack hole defect damage dent scratch weed seed crop nucleus tumor bone tooth lung blood platelet bacteria virus
player referee goal racquet net helmet jersey pistol gun smoke flame water river lake mountain rock cloud sky sun moon
""".split()


def _pieces() -> list[str]:
    """Return every fixed piece of prompts and answers, longest first: the pre-tokenizer takes the first that fits."""
    templates = [*QWEN_TEMPLATES.values(), *GRIFFON_TEMPLATES.values(), QUESTION_TEMPLATE]
    prompts = {part for template in templates for part in template.split("{}") if part}
    return sorted({*prompts, *ANSWER_PIECES, "user\n", "assistant\n", "\n"}, key=lambda piece: (-len(piece), piece))


def _byte_symbols(text: str) -> str:
    """Return `text` in the printable byte alphabet of byte-level BPE."""
    pairs = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return "".join(symbols for symbols, _ in pairs)


def _vocabulary() -> dict[str, int]:
    """Return the id of each token: special tokens, single bytes, fixed pieces, words."""
    tokens = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens += map(_byte_symbols, _pieces())
    tokens += sorted(set(WORDS))
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def _tokenizer() -> Tokenizer:
    """Return a byte-level BPE without merges: a piece or word of the vocabulary is one token, all else is bytes."""
    split = "|".join([*map(re.escape, _pieces()), "[A-Za-z]+", r"[\s\S]"])
    tokenizer = Tokenizer(models.BPE(vocab=_vocabulary(), merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _position_table(grid: int, width: int) -> Tensor:
    """Return start values (grid * grid, width) of the learned positions.

    They are sines and cosines of row and column, with wavelengths from twice the image down to a sixteenth of it. Small
    random ones are drowned by the patches' content, and localising then starts much later.
    """
    frequencies = torch.pi * 2 ** torch.linspace(-1, 4, width // 4)
    angles = ((torch.arange(grid) + 0.5) / grid)[:, None] * frequencies
    waves = torch.cat((angles.sin(), angles.cos()), dim=1)
    rows = waves[:, None].expand(grid, grid, -1)
    columns = waves[None].expand(grid, grid, -1)
    return 0.7 * torch.cat((rows, columns), dim=-1).reshape(grid * grid, width)


def build_tiny(
    folder: Path,
    seed: int = 0,
    *,
    text_width: int = 256,
    text_layers: int = 4,
    text_mlp: int = 640,
    vision_width: int = 192,
    vision_layers: int = 6,
    vision_mlp: int = 576,
    head_width: int = 64,
    patch: int = PATCH,
    input_pixels: int = INPUT_PIXELS,
) -> Path:
    """Write a Qwen3-VL with random weights (from `seed`) to `folder` and return it.

    Widths and layer counts are those of the two towers; both use full attention with heads `head_width` wide. Images
    are resized to multiples of 2 * `patch` with at most `input_pixels` pixels. The weights are float32.
    """
    tokenizer = _fast_tokenizer()
    token_id = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    config = Qwen3VLConfig(
        text_config={
            **_text_settings(text_width, text_layers, text_mlp, head_width),
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "eos_token_id": token_id["<|im_end|>"],
            "pad_token_id": token_id["<|endoftext|>"],
        },
        vision_config={
            **_vision_settings(vision_width, vision_layers, vision_mlp, head_width),
            "out_hidden_size": text_width,
            "patch_size": patch,
        },
        image_token_id=token_id["<|image_pad|>"],
        video_token_id=token_id["<|video_pad|>"],
        vision_start_token_id=token_id["<|vision_start|>"],
        vision_end_token_id=token_id["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(config)
    model.model.visual.pos_embed.weight.data.copy_(_position_table(GRID, vision_width))
    model.generation_config.eos_token_id = token_id["<|im_end|>"]
    model.generation_config.pad_token_id = token_id["<|endoftext|>"]

    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _image_processor(patch, input_pixels).save_pretrained(folder)
    write_json_atomic(folder / "visionr1.json", {"dialect": "qwen25"})
    return folder


def _fast_tokenizer() -> Any:
    """Return the tokenizer as transformers saves it, with its chat template."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[3:]),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def _text_settings(width: int, layers: int, mlp: int, head_width: int) -> dict[str, Any]:
    """Return the language model's part of the configuration."""
    spatial = head_width // 2 // 3  # rotary frequencies of each of height and width; the text axis has the rest
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": mlp,
        "num_attention_heads": width // head_width,
        "num_key_value_heads": width // head_width,
        "head_dim": head_width,
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [head_width // 2 - 2 * spatial, spatial, spatial],
            "mrope_interleaved": True,
        },
        "tie_word_embeddings": True,
    }


def _vision_settings(width: int, layers: int, mlp: int, head_width: int) -> dict[str, Any]:
    """Return the vision tower's part of the configuration; deepstack takes the middle layer."""
    return {
        "hidden_size": width,
        "depth": layers,
        "intermediate_size": mlp,
        "num_heads": width // head_width,
        "temporal_patch_size": 1,
        "spatial_merge_size": 2,
        "num_position_embeddings": GRID * GRID,
        "deepstack_visual_indexes": [layers // 2 - 1],
    }


def _image_processor(patch: int, input_pixels: int) -> Any:
    """Return the image processor, which feeds images of at most `input_pixels` pixels, in values from -1 to 1."""
    return Qwen2VLImageProcessorPil(
        patch_size=patch,
        temporal_patch_size=1,
        merge_size=2,
        size={"shortest_edge": input_pixels * 3 // 5, "longest_edge": input_pixels},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
