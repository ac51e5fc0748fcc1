"""The ways to pass a group through a model: transformers' rows that repeat image and prompt, the generic path, the row.

    python benchmarks/prefix_paths.py                            the three families; 8 completions of 32 to 64 tokens
    python benchmarks/prefix_paths.py --family gemma4 --equal    every completion of 64 tokens

Models of 5 to 8 million random weights, one image of 448 x 448 pixels, float32, one thread. Measured are processor
seconds of scoring, forward and backward, and of sampling, where no reply ends before its limit; and how far scoring
lifts the process's peak memory above that of the loaded model. Each way runs in a process of its own, in turn with the
others, so that whatever else the machine does meets all alike. A ratio is the median over rounds, against the generic
path. The last line is a JSON object.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from visionr1.models import loading
from visionr1.models.policy import Policy, target_logprobs
from visionr1.models.prompts import Prompt
from visionr1.models.rows import make_groups
from visionr1.rollout.engine import Sampling
from visionr1.rollout.engines.builtin import generate
from visionr1.samples import Query

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the random models of the tests
from support.random_models import build_speed_model, random_completions
from support.speed_families import SPEED_FAMILIES, build_speed_family

WAYS = {"qwen25": ("plain", "generic", "packed"), **dict.fromkeys(SPEED_FAMILIES, ("plain", "generic"))}
IMAGE_SIDE = 448
MIB = 2**20


def load(folder: str, way: str) -> Policy:
    """The policy in `folder`, which takes the packed path only where that is the `way`."""
    if way != "packed":
        loading.find_family = lambda config: None
    policy = loading.load_policy(folder, dialect="qwen3")
    policy.suppressed_ids = torch.cat((policy.suppressed_ids, torch.tensor(policy.eos_ids)))
    return policy


def repeat_inputs(prompt: Prompt, num_rows: int, num_added: int) -> dict[str, Tensor]:
    """What transformers takes besides tokens for `num_rows` rows that begin with `prompt` and have more tokens."""
    inputs = {}
    for name, tensor in prompt.inputs.items():
        # Kinds of tokens are those of text after the prompt.
        per_token = tensor.shape == (1, len(prompt.input_ids))
        inputs[name] = torch.cat([pad(tensor, (0, num_added)) if per_token else tensor] * num_rows)
    return inputs


def score_plain(policy: Policy, prompt: Prompt, completions: list[Tensor]) -> Tensor:
    """Log-probabilities by one row for each completion, padded on the right."""
    rows = [torch.cat((prompt.input_ids, ids)) for ids in completions]
    input_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(input_ids.shape[1]) < lengths[:, None]
    added = input_ids.shape[1] - len(prompt.input_ids)
    inputs = repeat_inputs(prompt, len(rows), added)
    logits = policy.model(input_ids=input_ids, attention_mask=mask.long(), **inputs).logits

    # A token predicts the next one.
    is_completion = mask.clone()
    is_completion[:, : len(prompt.input_ids)] = False
    predicting = logits[:, :-1][is_completion[:, 1:]]
    return target_logprobs(policy.restrict(predicting), input_ids[is_completion])


def sample_plain(policy: Policy, prompt: Prompt, sampling: Sampling) -> Any:
    """Sample by transformers' `generate`, which repeats image and prompt for each completion."""
    num_rows = sampling.num_completions
    return policy.model.generate(
        input_ids=prompt.input_ids.expand(num_rows, -1),
        **repeat_inputs(prompt, num_rows, 0),
        do_sample=True,
        max_new_tokens=sampling.max_new_tokens,
        suppress_tokens=policy.suppressed_ids.tolist(),
    )


def score_shared(policy: Policy, prompt: Prompt, completions: list[Tensor]) -> Tensor:
    """Log-probabilities by the policy's own path."""
    return policy.token_logprobs(policy.path.pack(make_groups([prompt], [completions])))


