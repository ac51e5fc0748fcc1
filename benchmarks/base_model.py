"""What a base model can do, by kind of query: scenes that no training has shown, and BCCD valid.

    python benchmarks/base_model.py --model runs/base/checkpoints/step_4000

For each kind of query: the loss of the truth (as in recipes/base.toml), the share of replies that are well formed,
AP50, precision, recall and F1 at IoU 0.5; for questions the share of right answers, also by kind of question.
`--held-out` adds detection with the shape, the texture and the pairs of colour and shape that training never draws. The
last line is a JSON object.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from visionr1.assets import recipe_path
from visionr1.data import read_source
from visionr1.data.scenes import SceneConfig, SceneStream
from visionr1.dialects import Dialect
from visionr1.evaluation import Replies, evaluate
from visionr1.evaluation.predictions import Prediction
from visionr1.evaluation.runner import predict_samples
from visionr1.models.loading import load_policy, model_folder
from visionr1.models.policy import Policy
from visionr1.samples import Sample, Task
from visionr1.training.learners import make_learner
from visionr1.training.recipe import load_recipe

SEED = 10_000
"""Of the held-out scenes; no recipe trains on it."""
TASKS: tuple[Task, ...] = ("detection", "grounding", "referring", "question")
MAX_NEW_TOKENS = 600


def draw_scenes(count: int, **settings: Any) -> list[Sample]:
    """Draw `count` scenes of up to 20 objects."""
    config = SceneConfig(**{"max_objects": 20, **settings})
    stream = SceneStream(SEED, config)
    return [stream[index] for index in range(count)]


def make_sets(num_scenes: int, num_bccd: int, *, held_out: bool) -> dict[str, list[Sample]]:
    """Return the samples of each set by its name."""
    sets = {task: draw_scenes(num_scenes, queries={task: 1.0}) for task in TASKS}
    if held_out:
        for kind in ("shape", "texture", "pair"):
            sets[f"new {kind}"] = draw_scenes(num_scenes, held_out=kind, cells=0.0)
    if num_bccd:
        sets["BCCD valid"] = list(read_source("bccd", split="valid"))[:num_bccd]
    return sets


def measure_loss(policy: Policy, samples: Sequence[Sample]) -> float:
    """Return the mean loss of the truth, its tokens weighted as in recipes/base.toml."""
    recipe = load_recipe(recipe_path("base"))
    learner = make_learner(policy, recipe, lambda: policy)
    total = 0.0
    for start in range(0, len(samples), 16):
        part = list(samples[start : start + 16])
        with torch.no_grad():
            work = learner.collect(learner.prepare(part), [(0, 0, 0, 0)] * len(part), 0.0).work
            total += len(part) * sum(float(learner.loss(one)[0]) for one in work)
    return total / len(samples)


def score_boxes(samples: Sequence[Sample], predictions: Sequence[Prediction], dialect: Dialect) -> dict[str, float]:
    """Return the figures of replies with boxes."""
    result = evaluate(list(samples), Replies(predictions, dialect), num_resamples=0).result
    figures = {name: result.metrics[name] for name in ("AP", "AP50", "precision", "recall", "F1")}
    return {"well_formed": result.counts["well_formed"] / len(samples), **figures}


def score_answers(samples: Sequence[Sample], predictions: Sequence[Prediction]) -> dict[str, float]:
    """Return the share of right answers, of all and of each kind; well formed is one line without a box."""
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    num_well_formed = 0
    for sample, prediction in zip(samples, predictions, strict=True):
        kind = sample.id.rpartition(":")[2]
        text = prediction.text.strip()
        asked[kind] += 1
        right[kind] += text.casefold() == sample.answer.casefold()
        num_well_formed += bool(text) and not prediction.truncated and "\n" not in text and "bbox" not in text
    by_kind = {f"right/{kind}": right[kind] / number for kind, number in sorted(asked.items())}
    return {"well_formed": num_well_formed / len(samples), "right": right.total() / len(samples), **by_kind}


def measure(policy: Policy, samples: Sequence[Sample]) -> dict[str, float]:
    """Return all figures of one set."""
    loss = measure_loss(policy, samples)
    predictions = predict_samples(policy, samples, max_new_tokens=MAX_NEW_TOKENS)
    if samples[0].query.task == "question":
        return {"loss": loss, **score_answers(samples, predictions)}
    return {"loss": loss, **score_boxes(samples, predictions, policy.dialect)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model folder, such as a checkpoint of a run")
    parser.add_argument("--scenes", type=int, default=200, help="samples of each set of scenes (default: 200)")
    parser.add_argument("--bccd", type=int, default=87, help="images of BCCD valid (default: all 87)")
    parser.add_argument("--held-out", action="store_true", help="also what training never draws")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    policy = load_policy(model_folder(str(args.model)))
    figures = {}
    for name, samples in make_sets(args.scenes, args.bccd, held_out=args.held_out).items():
        figures[name] = measure(policy, samples)
        line = ", ".join(f"{key} {value:.3f}" for key, value in figures[name].items())
        print(f"{name} ({len(samples)}): {line}", flush=True)
    print(json.dumps({"model": str(args.model), "scenes": args.scenes, "figures": figures}))


if __name__ == "__main__":
    main()
