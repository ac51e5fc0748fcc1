"""Scoring a file of predictions of any tool: no model, no image files, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from visionr1.readers.coco import read_table


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
    rows = read_rows(predictions)
    if is_replies(rows):
        if dialect is None:
            raise DataError(f"{predictions} holds raw replies; say how they write boxes with --dialect, such as qwen25")
        return evaluate_replies(
            table,
            predictions_of(rows, predictions),
            dialect=get_dialect(dialect),
            protocol=_protocol(protocol, DEFAULT),
            num_resamples=num_resamples,
        )
    protocol = _protocol(protocol, COCO_RESULTS)
    detections, num_unknown = detections_of(rows, table, predictions)
    if protocol.scores == "constant":
        detections = replace(detections, score=np.full(len(detections), protocol.constant_score))
    elif protocol.scores != "file":
        raise DataError(f"protocol {protocol.name}: scores={protocol.scores} is for replies, not for a results file")
    result = evaluate_boxes(table, detections, protocol=protocol, num_resamples=num_resamples)
    return replace(result, counts={**result.counts, "unknown_categories": num_unknown})


def _protocol(said: Protocol | Sequence[str], base: Protocol) -> Protocol:
    return said if isinstance(said, Protocol) else read_protocol(said, base)


def write_evaluation(
    folder: Path,
    name: str,
    result: DetectionResult,
    predictions: Sequence[Prediction] | None,
    *,
    model: str,
    data: str,
    split: str | None,
) -> Mapping[str, Any]:
    """Write NAME.json (the result and what it is of) and, of replies, NAME.predictions.jsonl; return the former."""
    record = {"model": model, "data": data, "split": split or "", **result.to_json()}
    if predictions is not None:
        write_predictions(folder / f"{name}.predictions.jsonl", predictions)
    write_json_atomic(folder / f"{name}.json", record)
    return record