def run_way(pipe: Connection, folder: str, way: str, lengths: list[int]) -> None:
    """A process that answers "score", "sample" and "peak" with what they took."""
    torch.set_num_threads(1)
    policy = load(folder, way)
    pixels = np.random.default_rng(0).integers(0, 255, (IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.uint8)
    prompt = policy.encode(Image.fromarray(pixels), Query("detection", ("cat", "dog")))
    (completions,) = random_completions(policy, [lengths])
    score = score_plain if way == "plain" else score_shared

    def run_score() -> float:
        logprobs = score(policy, prompt, completions)
        logprobs.square().sum().backward()
        policy.model.zero_grad()
        return float(logprobs.detach().sum())

    def run_sample() -> float:
        sampling = Sampling(num_completions=len(lengths), max_new_tokens=max(lengths))
        with torch.no_grad():
            if way == "plain":
                sample_plain(policy, prompt, sampling)
            else:
                generate(policy, [prompt], sampling, [(0,)])
        return 0.0

    tasks: dict[str, Callable[[], float]] = {"score": run_score, "sample": run_sample}
    loaded = peak_bytes()
    pipe.send(len(prompt.input_ids))
    while True:
        task = pipe.recv()
        if task == "peak":
            pipe.send((peak_bytes() - loaded) / MIB)
            continue
        began = time.process_time()
        logprobs = tasks[task]()
        pipe.send((time.process_time() - began, logprobs))


def peak_bytes() -> int:
    """The most memory that this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(folder: Path, ways: tuple[str, ...], lengths: list[int], rounds: int) -> dict[str, Any]:
    """Seconds, ratios and memory of one family."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    result: dict[str, Any] = {"completion_lengths": lengths}
    try:
        for way in ways:
            pipes[way], other = context.Pipe()
            context.Process(target=run_way, args=(other, str(folder), way, lengths), daemon=True).start()
            other.close()
            result["prompt_tokens"] = pipes[way].recv()

        # The peak is that of scoring, so it is asked before anything is sampled.
        scored, logprobs = time_in_turn(pipes, "score", rounds)
        result["sum_of_logprobs"] = logprobs
        result["peak_mib"] = {way: ask(pipe, "peak") for way, pipe in pipes.items()}
        sampled, _ = time_in_turn(pipes, "sample", rounds)
    finally:
        for process in multiprocessing.active_children():
            process.kill()

    for task, seconds in (("score", scored), ("sample", sampled)):
        result[task] = {way: statistics.median(values) for way, values in seconds.items()}
        for way in ways:
            pairs = zip(seconds[way], seconds["generic"], strict=True)
            ratio = statistics.median(one / generic for one, generic in pairs)
            result.setdefault(f"{task}_ratio", {})[way] = ratio
    return result


def time_in_turn(
    pipes: dict[str, Connection], task: str, rounds: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each way, round by round after one that is not counted, and what the task returned."""
    seconds: dict[str, list[float]] = {way: [] for way in pipes}
    returned = {}
    for number in range(rounds + 1):
        for way, pipe in pipes.items():
            taken, returned[way] = ask(pipe, task)
            if number:
                seconds[way].append(taken)
    return seconds, returned


def ask(pipe: Connection, task: str) -> Any:
    """What a process answers."""
    pipe.send(task)
    return pipe.recv()


def show(family: str, result: dict[str, Any]) -> None:
    """One family as lines."""
    lengths = result["completion_lengths"]
    print(f"{family}: prompt of {result['prompt_tokens']} tokens, {len(lengths)} completions of {lengths}")
    for way, peak in result["peak_mib"].items():
        scoring = f"{result['score'][way]:7.3f} s ({result['score_ratio'][way]:.2f} of generic)"
        sampling = f"{result['sample'][way]:7.3f} s ({result['sample_ratio'][way]:.2f})"
        print(f"  {way:<8} scoring {scoring}   sampling {sampling}   peak {peak:7.1f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--group-size", type=int, default=8, metavar="G")
    parser.add_argument("--length", type=int, default=64, metavar="C", help="tokens of the longest (default: 64)")
    parser.add_argument("--equal", action="store_true", help="all completions as long; else from half of that on")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    shortest = args.length if args.equal else args.length // 2
    lengths = np.linspace(shortest, args.length, args.group_size).round().astype(int).tolist()
    results = {}
    with tempfile.TemporaryDirectory() as name:
        like = build_speed_model(Path(name) / "qwen25")
        for family in args.family:
            folder = like if family == "qwen25" else build_speed_family(Path(name) / family, like, family)
            results[family] = measure(folder, WAYS[family], lengths, args.rounds)
            show(family, results[family])
    print(json.dumps(results))


if __name__ == "__main__":
    main()
