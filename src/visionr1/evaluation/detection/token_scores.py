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
"""The notation of a box ends with one of these, in every dialect."""
_NUMBER = re.compile(r"(?:-|(?<![0-9]))[0-9]++(?:\.[0-9]++)?(?![A-Za-z])")
"""Not the 2 of bbox_2d, and no tail of such a number: a long one is then read once, not from each of its digits."""


def token_scores(prediction: Prediction, reply: Reply, parse: Callable[[str], Reply]) -> Array:
    """Return scores (N,) in (0, 1] of the boxes of `reply`, which is `parse(prediction.text)`.

    Raises DataError if the prediction has no probabilities of its tokens.
    """
    if not len(reply.boxes):
        return np.zeros(0)
    if len(prediction.token_ends) != len(prediction.token_logprobs) or not prediction.token_ends:
        raise DataError(
            f"the prediction for image {prediction.image_id!r} has no token_ends and token_logprobs, which "
            "scores=token needs; `visionr1 eval --model` writes them"
        )

    token_ends = np.array(prediction.token_ends)
    token_starts = np.append(0, token_ends[:-1])
    logprobs = np.array(prediction.token_logprobs)
    scores = []
    for spans in box_spans(prediction.text, reply, parse):
        # A token counts if any of its characters lies in a span of the box.
        wrote_box = np.zeros(len(token_ends), dtype=bool)
        for first, last in spans:
            wrote_box |= (token_starts < last) & (token_ends > first)
        if wrote_box.any():
            scores.append(np.exp(logprobs[wrote_box].mean()))
        else:
            scores.append(0.0)
    return np.array(scores)


def box_spans(text: str, reply: Reply, parse: Callable[[str], Reply]) -> list[list[Span]]:
    """Return for each box of `reply` where in `text` its numbers and its label stand."""
    stops, labels_at_stop = _parse_cut_off(text, reply, parse)

    # A box is complete at the first stop from which on it is always read: as many boxes at every later stop.
    num_boxes = [len(labels) for labels in labels_at_stop]
    num_complete = np.minimum.accumulate(num_boxes[::-1])[::-1]
    spans_of_boxes = []
    start = 0
    for number, label in enumerate(reply.boxes.labels):
        place = int(np.searchsorted(num_complete, number + 1))
        stop = stops[place]
        # A box that is complete under another label has its label behind it.
        is_before = labels_at_stop[place][number] == label
        label_span = _find_label(text, label, stop, before=is_before)

        spans = _find_numbers(text, start, stop, label_span)
        start = stop
        if label_span:
            spans.append(label_span)
            start = max(stop, label_span[1])
        spans_of_boxes.append(spans)
    return spans_of_boxes


def _parse_cut_off(text: str, reply: Reply, parse: Callable[[str], Reply]) -> tuple[list[int], list[tuple[str, ...]]]:
    """Cut `text` off behind each closing bracket; return the S places and the labels of the boxes read at each."""
    stops = [bracket.end() for bracket in _CLOSING.finditer(text)]
    if not stops or text[stops[-1] :].strip():
        stops.append(len(text))  # a label may stand behind the last bracket

    # The text up to the last place is the whole reply, which is parsed already.
    labels_at_stop = [parse(text[:stop]).boxes.labels for stop in stops[:-1]]
    labels_at_stop.append(reply.boxes.labels)
    return stops, labels_at_stop


def _find_numbers(text: str, start: int, stop: int, label_span: Span | None) -> list[Span]:
    """Return the spans of the last four numbers from `start` to `stop` that are not part of the label."""
    spans = []
    for number in _NUMBER.finditer(text, start, stop):
        if label_span is None or not _overlap(number.span(), label_span):
            spans.append(number.span())
    return spans[-4:]


def _find_label(text: str, label: str, stop: int, *, before: bool) -> Span | None:
    """Return where the label stands nearest to `stop`, as it is or as JSON escapes it; None for no label."""
    if not label:
        return None
    for written in (label, json.dumps(label)[1:-1]):
        first = text.rfind(written, 0, stop) if before else text.find(written, stop)
        if first >= 0:
            return first, first + len(written)
    return None


def _overlap(a: Span, b: Span) -> bool:
    return a[0] < b[1] and b[0] < a[1]
