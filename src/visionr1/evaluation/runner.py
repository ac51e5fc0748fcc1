"""A model's replies: to the samples of an evaluation, and to one image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import accumulate, islice
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from visionr1.data.row_log import OnBad
from visionr1.dialects import Dialect
from visionr1.errors import RecipeError
from visionr1.evaluation.model.answerer import BUILTIN, Answerer, open_answerer
from visionr1.evaluation.model.read_ahead import read_prompts
from visionr1.evaluation.predictions import Prediction
from visionr1.evaluation.protocols import Protocol
from visionr1.images import image_size
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.progress import Bar
from visionr1.rollout.engine import Completion, RolloutEngine, Sampling, StreamingEngine
from visionr1.rollout.engines.builtin import generate
from visionr1.samples import Boxes, Query, Reply, Sample, Size, normalize_label, normalized_labels

MAX_NEW_TOKENS = 1024
"""Of a reply, unless said otherwise."""
BATCH_SIZE = 16
"""Samples at once, of an engine that answers batch by batch."""
AT_ONCE = 256
"""Samples under way at once, of an engine that takes new ones as others end."""
KEPT_AT_ONCE = 16
"""Replies that are kept together, as they end."""


@dataclass(frozen=True, slots=True, eq=False)
class _Reply:
    """One completion, of the sample at a place among all."""

    place: int
    input_size_wh: Size
    completion: Completion


def predict_samples(
    policy: Policy,
    samples: Sequence[Sample],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 0,
    template: str = "",
    on_bad: OnBad = "raise",
    progress: Callable[[int, int], None] | None = None,
    keep: Callable[[Sequence[Prediction]], None] | None = None,
    engine: RolloutEngine = generate,
    workers: int = 0,
) -> list[Prediction]:
    """One greedy reply per sample, in order. After some, `keep(them)` and `progress(samples done, all)`.

    `template` takes the place of the model family's instruction, as in `dialects.instruction`. `batch_size` is how many
    samples the `engine` has at once, 0 as many as suit it. `workers` processes read images ahead.

    Raises DataError, which names the sample, if an image cannot be read or fed to the model; with `on_bad` "skip" such
    a sample is named in a warning and has no reply.
    """
    is_streaming = isinstance(engine, StreamingEngine)
    prompts = read_prompts(policy, samples, template=template, on_bad=on_bad, workers=workers, image_alone=is_streaming)
    if isinstance(engine, StreamingEngine):
        parts = _answer_streaming(engine, policy, prompts, max_new_tokens, batch_size or AT_ONCE)
    else:
        parts = _answer_batches(engine, policy, prompts, max_new_tokens, batch_size or BATCH_SIZE)

    decode_token = cache(lambda token: policy.decode_reply([token]))  # replies share most of their tokens
    predictions: dict[int, Prediction] = {}
    for num_done, replies in parts:
        added = []
        for reply in replies:
            prediction = _make_prediction(policy, samples[reply.place], reply, decode_token)
            predictions[reply.place] = prediction
            added.append(prediction)

        # Kept before anything else, so that a stopped evaluation has lost no more than a part.
        if keep:
            keep(added)
        if progress:
            progress(num_done, len(samples))
    return [predictions[place] for place in sorted(predictions)]


def _answer_batches(
    engine: RolloutEngine,
    policy: Policy,
    prompts: Iterator[Prompt | None],
    max_new_tokens: int,
    batch_size: int,
) -> Iterator[tuple[int, list[_Reply]]]:
    """Yield the replies to each batch of samples, and how many samples are done by then."""
    greedy = Sampling(max_new_tokens=max_new_tokens, temperature=0.0)
    num_done = 0
    while batch := list(islice(prompts, batch_size)):
        readable = {num_done + index: prompt for index, prompt in enumerate(batch) if prompt is not None}
        groups = engine(policy, list(readable.values()), greedy) if readable else []
        replies = []
        for (place, prompt), (completion,) in zip(readable.items(), groups, strict=True):
            replies.append(_Reply(place, prompt.input_size_wh, completion))
        num_done += len(batch)
        yield num_done, replies


def _answer_streaming(
    engine: StreamingEngine,
    policy: Policy,
    prompts: Iterator[Prompt | None],
    max_new_tokens: int,
    at_once: int,
) -> Iterator[tuple[int, list[_Reply]]]:
    """Yield replies as they end, some at a time, and how many samples are done by then."""
    sizes: dict[int, Size] = {}
    places: list[int] = []
    num_skipped = 0

    def readable() -> Iterator[Prompt]:
        nonlocal num_skipped
        for place, prompt in enumerate(prompts):
            if prompt is None:
                num_skipped += 1
                continue
            places.append(place)
            sizes[place] = prompt.input_size_wh
            yield prompt

    num_answered = 0
    replies: list[_Reply] = []
    for number, completion in engine.answer(policy, readable(), max_new_tokens=max_new_tokens, at_once=at_once):
        place = places[number]
        replies.append(_Reply(place, sizes.pop(place), completion))
        num_answered += 1
        if len(replies) == KEPT_AT_ONCE:
            yield num_answered + num_skipped, replies
            replies = []
    if replies or num_skipped:
        yield num_answered + num_skipped, replies


def _make_prediction(policy: Policy, sample: Sample, reply: _Reply, decode_token: Callable[[int], str]) -> Prediction:
    """Return a reply as it is stored."""
    token_ends, token_logprobs = _token_columns(policy, reply.completion, decode_token)
    return Prediction(
        sample_id=sample.id,
        image_id=sample.image_key,
        text=reply.completion.text,
        truncated=reply.completion.truncated,
        input_size_wh=reply.input_size_wh,
        categories=sample.query.categories,
        token_ends=token_ends,
        token_logprobs=token_logprobs,
    )


def _token_columns(
    policy: Policy, completion: Completion, decode_token: Callable[[int], str]
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return where each token of a completion ends in its text, in characters, and its log-probability."""
    # A reply that ended has a last token that is no text.
    token_ids = completion.token_ids.tolist()
    if not completion.truncated:
        token_ids = token_ids[:-1]
    pieces = [decode_token(token) for token in token_ids]
    ends = list(accumulate(map(len, pieces)))

    # Some tokens are parts of a character, or lose a blank on their own: then every beginning is decoded.
    if "".join(pieces) != completion.text:
        ends = [len(policy.decode_reply(token_ids[:number])) for number in range(1, len(token_ids) + 1)]

    token_ends = np.minimum(ends, len(completion.text)).tolist()
    token_logprobs = [round(value, 5) for value in completion.logprobs[: len(token_ids)].tolist()]
    return tuple(token_ends), tuple(token_logprobs)


