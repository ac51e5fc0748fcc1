"""What a GRPO step costs by the model of docs/speed.md: FLOPs by phase, without and with a shared prefix.

    python benchmarks/cost.py [--model 7m|3b|7b] [--image-tokens N] [--prompt-tokens P] [--group-size G] [--length C]
                              [--trains all|language|adapters]

Of one sample, with a reference model; a product of matrices counts two FLOPs a weight, and in a backward pass as much
for the gradient of its input and for that of its weights, where they train. The last line is a JSON object.
"""

import argparse
import json
from dataclasses import dataclass
from typing import Literal, get_args

Trains = Literal["all", "language", "adapters"]
"""All weights, all but the vision tower's, or adapters beside weights that stay."""
PATCHES = 4
"""Of an image token."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Weights that a token, a scored token and a patch go through, and what attention costs."""

    text: float
    head: float
    vision: float
    """Of one patch, the merger's share included."""
    attention: float
    """FLOPs of attending from one token to one other, over all layers of the language model."""


SHAPES = {
    "7m": Shape(text=4 * 0.492e6, head=2.05e6, vision=4 * 0.164e6 + 0.15e6 + 0.1e6, attention=4 * 4 * 256),
    "3b": Shape(text=36 * 77.1e6, head=311e6, vision=32 * 19.7e6 + 9e6, attention=4 * 36 * 2048),
    "7b": Shape(text=28 * 233e6, head=545e6, vision=32 * 19.7e6 + 11e6, attention=4 * 28 * 3584),
}
"""The model of benchmarks/vs_trl.py, Qwen2.5-VL-3B and -7B."""


@dataclass(frozen=True, slots=True)
class Pass:
    """FLOPs of one forward pass."""

    vision: float
    text: float
    attention: float
    scored: float

    @property
    def total(self) -> float:
        """Of all parts."""
        return self.vision + self.text + self.attention + self.scored


def forward(shape: Shape, copies: int, branches: int, image: int, prompt: int, length: int) -> Pass:
    """One pass over so many copies of image and prompt and so many completions that follow them."""
    return Pass(
        vision=2 * shape.vision * PATCHES * image * copies,
        text=2 * shape.text * (copies * prompt + branches * length),
        attention=shape.attention * (copies * prompt**2 / 2 + branches * length * (prompt + length / 2)),
        scored=2 * shape.head * branches * length,
    )


def step(
    shape: Shape, image: int, prompt: int, group: int, length: int, shared: bool, trains: Trains = "all"
) -> dict[str, float]:
    """FLOPs by phase of one sample; `shared` reads image and prompt once, else each completion reads them. Where the
    tower does not train, the shared way has its features from the rollout."""
    copies = 1 if shared else group
    rollout = forward(shape, copies, group, image, prompt, length)
    later = rollout if trains == "all" or not shared else forward(shape, copies, group, 0, prompt, length)
    tower = 3 if trains == "all" else 1
    products = 2 if trains == "adapters" else 3
    return {
        "rollout": rollout.total,
        "of it prefill": forward(shape, copies, 0, image, prompt, 0).total,
        "reference": later.total,
        "update": tower * later.vision + products * (later.text + later.scored) + 3 * later.attention,
    }


def main() -> None:
    """Print both, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=sorted(SHAPES), default="7m")
    parser.add_argument("--image-tokens", type=int, default=256)
    parser.add_argument("--prompt-tokens", type=int, default=300, help="image tokens included")
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--trains", choices=get_args(Trains), default="all")
    args = parser.parse_args()
    workload = (args.image_tokens, args.prompt_tokens, args.group_size, args.length)
    alone, shared = (step(SHAPES[args.model], *workload, shared=way, trains=args.trains) for way in (False, True))
    print(f"{'GFLOP a sample':<16} {'each alone':>12} {'shared':>12} {'ratio':>7}")
    for phase, flops in alone.items():
        print(f"{phase:<16} {flops / 1e9:12.1f} {shared[phase] / 1e9:12.1f} {flops / shared[phase]:7.2f}")
    group, prompt, length = args.group_size, args.prompt_tokens, args.length
    limit = group * (prompt + length) / (prompt + group * length)
    print(f"tokens of a pass G(P + C) / (P + GC): {limit:.2f}")
    print(json.dumps({"token_ratio": limit, **{phase: alone[phase] / shared[phase] for phase in alone}}))


if __name__ == "__main__":
    main()
