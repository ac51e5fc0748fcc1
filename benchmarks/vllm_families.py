"""A table of model families in vLLM: does it open them, and how exact it is, as small random models.

    python benchmarks/vllm_families.py [--quick FAMILY ...] [--dtype bfloat16] [--timeout 600]

In an environment with vLLM (`make .venv-vllm/installed` for a CPU), one process a family. Each is built with heads of
64, opened, and asked about two images, one of which is resized, in float32: greedily, against the built-in engine, and
at temperature 1, where `gap` is the mean and the largest difference of the log-probabilities of its own tokens from the
policy's. Then all weights grow by 15 percent and are handed over, and it is asked again: nothing may be left of the
old. The prompt's tokens are compared at each request, by the engine itself. It is no measure of speed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the random models of the tests

SIZES = [(640, 480), (200, 300)]
FACTORS = {"first": 1.0, "updated": 1.15}
"""What the weights are multiplied by before vLLM is asked."""
COLUMNS = ("family", "tokens", "gap", "gap updated", "greedy", "greedy updated", "status")


def measure(name: str, root: Path, dtype: str) -> dict[str, Any]:
    """Return the row of one family."""
    from support.family_checks import score
    from support.random_models import build_qwen3, make_prompts, sharpen
    from support.vllm_shapes import build_for_vllm
    from visionr1.models.loading import load_policy
    from visionr1.models.settings import ModelSection
    from visionr1.rollout.engine import Sampling
    from visionr1.rollout.engines.builtin import generate
    from visionr1.rollout.engines.vllm import open_engine
    from visionr1.rollout.settings import RolloutSection

    torch.set_num_threads(1)
    like = build_qwen3(root / "like", width=64, layers=2, pixels=120 * 120)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy = load_policy(build_for_vllm(root / "model", like, name), device=device, dtype=dtype)
    prompts = make_prompts(policy, SIZES)
    row: dict[str, Any] = {"tokens": [len(prompt.input_ids) for prompt in prompts]}
    engine = open_engine(
        policy, ModelSection(device=device, dtype=dtype), RolloutSection(engine="vllm", vllm_memory=0.1)
    )

    sampling = Sampling(num_completions=4, max_new_tokens=24)
    greedy = Sampling(max_new_tokens=24, temperature=0.0)
    for when, factor in FACTORS.items():
        sharpen(policy, factor)
        groups = engine(policy, prompts, sampling, [(0,), (1,)])
        sampled = [[reply.token_ids for reply in group] for group in groups]
        with torch.no_grad():
            scored = torch.cat(score(policy, prompts, sampled)).cpu()
        gap = (scored - torch.cat([reply.logprobs for group in groups for reply in group])).abs()
        row[f"gap {when}"] = [float(gap.mean()), float(gap.max())]

        pairs = zip(engine(policy, prompts, greedy), generate(policy, prompts, greedy), strict=True)
        same = [torch.equal(one[0].token_ids, other[0].token_ids) for one, other in pairs]
        row[f"greedy {when}"] = f"{sum(same)} of {len(same)}"
    return row | {"status": "ok"}


def measure_apart(name: str, dtype: str, timeout: int) -> dict[str, Any]:
    """Return the row of one family, measured in a process of its own: vLLM is opened once in each."""
    command = [sys.executable, __file__, "--only", name, "--dtype", dtype]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return {"family": name, "status": f"not done within {timeout} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return {"family": name, "status": f"ended with {done.returncode}: {done.stderr.strip()[-300:]}"}
    row: dict[str, Any] = json.loads(lines[-1])
    return row


def format_row(row: dict[str, Any]) -> str:
    """Return a row of the table in Markdown."""

    def gap(when: str) -> str:
        numbers = row.get(f"gap {when}")
        return " / ".join(f"{number:.1e}" for number in numbers) if numbers else ""

    tokens = " and ".join(map(str, row.get("tokens", ())))
    figures = [gap("first"), gap("updated"), row.get("greedy first", ""), row.get("greedy updated", "")]
    return "| " + " | ".join([row["family"], tokens, *figures, row["status"]]) + " |"


def main() -> None:
    """Measure each family and print the table."""
    from support.vllm_shapes import DIFFERENCES

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", nargs="+", choices=tuple(DIFFERENCES), metavar="FAMILY", help="these alone")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="(default: float32)")
    parser.add_argument("--timeout", type=int, default=600, help="seconds for one family")
    parser.add_argument("--only", choices=tuple(DIFFERENCES), help=argparse.SUPPRESS)
    args = parser.parse_args()

    if args.only:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        with tempfile.TemporaryDirectory() as temporary:
            try:
                row = measure(args.only, Path(temporary), args.dtype)
            except Exception as error:  # noqa: BLE001 - a family that fails is a row of the table
                reason = f"{type(error).__name__}: {error}".replace(str(temporary), "")
                row = {"status": reason[:400]}
        print(json.dumps({"family": args.only, **row}))
        return

    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for name in args.quick or DIFFERENCES:
        print(format_row(measure_apart(name, args.dtype, args.timeout)), flush=True)


if __name__ == "__main__":
    main()
