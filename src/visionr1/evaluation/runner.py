"""A model's replies: to the samples of an evaluation, in batches, and to one image."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from PIL import Image

from visionr1.data import BoxDataset
from visionr1.errors import RecipeError
from visionr1.evaluation import (
    DEFAULT,
    WHOLE,
    DetectionResult,
    DetectionUnit,
    Prediction,
    Protocol,
    ReplyLog,
    ReplyProtocol,
    Result,
    Shard,
    Unit,
    ask,
)
from visionr1.evaluation.protocols import ASKED
from visionr1.images import image_size
from visionr1.models.checksum import weights_checksum
from visionr1.models.policy import Policy
from visionr1.progress import Bar
from visionr1.report.draw import draw_boxes
from visionr1.rollout.eager import Completion, Sampling, generate
from visionr1.samples import Boxes, Query, Reply, Sample, normalize_label, normalized_labels

MAX_NEW_TOKENS = 1024
"""Of a reply, unless said otherwise."""
BATCH_SIZE = 16


def predict_samples(
    policy: Policy,
    samples: Sequence[Sample],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = BATCH_SIZE,
    template: str = "",
    progress: Callable[[int, int], None] | None = None,
    keep: Callable[[Sequence[Prediction]], None] | None = None,
) -> list[Prediction]:
    """One greedy reply per sample, in order. After each batch, `progress(samples done, all)` and `keep(its replies)`.

    `template` takes the place of the model family's instruction, as in `prompts.instruction`.

    Raises DataError if an image cannot be read or its prompt does not fit into the model's context.
    """
    predictions: list[Prediction] = []
    piece = cache(lambda token: policy.decode_reply([token]))
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        prompts = [policy.encode(sample.load_image(), sample.query, template) for sample in batch]
        groups = generate(policy, prompts, Sampling(max_new_tokens=max_new_tokens, temperature=0.0))
        for sample, prompt, (completion,) in zip(batch, prompts, groups, strict=True):
            predictions.append(
                Prediction(
                    sample_id=sample.id,
                    image_id=sample.image_id if sample.image_id != "" else sample.id,
                    text=completion.text,
                    truncated=completion.truncated,
                    input_size_wh=prompt.input_size_wh,
                    categories=sample.query.categories,
                    **_tokens(policy, completion, piece),
                )
            )
        if keep:
            keep(predictions[start:])
        if progress:
            progress(len(predictions), len(samples))
    return predictions


def _tokens(policy: Policy, completion: Completion, piece: Callable[[int], str]) -> dict[str, Any]:
    """Where each token of a completion ends in its text, and its log-probability, for `Prediction`; `piece` is the text
    of one token."""
    ids = completion.token_ids[: len(completion.token_ids) - (not completion.truncated)].tolist()
    pieces = [piece(token) for token in ids]
    ends = list(accumulate(map(len, pieces)))
    if "".join(pieces) != completion.text:  # some tokens are parts of a character, or lose a blank on their own
        ends = [len(policy.decode_reply(ids[: number + 1])) for number in range(len(ids))]
    logprobs = completion.logprobs[: len(ids)].tolist()
    return {
        "token_ends": tuple(np.minimum(ends, len(completion.text)).tolist()),
        "token_logprobs": tuple(round(value, 5) for value in logprobs),
    }


def evaluate_model(
    policy: Policy,
    dataset: BoxDataset,
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
    unit = DetectionUnit(name=name, table=dataset.table, samples=dataset.samples)
    asking = Asking.of(policy, unit, protocol, max_new_tokens)
    predictions = collect_replies(policy, asking, batch_size=batch_size, name=name)
    return unit.score(predictions, policy.dialect, asking.protocol, num_resamples)[name], predictions


@dataclass(frozen=True, slots=True, eq=False)
class Asking:
    """What is to be asked as a protocol says: one sample for each prompt."""

    samples: Sequence[Sample]
    protocol: ReplyProtocol

    @classmethod
    def of(cls, policy: Policy, unit: Unit, protocol: ReplyProtocol, max_new_tokens: int | None = None) -> Asking:
        """What a policy is asked; `max_new_tokens` goes before the protocol's."""
        tokens = max_new_tokens or protocol.max_new_tokens or MAX_NEW_TOKENS
        return cls(ask(unit.samples, protocol), replace(protocol, max_new_tokens=tokens, **stated(policy)))

    @property
    def facts(self) -> dict[str, Any]:
        """All that the replies depend on besides the model: how they are scored is not among it."""
        said = self.protocol.to_json()
        prompts = repr([(sample.id, sample.query, sample.size_wh) for sample in self.samples])
        stated = {key: said[key] for key in (*ASKED, "dialect") if key in said}
        return {"samples": len(self.samples), "prompts": crc32(prompts.encode()), **stated}


