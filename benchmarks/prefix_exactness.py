"""How exact the shared prefix is: log-probabilities and gradients against transformers' plain forward.

    python benchmarks/prefix_exactness.py

For each family a model with random weights (float32), 3 images, G = 8 completions of 0 to 64 tokens:
the plain way runs each completion as a row of its own; ours packs each group behind one prompt. The
last line is a JSON object: the largest difference of a log-probability, and the norm of the
gradients' difference relative to the gradient.
"""

import json
import tempfile
from pathlib import Path

import torch
from random_models import (
    build_qwen3,
    build_qwen25,
    gradients,
    make_prompts,
    plain_logprobs,
    random_completions,
    sharpen,
)

from visionr1.models.policy import Policy, load_policy
from visionr1.prefix import group, pack, token_logprobs

SIZES = [(320, 240), (240, 320), (400, 200)]
LENGTHS = [0, 1, 9, 17, 30, 42, 55, 64]


def differences(policy: Policy) -> dict[str, float]:
    """Ours against the plain way on the same completions."""
    prompts = make_prompts(policy, SIZES)
    completions = random_completions(policy, [LENGTHS] * len(prompts))
    plain = torch.cat(
        [
            plain_logprobs(policy, prompt, completion)
            for prompt, row in zip(prompts, completions, strict=True)
            for completion in row
            if len(completion)
        ]
    )
    weights = torch.linspace(-1, 1, len(plain))
    expected = gradients(policy, (weights * plain).sum())
    shared = token_logprobs(policy, pack(group(prompts, completions)))
    found = gradients(policy, (weights * shared).sum())
    return {
        "max_abs_dlogp": float((shared - plain).abs().max()),
        "relative_gradient_difference": float((found - expected).norm() / expected.norm()),
    }


def main() -> None:
    """Both families."""
    with tempfile.TemporaryDirectory() as name:
        qwen3 = build_qwen3(Path(name) / "qwen3_vl")
        qwen25 = build_qwen25(Path(name) / "qwen2_5_vl", qwen3)
        results = {}
        for folder in (qwen25, qwen3):
            policy = sharpen(load_policy(folder), 2.0)
            results[folder.name] = differences(policy)
            millions = sum(p.numel() for p in policy.model.parameters()) / 1e6
            print(f"{folder.name} ({millions:.1f}M parameters): {results[folder.name]}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