@dataclass(frozen=True, eq=False)
class Model:
    """A model to evaluate: a folder, loaded when it is first asked, or a policy that is there.

    `name` is what stored results call it, the folder unless told otherwise. `max_new_tokens` goes before the
    protocol's; `dialect` before the folder's. With `on_bad` "skip" an image that cannot be fed to it has no reply.
    `engine` is the name of the one that answers, or for a policy an open one. `batch_size` and `workers` are as in
    `predict_samples`; without, they are as the engine needs them.
    """

    source: Policy | str | Path
    name: str = ""
    device: str = "cpu"
    dtype: str = "float32"
    dialect_name: str | None = None
    max_new_tokens: int | None = None
    batch_size: int = 0
    on_bad: OnBad = "raise"
    engine: str | RolloutEngine = BUILTIN
    workers: int | None = None

    def __post_init__(self) -> None:
        if not self.name and not isinstance(self.source, Policy):
            object.__setattr__(self, "name", str(self.source))

    @cached_property
    def answerer(self) -> Answerer:
        """The policy and its engine, loaded and opened once."""
        if not isinstance(self.source, Policy):
            assert isinstance(self.engine, str)
            return open_answerer(
                self.source, engine=self.engine, device=self.device, dtype=self.dtype, dialect=self.dialect_name
            )
        if isinstance(self.engine, str):
            if self.engine != BUILTIN:
                raise RecipeError(f"engine: expected one that is open, for a policy, found the name {self.engine!r}")
            return Answerer(self.source)
        return Answerer(self.source, self.engine)

    @property
    def policy(self) -> Policy:
        """The policy, loaded once."""
        return self.answerer.policy

    @property
    def dialect(self) -> Dialect:
        """The dialect that the policy writes."""
        return self.policy.dialect

    def complete_protocol(self, protocol: Protocol) -> Protocol:
        """Fill in the dialect, template, dtype, engine, checksum of the image processor and length of a reply."""
        # Names of classes change between versions of transformers and say nothing of the pixels that a model sees.
        settings = self.policy.image_processor.to_dict()
        for key in list(settings):
            if key.endswith(("processor_class", "processor_type")):
                del settings[key]
        checksum = crc32(json.dumps(settings, sort_keys=True, default=str).encode())

        return replace(
            protocol,
            dialect=self.dialect.name,
            template=protocol.template or self.policy.template,
            dtype=self.answerer.dtype,
            engine=self.answerer.label,
            image_processor=f"{checksum:08x}",
            max_new_tokens=self.max_new_tokens or protocol.max_new_tokens or MAX_NEW_TOKENS,
        )

    def weights_sum(self) -> int:
        """Return a checksum of the weights: another model gives another."""
        return self.answerer.weights_sum()

    def reply(
        self,
        samples: Sequence[Sample],
        protocol: Protocol,
        *,
        title: str,
        keep: Callable[[Sequence[Prediction]], None] | None,
    ) -> list[Prediction]:
        """Return one greedy reply to each sample, in order, under a bar called `title`."""
        with Bar() as bar:

            def show(done: int, total: int) -> None:
                bar.show(done / total, title, f"{done} of {total}")

            return self.ask(samples, protocol, progress=show, keep=keep)

    def ask(
        self,
        samples: Sequence[Sample],
        protocol: Protocol,
        *,
        progress: Callable[[int, int], None] | None = None,
        keep: Callable[[Sequence[Prediction]], None] | None = None,
    ) -> list[Prediction]:
        """Return one greedy reply to each sample, in order, as `predict_samples`."""
        return predict_samples(
            self.policy,
            samples,
            max_new_tokens=protocol.max_new_tokens,
            batch_size=self.batch_size,
            template=protocol.template,
            on_bad=self.on_bad,
            progress=progress,
            keep=keep,
            engine=self.answerer.engine,
            workers=self.answerer.workers if self.workers is None else self.workers,
        )


