"""TRL in its own environment: the recipe in examples/trl trains two real steps on the small model that ships."""

import json
import subprocess
import sys
from pathlib import Path

import torch
import trl
from safetensors.torch import load_file

from cases import PARTS

MODEL, WORK, EXAMPLES = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])


def run(*command):
    """Run one of the example's commands."""
    subprocess.run([sys.executable, *map(str, command)], check=True)


def main():
    run(EXAMPLES / "prepare.py", "trl", "--data", "bccd", "--model", MODEL, "--out", WORK / "rows", "--limit", 4)
    train = [EXAMPLES / "trl/train.py", "--model", MODEL, "--rows", WORK / "rows/train.jsonl", "--output", WORK / "run"]
    run(*train, "--max-steps", 2, "--step", 0.5, "--new-tokens", 256, "--dtype", "float32")
    history = json.loads((WORK / "run/trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    steps = [row for row in history if "reward" in row]
    assert [row["step"] for row in steps] == [1, 2], history
    for row in steps:
        parts = {part: round(row[f"rewards/visionr1_{part}/mean"], 3) for part in PARTS}
        assert abs(sum(parts.values()) - row["reward"]) < 2e-3, row
        print(f"TRL {trl.__version__}: step {row['step']}: reward {row['reward']:.3f} = {parts}, KL {row['kl']:.2g}")
    assert any(row["grad_norm"] > 0 for row in steps), steps
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in (MODEL, WORK / "run"))
    assert after and after.keys() <= before.keys()  # a tied output layer may be stored or not
    changed = sum(not torch.equal(before[name].float(), after[name].float()) for name in after)
    assert changed > len(after) // 2
    print(f"TRL {trl.__version__}: {changed} of {len(after)} weights changed")


if __name__ == "__main__":
    main()
