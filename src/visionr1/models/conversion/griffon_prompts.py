"""How Griffon-G is asked, in its authors' words, as the tokenizer, chat template and processors of a model folder.

Their code has a conversation for each language model, tokenizes what stands before and behind the image alone, and
puts the image's features between.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionr1.errors import CheckpointError
from visionr1.files import write_json_atomic
from visionr1.models.families.griffon import GriffonConfig, GriffonProcessor
from visionr1.models.folder.chat_template import render_prompt
from visionr1.models.folder.files import read_object
from visionr1.models.folder.processor import read_tokenizer

QUESTION = "Locate every cat."
"""Asked to see whether prompts have the right tokens."""
LLAMA_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)


@dataclass(frozen=True, slots=True)
class Release:
    """The conversation that goes with one language model in the authors' code."""

    text_type: str
    """`model_type` of the language model."""
    image_token: str
    """The token that stands for an image: one that the language model has and no text holds. Theirs has none."""
    end: str
    """The token that ends a reply."""
    user: str
    """The text before a question."""
    close: str
    """The text behind it."""
    reply: str
    """The text before the reply."""


RELEASES = {
    "gemma2_Griffon": Release(
        text_type="gemma2",
        image_token="<unused0>",
        end="<end_of_turn>",
        user="<start_of_turn>user\n",
        close="<end_of_turn>\n",
        reply="<start_of_turn>model\n",
    ),
    "llama2_Griffon": Release(
        text_type="llama",
        image_token="<0x00>",
        end="</s>",
        user=f"[INST] <<SYS>>\n{LLAMA_SYSTEM}\n<</SYS>>\n\n",
        close=" [/INST]",
        reply="",
    ),
    "qwen2_Griffon": Release(
        text_type="qwen2",
        image_token="<|image_pad|>",
        end="<|im_end|>",
        user="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
        close="<|im_end|>\n",
        reply="<|im_start|>assistant\n",
    ),
}
"""By `model_type` in the config.json of a checkpoint; their conversations gemma_instruct, llava_llama_2 and qwen2."""


def write_tokenizer(text_config: Any, release: Release, released: Path, folder: Path) -> Any:
    """Write the tokenizer of the `released` checkpoint to `folder`, and return it as it is read from there.

    It gets the token that stands for an image, the end of a reply and the chat template. Raises CheckpointError if it
    has not the vocabulary of the released models, or makes other tokens of a prompt than they were trained with.
    """
    tokenizer = read_tokenizer(released, text_config)
    first = tokenizer.decode(tokenizer.encode("")[:1])

    # A special token stands for itself in any text.
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [release.image_token], "eos_token": release.end},
        replace_extra_special_tokens=False,
    )
    for token in (release.image_token, release.end):
        if tokenizer.convert_tokens_to_ids(token) >= text_config.vocab_size:
            raise CheckpointError(
                f"the tokenizer in {released}: expected it to have the token {token}, as that of every "
                f"{release.text_type} that was released, found none"
            )

    # Read from a file, Llama's tokenizer puts no space behind a special token, which it does before a text.
    tokenizer.save_pretrained(folder)
    tokenizer = read_tokenizer(folder, text_config)
    for space in ("", " "):
        tokenizer.chat_template = _chat_template(release, first, space)
        if _asks_as_released(tokenizer, release):
            tokenizer.save_pretrained(folder)
            return tokenizer
    raise CheckpointError(
        f"the tokenizer in {released}: expected one that makes the same tokens of a prompt, whether it is given whole "
        f"or in the two parts around the image, as that of every {release.text_type} that was released does"
    )


def _asks_as_released(tokenizer: Any, release: Release) -> bool:
    """Return True if the chat template makes of a question the tokens of the authors' code.

    They tokenize what stands before and behind the image by itself, and take the token that begins every text once.
    """
    num_begin = len(tokenizer.encode(""))
    before = tokenizer.encode(release.user)
    after = tokenizer.encode(f"\n{QUESTION}{release.close}{release.reply}")[num_begin:]
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    prompt = render_prompt(tokenizer.apply_chat_template, content)
    image = tokenizer.convert_tokens_to_ids(release.image_token)
    tokens: list[int] = tokenizer.encode(prompt, add_special_tokens=False)
    return tokens == [*before, image, *after]


def write_processor(folder: Path, preprocessor: Mapping[str, Any], config: GriffonConfig, release: Release) -> None:
    """Write the files about the processors; `preprocessor` is CLIP's."""
    # Their code squeezes an image by torchvision's Resize, which is PIL's bilinear filter.
    side = config.vision_config.image_size
    kept = ("image_mean", "image_std", "do_rescale", "rescale_factor", "do_normalize")
    write_json_atomic(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            **{name: preprocessor[name] for name in kept if name in preprocessor},
            "do_resize": True,
            "size": {"height": side, "width": side},
            "resample": 2,
            "do_center_crop": False,
            "do_convert_rgb": True,
        },
    )
    write_json_atomic(
        folder / "processor_config.json",
        {
            "processor_class": GriffonProcessor.__name__,
            "image_token": release.image_token,
            "image_seq_length": config.image_seq_length,
        },
    )


def _chat_template(release: Release, first: str, space: str) -> str:
    """Return the conversation of one question about one image as a chat template.

    `first` is the token that begins every text, if there is one. `space` stands behind it, and behind the image.
    """
    user = json.dumps(f"{first}{space}{release.user}" if first else release.user)
    image = json.dumps(f"{release.image_token}{space}\n")
    close, reply = json.dumps(release.close), json.dumps(release.reply)
    return (
        "{%- if messages | length != 1 %}{{ raise_exception('expected one question, without turns before it') }}"
        "{%- endif %}"
        f"{{{{ {user} }}}}"
        "{%- set content = messages[0]['content'] %}{%- if content is string %}{{ content }}"
        "{%- else %}{%- for part in content %}"
        f"{{%- if part['type'] == 'image' %}}{{{{ {image} }}}}"
        "{%- else %}{{ part['text'] }}{%- endif %}{%- endfor %}{%- endif %}"
        f"{{{{ {close} }}}}{{%- if add_generation_prompt %}}{{{{ {reply} }}}}{{%- endif %}}"
    )


def write_generation(folder: Path, released: Path, tokenizer: Any) -> None:
    """Write the tokens of generation_config.json, first the one that ends a reply.

    Sampling is the user's to choose; the authors take the likeliest tokens.
    """
    path = released / "generation_config.json"
    settings = read_object(path) if path.is_file() else {}
    kept = {name: value for name, value in settings.items() if name in ("bos_token_id", "pad_token_id")}
    ends = settings.get("eos_token_id", [])
    ends = ends if isinstance(ends, list) else [ends]
    kept["eos_token_id"] = list(dict.fromkeys([tokenizer.eos_token_id, *ends]))
    write_json_atomic(folder / "generation_config.json", kept)
