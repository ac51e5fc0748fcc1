"""A model's replies: to the samples of an evaluation, in batches, and to one image."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from visionr1.draw import draw_boxes
from visionr1.errors import DataError
from visionr1.evaluate import DEFAULT, DetectionResult, Prediction, Protocol, evaluate_detection
from visionr1.models.policy import Policy
from visionr1.readers import CocoDataset, one_category_each, present_categories
from visionr1.rollout import generate
from visionr1.samples import Boxes, Query, Reply, Sample

MAX_NEW_TOKENS = 1024
"""Of a reply, unless said otherwise."""
BATCH_SIZE = 16


def final_model(path: str | Path) -> str | Path:
    """The model that `path` names: of a run folder its final one, else `path` itself."""
    final = Path(path) / "final"
    return final if (final / "config.json").is_file() else path


def predict_samples(
    policy: Policy,
    samples: Sequence[Sample],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = BATCH_SIZE,
    template: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> list[Prediction]:
    """One greedy reply per sample, in order. `progress(samples done, all)` is called after each batch.

    `template` takes the place of the model family's instruction, as in `prompts.instruction`.

    Raises DataError if an image cannot be read or its prompt does not fit into the model's context.
    """
    predictions: list[Prediction] = []
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        prompts = [policy.encode(sample.load_image(), sample.query, template) for sample in batch]
        groups = generate(policy, prompts, max_new_tokens=max_new_tokens, temperature=0.0)
        for sample, prompt, (completion,) in zip(batch, prompts, groups, strict=True):
            predictions.append(
                Prediction(
                    sample_id=sample.id,
                    image_id=sample.image_id if sample.image_id != "" else sample.id,
                    text=completion.text,
                    truncated=completion.truncated,
                    input_size_wh=prompt.input_size_wh,
                    categories=sample.query.categories,
                )
            )
        if progress:
            progress(len(predictions), len(samples))
    return predictions


def evaluate_model(
    policy: Policy,
    dataset: CocoDataset,
    *,
    protocol: Protocol = DEFAULT,
    max_new_tokens: int | None = None,
    batch_size: int = BATCH_SIZE,
    num_resamples: int | None = None,
    name: str = "evaluating",
) -> tuple[DetectionResult, list[Prediction]]:
    """The figures of a policy on a data set, asked as the protocol says, and the replies they come from.

    `max_new_tokens` goes before the protocol's; `num_resamples` is as in `evaluate_boxes`. A bar called `name` shows
    progress.
    """
    tokens = max_new_tokens or protocol.max_new_tokens or MAX_NEW_TOKENS
    protocol = replace(protocol, max_new_tokens=tokens)
    asked = ask(dataset.samples, protocol)
    with SampleBar(name, len(asked)) as bar:
        predictions = predict_samples(
            policy, asked, max_new_tokens=tokens, batch_size=batch_size, template=protocol.template, progress=bar.show
        )
    result = evaluate_detection(
        asked,
        predictions,
        dialect=policy.dialect,
        protocol=protocol,
        table=dataset.table,
        num_resamples=num_resamples,
    )
    return result, predictions


def ask(samples: Sequence[Sample], protocol: Protocol) -> list[Sample]:
    """Detection samples as the queries of a protocol: one for all categories or one each, all or those present."""
    present = protocol.categories == "present"
    if protocol.prompt == "per_category":
        return one_category_each(samples, present_only=present)
    return present_categories(samples) if present else list(samples)


class SampleBar:
    """Samples done so far, on standard error: a bar on a terminal, a line each quarter elsewhere."""

    def __init__(self, name: str, total: int) -> None:
        console = Console(file=sys.stderr)
        self._name, self._quarter = name, 0
        self._lines = not console.is_terminal
        columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn())
        self._bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=self._lines)
        self._task = self._bar.add_task(name, total=total)

    def __enter__(self) -> SampleBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, done: int, total: int) -> None:
        """Tell how many samples are done."""
        self._bar.update(self._task, completed=done)
        if self._lines and 4 * done // total > self._quarter:
            self._quarter = 4 * done // total
            print(f"{self._name}: {done} of {total}", file=sys.stderr, flush=True)


def read_prediction(policy: Policy, sample: Sample, prediction: Prediction) -> Reply:
    """What a prediction says, in the sample's original pixels."""
    assert prediction.input_size_wh is not None
    return policy.dialect.parse(
        prediction.text,
        size_wh=sample.size_wh,
        input_size_wh=prediction.input_size_wh,
        categories=sample.query.categories,
    )


def predict_image(
    policy: Policy, path: Path, categories: Sequence[str], *, max_new_tokens: int = MAX_NEW_TOKENS
) -> tuple[Image.Image, dict[str, Any]]:
    """The image file with the boxes found drawn on it, and the reply as a JSON object; DataError if it is no image."""
    sample = Sample(path.name, path, Query("detection", tuple(categories)), Boxes.empty(), image_size(path))
    (prediction,) = predict_samples(policy, [sample], max_new_tokens=max_new_tokens)
    reply = read_prediction(policy, sample, prediction)
    boxes = zip(reply.boxes.xyxy.tolist(), reply.boxes.labels, strict=True)
    record = {
        "image": str(path),
        "size_wh": list(sample.size_wh),
        "boxes": [{"xyxy": [round(side, 2) for side in xyxy], "label": label} for xyxy, label in boxes],
        "num_malformed": reply.num_malformed,
        "truncated": prediction.truncated,
        "faults": [{"kind": str(f.kind), "item": f.item, "detail": f.detail} for f in reply.faults],
        "text": prediction.text,
    }
    return draw_boxes(sample.load_image(), reply.boxes, categories=categories), record


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file; DataError if it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot read this image ({error})") from error
