"""Peak memory of a GRPO step: full fine-tuning, a frozen vision tower, adapters, gradient checkpointing, bfloat16.

    python benchmarks/memory.py [--completions 4] [--tokens 64]

A random Qwen2.5-VL of 7 million parameters, two 448 px images, with a reference (beta above 0), float32 where no case
says otherwise. Counted are the bytes of every tensor that lives in the second step, when the optimizer has its moments:
what is held between steps (weights, moments, reference), the peak of rollout and reference log-probabilities, and that
of the update. Nothing is timed. The last line is a JSON object, in MiB.
"""

import argparse
import json
import sys
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from visionr1.models.loading import load_policy
from visionr1.models.trainable import make_trainable
from visionr1.training.learners import make_learner
from visionr1.training.optimizers import make_optimizer
from visionr1.training.recipe import Recipe, parse_recipe
from visionr1.training.stream import open_stream

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the random models of the tests
from support.random_models import build_speed_model

MIB = 2**20
LORA = {"lora": {"rank": 16}}
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "full, checkpointing": {"model": {"gradient_checkpointing": True}},
    "full, bfloat16": {"model": {"dtype": "bfloat16"}},
    "frozen vision": {"model": {"freeze_vision": True}},
    "frozen vision, checkpointing": {"model": {"freeze_vision": True, "gradient_checkpointing": True}},
    "LoRA": LORA,
    "LoRA, checkpointing": {**LORA, "model": {"gradient_checkpointing": True}},
    "LoRA, checkpointing, bfloat16": {**LORA, "model": {"gradient_checkpointing": True, "dtype": "bfloat16"}},
}


class LiveBytes(TorchDispatchMode):
    """Bytes of all tensors alive that were made inside this block or given to `count`, and the most they have been."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def count(self, tensors: Iterable[Any]) -> None:
        """Count these tensors from now on."""
        for tensor in tensors:
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in self._known:
                self._known.add(storage)
                size = storage.nbytes()
                self.now += size
                weakref.finalize(storage, self._forget, size)
        self.peak = max(self.peak, self.now)

    def _forget(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.count(tree_leaves(output))
        return output


def main() -> None:
    """Run each case, print a table and the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--completions", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    results = {}
    print(f"{'MiB':<32} {'held':>8} {'rollout':>8} {'update':>8}")
    with tempfile.TemporaryDirectory() as name:
        folder = build_speed_model(Path(name) / "model")
        for case, tables in CASES.items():
            results[case] = measure(folder, make_recipe(tables, args.completions, args.tokens))
            print(f"{case:<32} " + " ".join(f"{value:8.1f}" for value in results[case].values()), flush=True)
    full = results["full"]
    peak = max(full["rollout"], full["update"])
    ratios = {case: round(max(values["rollout"], values["update"]) / peak, 3) for case, values in results.items()}
    print(json.dumps({"mib": results, "peak_ratio_to_full": ratios}))


def make_recipe(tables: dict[str, Any], num_completions: int, num_tokens: int) -> Recipe:
    """The fixed step, with a case's tables."""
    scenes = {"width": 448, "height": 448, "max_objects": 2}
    return parse_recipe(
        {
            "data": [{"source": "scenes", "scenes": scenes}],
            "train": {"batch_size": 2, "learning_rate": 1e-6},
            "optimizer": {"tokens_per_forward": 1024},
            "rollout": {"group_size": num_completions, "max_new_tokens": num_tokens},
            **tables,
        }
    )


def measure(folder: Path, recipe: Recipe) -> dict[str, float]:
    """MiB held between steps, and at the peak of the rollout and of the update in the second step."""
    policy = load_policy(folder, dtype=recipe.model.dtype)
    make_trainable(policy, recipe.model, recipe.lora)
    learner = make_learner(policy, recipe, lambda: load_policy(folder, dtype=recipe.model.dtype))
    optimizer = make_optimizer(policy.model, recipe.optimizer)
    stream = open_stream(recipe.phases[0], (0, 0))
    live = LiveBytes()
    reference = getattr(learner, "reference", None) or policy
    live.count([*policy.model.parameters(), *reference.model.parameters(), *(m for _, m in optimizer.masters)])
    with live:
        for number in range(2):
            prepared = learner.prepare(stream.batch(number))
            optimizer.zero_grad()
            held = live.peak = live.now
            work = learner.collect(prepared, [(0, 0, number, place) for place in range(2)], 0.0).work
            rollout, live.peak = live.peak, live.now
            for part in work:
                learner.loss(part)[0].backward()
            optimizer.step()
            del work, part
    return {"held": held / MIB, "rollout": rollout / MIB, "update": live.peak / MIB}


if __name__ == "__main__":
    main()
