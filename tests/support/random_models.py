"""Models of real architectures with random weights, for benchmarks and tests that need no download."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

import visionr1
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.tiny import CHAT_TEMPLATE, SPECIAL_TOKENS, build_tiny
from visionr1.samples import Query


def build_qwen3(folder: Path, *, width: int = 256, layers: int = 4, pixels: int = 320 * 240) -> Path:
    """A Qwen3-VL folder (with deepstack), both towers `width` wide and `layers` deep."""
    return build_tiny(
        folder,
        text_width=width,
        text_layers=layers,
        text_mlp=2 * width,
        vision_width=width,
        vision_layers=layers,
        vision_mlp=2 * width,
        input_pixels=pixels,
    )


def build_qwen25(folder: Path, like: Path, *, width: int = 256, layers: int = 4) -> Path:
    """A Qwen2.5-VL folder (windowed vision attention, grouped keys), both towers `width` wide and
    `layers` deep; tokenizer and image processor are those of the Qwen3-VL folder `like`."""
    other, config = load_policy(like), AutoConfig.from_pretrained(like, trust_remote_code=False)
    shape = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
    }
    part = width // 4 // 8  # of a head's frequencies: 4 heads, rotary halves, time twice height or width
    vision = config.vision_config
    names = [name for name in config.to_dict() if name.endswith("_token_id")]
    qwen25 = Qwen2_5_VLConfig(
        text_config={
            **shape,
            "vocab_size": config.text_config.vocab_size,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2 * part, part, part],
            },
        },
        vision_config={
            **shape,
            "depth": layers,
            "num_heads": 4,
            "out_hidden_size": width,
            "patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "spatial_merge_size": vision.spatial_merge_size,
            "window_size": 4 * vision.patch_size,
            "fullatt_block_indexes": [layers - 1],
        },
        **{name: getattr(config, name) for name in names},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2_5_VLForConditionalGeneration(qwen25)
    model.generation_config.eos_token_id = other.tokenizer.eos_token_id
    model.save_pretrained(folder)
    other.tokenizer.save_pretrained(folder)
    other.image_processor.save_pretrained(folder)
    return folder


def build_speed_model(folder: Path) -> Path:
    """The fixed model of the speed benchmarks: a Qwen2.5-VL of 7 million parameters with patches of 14 pixels, and a
    byte-level BPE of 8,000 tokens, learned from this package's own text without its prompts, so that they are about as
    long as Qwen's tokenizer makes them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = sorted(Path(visionr1.__file__).parent.rglob("*.py"))
    tokenizer.train([str(path) for path in texts if path.name not in ("prompts.py", "tiny.py")], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE
    )
    token_id = {token: fast.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 8000,
            "hidden_size": 256,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]},
            "bos_token_id": None,
            "eos_token_id": token_id["<|im_end|>"],
            "pad_token_id": token_id["<|endoftext|>"],
        },
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 256,
            "depth": 4,
            "num_heads": 2,
            "out_hidden_size": 256,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [3],
        },
        image_token_id=token_id["<|image_pad|>"],
        video_token_id=token_id["<|video_pad|>"],
        vision_start_token_id=token_id["<|vision_start|>"],
        vision_end_token_id=token_id["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = fast.eos_token_id
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    Qwen2VLImageProcessorPil(patch_size=14, temporal_patch_size=2, merge_size=2).save_pretrained(folder)
    return folder


def sharpen(policy: Policy, factor: float = 4.0) -> Policy:
    """`policy` with larger weights, so that it prefers some tokens to others."""
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(factor)
    return policy


def make_prompts(policy: Policy, sizes: list[tuple[int, int]]) -> list[Prompt]:
    """Prompts of different lengths about noise of `sizes` (width, height)."""
    rng = np.random.default_rng(0)
    prompts = []
    for number, (width, height) in enumerate(sizes):
        pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        query = Query("detection", tuple(f"red thing {i}" for i in range(1 + 2 * number)))
        prompts.append(policy.encode(Image.fromarray(pixels), query))
    return prompts


def random_completions(policy: Policy, lengths: list[list[int]]) -> list[list[torch.Tensor]]:
    """Token ids that the policy may write, of the given lengths."""
    allowed = sorted(set(range(len(policy.tokenizer))) - set(policy.suppressed_ids.tolist()))
    generator = torch.Generator().manual_seed(1)
    return [
        [torch.tensor(allowed)[torch.randint(len(allowed), (n,), generator=generator)] for n in row] for row in lengths
    ]


def plain_inputs(policy: Policy, prompt: Prompt, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What transformers' own forward pass and `generate` take: token ids (1, T) and the prompt's images."""
    inputs = {"input_ids": input_ids, **{name: tensor.to(input_ids.device) for name, tensor in prompt.inputs.items()}}
    if "image_grid_thw" in inputs:  # models with positions of three axes want to be told where images are
        inputs["mm_token_type_ids"] = (input_ids == policy.config.image_token_id).int()
    return inputs


def plain_logprobs(policy: Policy, prompt: Prompt, completion: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (T,) of one completion by transformers' own forward pass: its positions, its
    causal mask, one row."""
    input_ids = torch.cat((prompt.input_ids, completion))[None].to(policy.device)
    logits = (
        policy.model(
            **plain_inputs(policy, prompt, input_ids),
        )
        .logits[0, len(prompt.input_ids) - 1 : -1]
        .float()
    )
    logits = logits.index_fill(-1, policy.suppressed_ids, -torch.inf)
    return logits.log_softmax(-1).gather(-1, completion[:, None].to(policy.device))[:, 0]


def gradients(policy: Policy, value: torch.Tensor) -> torch.Tensor:
    """The gradient of `value`, all parameters in one vector."""
    policy.model.zero_grad()
    value.backward()
    parts = [parameter.grad for parameter in policy.model.parameters()]
    return torch.cat([part.flatten() for part in parts if part is not None])
