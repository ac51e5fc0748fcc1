"""Scores of boxes from the model's own probabilities: how sure it was of each label and its coordinates.

The score of a box is the geometric mean of the probabilities of the tokens that wrote its label and its numbers;
brackets, keys and separators do not count. It works for every dialect: a box is complete where the reply, cut off
there, is first read with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import numpy as np

from visionr1.boxes import Array
from visionr1.errors import DataError
from visionr1.evaluation.predictions import Prediction
from visionr1.samples import Reply

Span = tuple[int, int]

_CLOSING = re.compile(r"[\]})>]")
"""What the notation of a box ends with, in every dialect."""
_NUMBER = re.compile(r"-?[0-9]++(?:\.[0-9]++)?(?![A-Za-z])")
"""Not the 2 of bbox_2d."""


def token_scores(prediction: Prediction, reply: Reply, parse: Callable[[str], Reply]) -> Array:
    """Scores (N,) in (0, 1] of the boxes of `reply`, which is `parse(prediction.text)`.

    Raises DataError if the prediction has no probabilities of its tokens.
    """
    if not len(reply.boxes):
        return np.zeros(0)
    if len(prediction.token_ends) != len(prediction.token_logprobs) or not prediction.token_ends:
        raise DataError(
            f"the prediction for image {prediction.image_id!r} has no token_ends and token_logprobs, which "
            "scores=token needs; `visionr1 eval --model` writes them"
        )
    ends = np.array(prediction.token_ends)
    starts, logprobs = np.append(0, ends[:-1]), np.array(prediction.token_logprobs)
    scores = []
    for spans in box_spans(prediction.text, reply, parse):
        own = np.zeros(len(ends), dtype=bool)
        for first, last in spans:
            own |= (starts < last) & (ends > first)
        scores.append(np.exp(logprobs[own].mean()) if own.any() else 0.0)
    return np.array(scores)


def box_spans(text: str, reply: Reply, parse: Callable[[str], Reply]) -> list[list[Span]]:
    """For each box of `reply`, where in `text` its numbers and its label stand."""
    stops = [found.end() for found in _CLOSING.finditer(text)] or [len(text)]
    seen = [parse(text[:stop]).boxes.labels for stop in stops[:-1]]
    seen.append(reply.boxes.labels)
    settled = np.minimum.accumulate([len(labels) for labels in reversed(seen)])[::-1]  # boxes that stay
    spans, start = [], 0
    for number, label in enumerate(reply.boxes.labels):
        place = int(np.searchsorted(settled, number + 1))
        stop = stops[place]
        label_span = _label_span(text, label, stop, before=seen[place][number] == label)
        own = [found.span() for found in _NUMBER.finditer(text, start, stop)]
        numbers = [span for span in own if not (label_span and _touch(span, label_span))][-4:]
        spans.append([*numbers, *([label_span] if label_span else [])])
        start = max(stop, label_span[1] if label_span else 0)
    return spans


def _label_span(text: str, label: str, stop: int, *, before: bool) -> Span | None:
    """Where the label stands nearest to `stop`, as it is or as JSON escapes it; None for no label."""
    for written in (label, json.dumps(label)[1:-1]):
        first = text.rfind(written, 0, stop) if before else text.find(written, stop)
        if label and first >= 0:
            return first, first + len(written)
    return None


def _touch(a: Span, b: Span) -> bool:
    return a[0] < b[1] and b[0] < a[1]
