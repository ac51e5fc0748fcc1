"""The vision tower of the Qwen families against transformers' own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText

from visionr1.models.families.qwen25_vl import attend_in_segments
from visionr1.models.loading import load_policy


@pytest.mark.parametrize("family", ["qwen25_folder", "qwen3_folder"])
@pytest.mark.parametrize(
    "sizes",
    [
        ((224, 224), (224, 224)),  # equal images: one stack
        ((224, 168), (140, 252)),  # windows cut off at right and bottom, of four lengths
        ((56, 56),),  # smaller than a window
    ],
)
def test_stacked_segments_are_transformers_own_attention(
    family: str, sizes: tuple[tuple[int, int], ...], request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(family)
    policy = load_policy(folder)
    assert policy.model.model.visual.blocks[0].attn.forward.__func__ is attend_in_segments
    plain = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=False)
    rng = np.random.default_rng(0)
    encoded = [
        policy.path.family.encode_image(
            policy.config,
            policy.image_processor,
            policy.tokenizer,
            Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)),
        ).inputs
        for width, height in sizes
    ]
    inputs = {name: torch.cat([one[name] for one in encoded]) for name in encoded[0]}

    def features(model: torch.nn.Module) -> tuple[Tensor, Tensor]:
        found = policy.path.family.image_features(model, inputs)
        found.square().mean().backward()
        of_attention = [parameter for name, parameter in model.named_parameters() if ".attn." in name]
        gradients = [parameter.grad.flatten() for parameter in of_attention if parameter.grad is not None]
        return found.detach(), torch.cat(gradients)

    for ours, theirs in zip(features(policy.model), features(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
