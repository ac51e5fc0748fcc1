"""Seconds of a rollout by the built-in engine's ways of decoding, in turn in one process.

    python benchmarks/decode.py [--model tiny | speed | json] [--ways plain drafts compiled] [--tokens 150] [--rounds 3]

Ways: "plain" decodes token by token, "drafts" (the default of the engine) guesses fixed text and checks it, "compiled"
decodes token by token with one compiled graph.
Models: "tiny" is the model that ships on BCCD, 6 samples x 16 completions as the demo rolls out, but of bfloat16
weights, for float32 ones under autocast are not compiled; its tokenizer has one token for most of the fixed text.
"speed" is a Qwen2.5-VL of 7 million random weights with an ordinary tokenizer, 2 samples x 8 completions in float32,
whose random text has nothing to guess. "json" is "speed" after --fit steps of supervised training on BCCD, so that it
writes boxes, of which the digits are anything.
Prefill and vision tower are in the seconds, compiling is told apart. Processor time stands beside wall clock, for a
machine that others use. The last line is a JSON object.
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
from visionr1.models.rows import make_groups
from visionr1.rollout.compiled import CompiledDecoder
from visionr1.rollout.eager import Decoder, generate
from visionr1.rollout.engine import Sampling
from visionr1.samples import Sample
from visionr1.training.recipe import load_recipe
from visionr1.training.stream import open_stream

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the random models of the tests
from support.random_models import build_speed_model, make_prompts


class TokenByToken(Decoder):
    """Decode without guesses."""

    most_guesses = 0


def load_workload(model: str, folder: Path, tokens: int, fit_steps: int) -> tuple[Policy, list[Prompt], Sampling]:
    """Return what is rolled out, and how."""
    if model == "tiny":
        policy, recipe = load_policy("tiny", dtype="bfloat16"), load_recipe(recipe_path("demo"), [])
        sampling = Sampling(num_completions=16, max_new_tokens=tokens, temperature=recipe.rollout.temperature)
        return policy, [_encode(policy, sample) for sample in _bccd_batches(1)[0]], sampling

    policy = load_policy(build_speed_model(folder))
    sampling = Sampling(num_completions=8, max_new_tokens=tokens)
    if model == "speed":
        return policy, make_prompts(policy, [(448, 448), (448, 392)]), sampling
    batches = _bccd_batches(fit_steps)
    fit(policy, batches)
    return policy, [_encode(policy, sample) for sample in batches[0][:2]], sampling


def _bccd_batches(number: int) -> list[list[Sample]]:
    """Return batches of BCCD's training images."""
    stream = open_stream(load_recipe(recipe_path("demo"), []).phases[0], (0, 0))
    return [list(stream.batch(index)) for index in range(number)]


def _encode(policy: Policy, sample: Sample) -> Prompt:
    return policy.encode(sample.load_image(), sample.query)


def fit(policy: Policy, batches: list[list[Sample]]) -> None:
    """Train on the true replies, so that the model learns the form and little else."""
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=2e-3)
    end = torch.tensor(policy.eos_ids[:1])
    for batch in batches:
        prompts, replies = [], []
        for sample in batch:
            prompt = _encode(policy, sample)
            text = policy.dialect.render(
                sample.truth, size_wh=sample.load_image().size, input_size_wh=prompt.input_size_wh
            )
            ids = torch.tensor(policy.tokenizer.encode(text, add_special_tokens=False))
            prompts.append(prompt)
            replies.append([torch.cat((ids, end))])
        rows = policy.path.pack(make_groups(prompts, replies))
        loss = -policy.token_logprobs(rows).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"fitted: loss {float(loss):.2f} a token")


def main() -> None:
    """Roll out, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=("tiny", "speed", "json"), default="tiny")
    parser.add_argument("--ways", nargs="+", choices=("plain", "drafts", "compiled"), default=["plain", "drafts"])
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fit", type=int, default=60, help='steps of training for "json"')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        policy, prompts, sampling = load_workload(args.model, Path(name) / "model", args.tokens, args.fit)
    seeds = [(place,) for place in range(len(prompts))]
    kinds = {"plain": TokenByToken, "drafts": Decoder, "compiled": lambda: CompiledDecoder(policy)}
    decoders = {way: kinds[way]() for way in args.ways}

    def roll_out(decoder: Decoder) -> tuple[float, float, int, list[list[int]]]:
        """Return seconds, those of the processor, the number of passes and the replies."""
        passes = 0

        def count(done: int, total: int) -> None:
            nonlocal passes
            passes += 1

        wall, processor = time.perf_counter(), time.process_time()
        groups = generate(policy, prompts, sampling, seeds, decoder=decoder, progress=count)
        replies = [one.token_ids.tolist() for group in groups for one in group]
        return time.perf_counter() - wall, time.process_time() - processor, passes, replies

    first_s = {way: roll_out(decoder)[0] for way, decoder in decoders.items()}
    seconds: dict[str, list[float]] = {way: [] for way in decoders}
    result = {"model": args.model, "rows": len(prompts) * sampling.num_completions, "first_rollout_s": first_s}
    for _ in range(args.rounds):
        replies = {}
        for way, decoder in decoders.items():
            wall, processor, passes, replies[way] = roll_out(decoder)
            seconds[way].append(processor)
            print(f"{way} {wall:.2f} s ({processor:.2f} of the processor), {passes} passes")
    reference = replies[args.ways[0]]
    for way in decoders:
        ratios = [before / after for before, after in zip(seconds[args.ways[0]], seconds[way], strict=True)]
        same = statistics.mean(one == other for one, other in zip(reference, replies[way], strict=True))
        result[way] = {
            "cpu_s": statistics.median(seconds[way]),
            "cpu_ratio": statistics.median(ratios),
            "equal_replies": same,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
