"""Seconds of a rollout, eager against compiled decoding, in turn in one process.

    python benchmarks/decode.py [--model tiny] [--tokens 150] [--rounds 3] [--threads 1]

"tiny" is the model that ships on BCCD, 6 samples x 16 completions as the demo rolls out, but of bfloat16 weights, for
float32 ones under autocast are not compiled; "speed" a Qwen2.5-VL of 7 million random weights, 2 samples x 8
completions in float32. Prefill and vision tower are in the seconds, compiling is told apart. Processor time stands
beside wall clock, for a machine that others use. The last line is a JSON object.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from visionr1.assets import recipe_path
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.rollout.compiled import CompiledDecoder
from visionr1.rollout.eager import Decoder, generate
from visionr1.rollout.engine import Completion, Sampling
from visionr1.training.recipe import load_recipe
from visionr1.training.stream import open_stream

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the random models of the tests
from support.random_models import build_speed_model, make_prompts


def workload(model: str, folder: Path, tokens: int) -> tuple[Policy, list[Prompt], Sampling]:
    """What is rolled out, and how."""
    if model == "speed":
        policy = load_policy(build_speed_model(folder))
        return (
            policy,
            make_prompts(policy, [(448, 448), (448, 392)]),
            Sampling(num_completions=8, max_new_tokens=tokens),
        )
    policy, recipe = load_policy("tiny", dtype="bfloat16"), load_recipe(recipe_path("demo"), [])
    samples = open_stream(recipe.phases[0], (0, 0)).batch(0)
    prompts = [policy.encode(sample.load_image(), sample.query) for sample in samples]
    return policy, prompts, Sampling(num_completions=16, max_new_tokens=tokens, temperature=recipe.rollout.temperature)


def main() -> None:
    """Roll out, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=("tiny", "speed"), default="tiny")
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        policy, prompts, sampling = workload(args.model, Path(name) / "model", args.tokens)
    seeds = [(place,) for place in range(len(prompts))]

    def seconds(decoder: Decoder) -> tuple[float, float, list[Completion]]:
        wall, processor = time.perf_counter(), time.process_time()
        groups = generate(policy, prompts, sampling, seeds, decoder=decoder)
        flat = [one for group in groups for one in group]
        return time.perf_counter() - wall, time.process_time() - processor, flat

    eager, compiled = Decoder(), CompiledDecoder(policy)
    first, same = seconds(compiled)[0], 0.0
    rows = []
    for _ in range(args.rounds):
        ours, theirs = seconds(eager), seconds(compiled)
        rows.append((*ours[:2], *theirs[:2]))
        pairs = zip(ours[2], theirs[2], strict=True)
        same = statistics.mean(one.token_ids.tolist() == other.token_ids.tolist() for one, other in pairs)
        print(f"eager {ours[0]:.2f} s ({ours[1]:.2f} of the processor), compiled {theirs[0]:.2f} s ({theirs[1]:.2f})")
    result = {
        "model": args.model,
        "rows": len(prompts) * sampling.num_completions,
        "tokens": args.tokens,
        "eager_cpu_s": statistics.median(row[1] for row in rows),
        "compiled_cpu_s": statistics.median(row[3] for row in rows),
        "wall_ratio": statistics.median(row[0] / row[2] for row in rows),
        "cpu_ratio": statistics.median(row[1] / row[3] for row in rows),
        "first_rollout_s": first,
        "equal_replies": same,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