def read_prediction(policy: Policy, sample: Sample, prediction: Prediction) -> Reply:
    """Parse a prediction, into the sample's original pixels."""
    assert prediction.input_size_wh is not None
    return policy.dialect.parse(
        prediction.text,
        size_wh=sample.size_wh,
        input_size_wh=prediction.input_size_wh,
        categories=sample.query.categories,
    )


def predict_image(
    policy: Policy,
    path: Path,
    categories: Sequence[str],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    engine: RolloutEngine = generate,
) -> tuple[Sample, Boxes, dict[str, Any]]:
    """Ask for categories in one image file: the sample, the boxes that were asked for, and the reply as a JSON object.

    Boxes with a label that was not asked for are listed by themselves. Raises DataError if it is no image.
    """
    sample = Sample(path.name, path, Query("detection", tuple(categories)), Boxes.empty(), image_size(path))
    (prediction,) = predict_samples(policy, [sample], max_new_tokens=max_new_tokens, engine=engine)
    reply = read_prediction(policy, sample, prediction)

    # Boxes of other labels are shown, but do not answer the question.
    asked_labels = normalized_labels(tuple(categories))
    asked: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for xyxy, label in zip(reply.boxes.xyxy.tolist(), reply.boxes.labels, strict=True):
        box = {"xyxy": [round(side, 2) for side in xyxy], "label": label}
        if normalize_label(label) in asked_labels:
            asked.append(box)
        else:
            others.append(box)

    faults = []
    for fault in reply.faults:
        faults.append({"kind": str(fault.kind), "item": fault.item, "detail": fault.detail})
    record = {
        "image": str(path),
        "size_wh": list(sample.size_wh),
        "boxes": asked,
        "not_asked_for": others,
        "num_malformed": reply.num_malformed,
        "truncated": prediction.truncated,
        "faults": faults,
        "text": prediction.text,
    }
    boxes = Boxes.of([box["xyxy"] for box in asked], [box["label"] for box in asked])
    return sample, boxes, record