def collect_replies(
    policy: Policy,
    asking: Asking,
    *,
    batch_size: int = BATCH_SIZE,
    name: str = "evaluating",
    log: ReplyLog | None = None,
    shard: Shard = WHOLE,
) -> list[Prediction]:
    """The replies to the samples of a shard that `log` does not hold yet, and all those it holds, in order.

    Each batch is kept in the log, so that a run which was stopped goes on. Fewer replies than samples come back where
    other shards are not done. Raises DataError if the log's replies are of another model, data or protocol.
    """
    done: dict[str, Prediction] = {}
    if log:
        done = log.open({"weights": weights_checksum(policy.model.parameters()), **asking.facts}, shard)
    todo = [sample for sample in shard.of(asking.samples) if sample.id not in done]
    with Bar() as bar:
        predictions = predict_samples(
            policy,
            todo,
            max_new_tokens=asking.protocol.max_new_tokens,
            batch_size=batch_size,
            template=asking.protocol.template,
            progress=lambda done, total: bar.show(done / total, name, f"{done} of {total}"),
            keep=log.append if log else None,
        )
    done |= {prediction.sample_id: prediction for prediction in predictions}
    return [done[sample.id] for sample in asking.samples if sample.id in done]


@dataclass(frozen=True, slots=True, eq=False)
class ModelEvaluator:
    """A policy and how it is run."""

    policy: Policy
    max_new_tokens: int | None = None
    batch_size: int = BATCH_SIZE
    num_resamples: int | None = None

    def evaluate(
        self, unit: Unit, protocols: Mapping[str, ReplyProtocol], log: ReplyLog | None = None
    ) -> tuple[dict[str, Mapping[str, Result]], list[Prediction]]:
        """The results under protocols, by name, that differ in scoring alone, and the replies that all are of."""
        asked = {name: Asking.of(self.policy, unit, own, self.max_new_tokens) for name, own in protocols.items()}
        first, *others = asked.values()
        if any(other.facts != first.facts for other in others):
            raise RecipeError("protocols of one generation may differ in how replies are scored, not in what is asked")
        said = collect_replies(self.policy, first, batch_size=self.batch_size, name=unit.name, log=log)
        dialect = self.policy.dialect
        return {n: unit.score(said, dialect, own.protocol, self.num_resamples) for n, own in asked.items()}, said

    def collect(self, unit: Unit, protocol: ReplyProtocol, log: ReplyLog, shard: Shard) -> tuple[int, int]:
        """Ask one shard; how many replies the log then holds, and how many there are to be."""
        asking = Asking.of(self.policy, unit, protocol, self.max_new_tokens)
        replies = collect_replies(self.policy, asking, batch_size=self.batch_size, name=unit.name, log=log, shard=shard)
        return len(replies), len(asking.samples)


def stated(policy: Policy) -> dict[str, Any]:
    """What a protocol says of the policy that replied under it."""
    settings = policy.image_processor.to_dict()
    named = {key: settings[key] for key in sorted(settings) if not key.endswith(("processor_class", "processor_type"))}
    return {
        "dialect": policy.dialect.name,
        "dtype": str(policy.model.dtype).removeprefix("torch."),
        "image_processor": f"{crc32(json.dumps(named, sort_keys=True, default=str).encode()):08x}",
    }


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
    """The image file with the boxes found drawn on it, and the reply as a JSON object; DataError if it is no image.

    Boxes with a label that was not asked for are listed by themselves and not drawn.
    """
    sample = Sample(path.name, path, Query("detection", tuple(categories)), Boxes.empty(), image_size(path))
    (prediction,) = predict_samples(policy, [sample], max_new_tokens=max_new_tokens)
    reply = read_prediction(policy, sample, prediction)
    known = normalized_labels(tuple(categories))
    asked: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for xyxy, label in zip(reply.boxes.xyxy.tolist(), reply.boxes.labels, strict=True):
        own = asked if normalize_label(label) in known else others
        own.append({"xyxy": [round(side, 2) for side in xyxy], "label": label})
    record = {
        "image": str(path),
        "size_wh": list(sample.size_wh),
        "boxes": asked,
        "not_asked_for": others,
        "num_malformed": reply.num_malformed,
        "truncated": prediction.truncated,
        "faults": [{"kind": str(f.kind), "item": f.item, "detail": f.detail} for f in reply.faults],
        "text": prediction.text,
    }
    drawn = Boxes.of([box["xyxy"] for box in asked], [box["label"] for box in asked])
    return draw_boxes(sample.load_image(), drawn, categories=categories), record
