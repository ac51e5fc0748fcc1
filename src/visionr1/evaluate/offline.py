"""Scoring a file of predictions of any tool: no model, no image files, no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from typing import Protocol as TypingProtocol

import numpy as np

from visionr1.dialects import get_dialect
from visionr1.errors import DataError
from visionr1.evaluate.detection import DetectionResult, evaluate_boxes, evaluate_replies
from visionr1.evaluate.predictions import (
    Prediction,
    detections_of,
    is_replies,
    predictions_of,
    read_rows,
    write_predictions,
)
from visionr1.evaluate.protocols import COCO_RESULTS, DEFAULT, Protocol, read_protocol
from visionr1.files import write_json_atomic
from visionr1.readers import data_path
from visionr1.readers.coco import CocoTable, read_table


def evaluate_file(
    predictions: Path,
    data: str | Path,
    *,
    split: str | None = None,
    dialect: str | None = None,
    protocol: Protocol | Sequence[str] = (),
    num_resamples: int | None = None,
) -> DetectionResult:
    """Figures of COCO results, or of raw replies written in `dialect`, against a COCO file or folder.

    `protocol` is one, or settings for `read_protocol` that start from pycocotools' way for results and from the default
    for replies. Scores in a results file are kept unless the protocol's are constant. Raises DataError for a file, row
    or id that is wrong, for replies without a dialect, and for rank scores of a results file.
    """
    table = read_table(data_path(data), split=split)

    def chosen(is_replies: bool) -> Protocol:
        if isinstance(protocol, Protocol):
            return protocol
        return read_protocol(protocol, DEFAULT if is_replies else COCO_RESULTS)

    parts: dict[str, Sequence[int] | None] = {"": None}
    return score_file(predictions, table, parts, dialect=dialect, protocol=chosen, num_resamples=num_resamples)[""]


def score_file(
    predictions: Path,
    table: CocoTable,
    parts: Mapping[str, Sequence[int] | None],
    *,
    dialect: str | None,
    protocol: Callable[[bool], Protocol],
    num_resamples: int | None = None,
) -> dict[str, DetectionResult]:
    """As `evaluate_file`, against a table: a result for each of `parts`, positions of categories (None for all).

    `protocol(whether the file holds replies)` is asked once the file is read.
    """
    rows = read_rows(predictions)
    stated = protocol(is_replies(rows))
    if is_replies(rows):
        if dialect is None:
            raise DataError(f"{predictions} holds raw replies; say how they write boxes with --dialect, such as qwen25")
        score = partial(
            evaluate_replies, table, predictions_of(rows, predictions), dialect=get_dialect(dialect), protocol=stated
        )
        return {name: score(kept=kept, num_resamples=num_resamples) for name, kept in parts.items()}
    detections, num_unknown = detections_of(rows, table, predictions)
    if stated.scores == "constant":
        detections = replace(detections, score=np.full(len(detections), stated.constant_score))
    elif stated.scores != "file":
        raise DataError(f"protocol {stated.name}: scores={stated.scores} is for replies, not for a results file")
    results = {
        name: evaluate_boxes(table, detections, protocol=stated, kept=kept, num_resamples=num_resamples)
        for name, kept in parts.items()
    }
    unknown = {"unknown_categories": num_unknown}
    return {name: replace(result, counts={**result.counts, **unknown}) for name, result in results.items()}


def write_evaluation(
    folder: Path,
    name: str,
    result: Storable,
    predictions: Sequence[Prediction] | None,
    *,
    model: str,
    data: str,
    split: str | None,
    **more: str,
) -> Mapping[str, Any]:
    """Write NAME.json (the result and what it is of) and, of replies, NAME.predictions.jsonl; return the former."""
    record = {"model": model, "data": data, "split": split or "", **more, **result.to_json()}
    if predictions is not None:
        write_predictions(folder / f"{name}.predictions.jsonl", predictions)
    write_json_atomic(folder / f"{name}.json", record)
    return record


class Storable(TypingProtocol):
    """A result of any kind."""

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
