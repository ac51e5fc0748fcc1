"""A model's replies: to the samples of an evaluation, in batches, and to one image."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from visionr1.data.row_log import OnBad
from visionr1.dialects import Dialect
from visionr1.errors import DataError
from visionr1.evaluation.predictions import Prediction
from visionr1.evaluation.protocols import Protocol
from visionr1.images import image_size
from visionr1.models.loading import load_policy
from visionr1.models.policy import Policy
from visionr1.models.prompts import Prompt
from visionr1.models.weights import weights_checksum
from visionr1.progress import Bar
from visionr1.rollout.engine import Completion, Sampling
from visionr1.rollout.engines.builtin import generate
from visionr1.samples import Boxes, Query, Reply, Sample, normalize_label, normalized_labels

MAX_NEW_TOKENS = 1024
"""Of a reply, unless said otherwise."""
BATCH_SIZE = 16

_log = logging.getLogger(__name__)


def predict_samples(
    policy: Policy,
    samples: Sequence[Sample],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = BATCH_SIZE,
    template: str = "",
    on_bad: OnBad = "raise",
    progress: Callable[[int, int], None] | None = None,
    keep: Callable[[Sequence[Prediction]], None] | None = None,
) -> list[Prediction]:
    """One greedy reply per sample, in order. After each batch, `progress(samples done, all)` and `keep(its replies)`.

    `template` takes the place of the model family's instruction, as in `dialects.instruction`.

    Raises DataError, which names the sample, if an image cannot be read or fed to the model; with `on_bad` "skip" such
    a sample is named in a warning and has no reply.
    """
    greedy = Sampling(max_new_tokens=max_new_tokens, temperature=0.0)
    decode_token = cache(lambda token: policy.decode_reply([token]))  # replies share most of their tokens
    predictions: list[Prediction] = []
    for start in range(0, len(samples), batch_size):
        end = min(start + batch_size, len(samples))
        batch, prompts = _encode_batch(policy, samples[start:end], template, on_bad)
        groups = generate(policy, prompts, greedy) if prompts else []
        first = len(predictions)
        for sample, prompt, (completion,) in zip(batch, prompts, groups, strict=True):
            token_ends, token_logprobs = _token_columns(policy, completion, decode_token)
            prediction = Prediction(
                sample_id=sample.id,
                image_id=sample.image_key,
                text=completion.text,
                truncated=completion.truncated,
                input_size_wh=prompt.input_size_wh,
                categories=sample.query.categories,
                token_ends=token_ends,
                token_logprobs=token_logprobs,
            )
            predictions.append(prediction)

        # Kept before anything else, so that a stopped evaluation has lost no more than a batch.
        if keep:
            keep(predictions[first:])
        if progress:
            progress(end, len(samples))
    return predictions


def _encode_batch(
    policy: Policy, samples: Sequence[Sample], template: str, on_bad: OnBad
) -> tuple[list[Sample], list[Prompt]]:
    """Return the samples that can be fed to the model, and their prompts; the others are refused or skipped."""
    encoded = []
    prompts = []
    for sample in samples:
        try:
            prompt = policy.encode(sample.load_image(), sample.query, template)
        except DataError as error:
            problem = describe_refused(sample, error)
            if on_bad == "raise":
                raise DataError(
                    f"{problem}; replace it or leave it out, or go on without it: eval --on-bad skip, in a recipe "
                    "eval.on_bad (docs/faq.md#one-image-ends-a-run)"
                ) from error
            _log.warning("%s; it is skipped, and has no reply", problem)
            continue
        encoded.append(sample)
        prompts.append(prompt)
    return encoded, prompts


def describe_refused(sample: Sample, error: DataError) -> str:
    """Name the sample and its file before what is wrong with it."""
    # Errors of reading name the file themselves.
    if isinstance(sample.image, Path) and str(sample.image) not in str(error):
        return f"sample {sample.id}: {sample.image}: {error}"
    return f"sample {sample.id}: {error}"


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
    """

    source: Policy | str | Path
    name: str = ""
    device: str = "cpu"
    dtype: str = "float32"
    dialect_name: str | None = None
    max_new_tokens: int | None = None
    batch_size: int = BATCH_SIZE
    on_bad: OnBad = "raise"

    def __post_init__(self) -> None:
        if not self.name and not isinstance(self.source, Policy):
            object.__setattr__(self, "name", str(self.source))

    @cached_property
    def policy(self) -> Policy:
        """The policy, loaded once."""
        if isinstance(self.source, Policy):
            return self.source
        return load_policy(self.source, device=self.device, dtype=self.dtype, dialect=self.dialect_name)

    @property
    def dialect(self) -> Dialect:
        """The dialect that the policy writes."""
        return self.policy.dialect

    def complete_protocol(self, protocol: Protocol) -> Protocol:
        """Fill in the dialect, template, dtype, checksum of the image processor and length of a reply."""
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
            dtype=str(self.policy.model.dtype).removeprefix("torch."),
            image_processor=f"{checksum:08x}",
            max_new_tokens=self.max_new_tokens or protocol.max_new_tokens or MAX_NEW_TOKENS,
        )

    def weights_sum(self) -> int:
        """Return a checksum of the weights: another model gives another."""
        return weights_checksum(self.policy.model.parameters())

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

            return predict_samples(
                self.policy,
                samples,
                max_new_tokens=protocol.max_new_tokens,
                batch_size=self.batch_size,
                template=protocol.template,
                on_bad=self.on_bad,
                progress=show,
                keep=keep,
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
    policy: Policy, path: Path, categories: Sequence[str], *, max_new_tokens: int = MAX_NEW_TOKENS
) -> tuple[Sample, Boxes, dict[str, Any]]:
    """Ask for categories in one image file: the sample, the boxes that were asked for, and the reply as a JSON object.

    Boxes with a label that was not asked for are listed by themselves. Raises DataError if it is no image.
    """
    sample = Sample(path.name, path, Query("detection", tuple(categories)), Boxes.empty(), image_size(path))
    (prediction,) = predict_samples(policy, [sample], max_new_tokens=max_new_tokens)
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
