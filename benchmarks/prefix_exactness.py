"""How exact the shared prefix is: log-probabilities and gradients against transformers' plain forward.

    python benchmarks/prefix_exactness.py [--width 256] [--layers 4] [--device cuda] [--blocks]

For each family a model with random weights, 3 images, G = 8 completions of 0 to 64 tokens: the plain way
runs each completion as a row of its own; ours packs the groups behind their prompts into one row. In
float32 the two are compared with each other. In bfloat16 both are compared with float32's plain way on
the same weights (rounded to bfloat16), for there the plain way is itself inexact: `ratio` is our error
over its error, by the root mean square of log-probabilities. With `--blocks` the rows attend by blocks, as long ones do
on a GPU; there the kernel is the compiled one, on a CPU its operations one by one. The last line is a JSON object.
"""

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
import torch.nn.attention.flex_attention as flex
from torch import Tensor

from visionr1.models.attention.tree import LONG_ROW
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.rows import make_groups

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the random models of the tests
from support.random_families import build_internvl, build_smolvlm
from support.random_models import (
    build_qwen3,
    build_qwen25,
    gradients,
    make_prompts,
    plain_logprobs,
    random_completions,
    sharpen,
)

SIZES = [(320, 240), (240, 320), (400, 200)]
LENGTHS = [0, 1, 9, 17, 30, 42, 55, 64]


def both_ways(policy: Policy) -> dict[str, tuple[Tensor, Tensor]]:
    """Log-probabilities and the gradient of their weighted sum, the plain way and ours."""
    prompts = make_prompts(policy, SIZES)
    completions = random_completions(policy, [LENGTHS] * len(prompts))
    plain = torch.cat(
        [
            plain_logprobs(policy, prompt, completion)
            for prompt, row in zip(prompts, completions, strict=True)
            for completion in row
            if len(completion)
        ]
    ).float()
    weights = torch.linspace(-1, 1, len(plain), device=plain.device)
    expected = gradients(policy, (weights * plain).sum()).float()
    shared = policy.token_logprobs(policy.path.pack(make_groups(prompts, completions)).to(policy.device)).float()
    found = gradients(policy, (weights * shared).sum()).float()
    return {"plain": (plain.detach(), expected), "shared": (shared.detach(), found)}


def differences(folder: Path, device: str) -> dict[str, float]:
    """A family's row of the table."""
    policy = sharpen(load_policy(folder, device=device), 2.0)
    policy.model.bfloat16().float()  # weights that both precisions can hold
    exact = both_ways(policy)
    policy.model.bfloat16()
    coarse = both_ways(policy)
    (plain, plain_gradient), (shared, gradient) = exact["plain"], exact["shared"]
    errors = {way: logprobs - plain for way, (logprobs, _) in coarse.items()}
    return {
        "max_abs_dlogp": float((shared - plain).abs().max()),
        "relative_gradient_difference": relative(gradient, plain_gradient),
        "bf16_max_abs_dlogp": float(errors["shared"].abs().max()),
        "bf16_plain_max_abs_dlogp": float(errors["plain"].abs().max()),
        "bf16_error_ratio": float(errors["shared"].norm() / errors["plain"].norm()),
        "bf16_gradient_difference": relative(coarse["shared"][1], plain_gradient),
        "bf16_plain_gradient_difference": relative(coarse["plain"][1], plain_gradient),
    }


def relative(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference over that of what is expected."""
    return float((found - expected).norm() / expected.norm())


def main() -> None:
    """Every family."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--blocks", action="store_true", help="attend by blocks in every row")
    args = parser.parse_args()
    size = {"width": args.width, "layers": args.layers}
    LONG_ROW[torch.device(args.device).type] = 0 if args.blocks else 10**9
    if args.device == "cpu":  # which torch has a backward pass for, but refuses
        flex._validate_device = lambda *states: None
    builders = {
        "qwen2_5_vl": build_qwen25,
        "internvl": build_internvl,
        "smolvlm": build_smolvlm,
        "idefics3": partial(build_smolvlm, model_type="idefics3"),
    }
    print(f"{'':<12}{'float32':>22}{'bfloat16: ours (plain)':>44}")
    print(f"{'family':<12}{'dlogp':>11}{'dgrad':>11}{'dlogp':>20}{'dgrad':>20}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as name:
        qwen3 = build_qwen3(Path(name) / "qwen3_vl", **size)
        folders = [build(Path(name) / kind, qwen3, **size) for kind, build in builders.items()]
        results = {}
        for folder in (qwen3, *folders):
            row = results[folder.name] = differences(folder, args.device)
            dlogp = f"{row['bf16_max_abs_dlogp']:.3f} ({row['bf16_plain_max_abs_dlogp']:.3f})"
            dgrad = f"{row['bf16_gradient_difference']:.3f} ({row['bf16_plain_gradient_difference']:.3f})"
            print(
                f"{folder.name:<12}{row['max_abs_dlogp']:>11.1e}{row['relative_gradient_difference']:>11.1e}"
                f"{dlogp:>20}{dgrad:>20}{row['bf16_error_ratio']:>8.2f}",
                flush=True,
            )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
