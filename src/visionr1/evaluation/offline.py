"""Scoring a file of predictions of any tool: no model, no image files, no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from visionr1.boxes import xywh_to_xyxy
from visionr1.data import OnBad, data_path, truth_table
from visionr1.data.table import BoxTable
from visionr1.errors import DataError
from visionr1.evaluation.detection.scoring import DetectionResult, evaluate_boxes, evaluate_replies
from visionr1.evaluation.grounding.scoring import GroundingResult
from visionr1.evaluation.predictions import (
    Prediction,
    is_replies,
    merged_detections,
    read_files,
    replies_dialect,
    replies_of,
    write_predictions,
)
from visionr1.evaluation.protocols import COCO_RESULTS, DEFAULT, Protocol, as_asked, read_protocol
from visionr1.evaluation.reply_log import check_same
from visionr1.files import read_json, write_json_atomic


def evaluate_file(
    predictions: Path | Sequence[Path],
    data: str | Path | BoxTable,
    *,
    split: str | None = None,
    on_bad: OnBad = "raise",
    dialect: str | None = None,
    protocol: Protocol | Sequence[str] = (),
    num_resamples: int | None = None,
) -> DetectionResult:
    """Figures of COCO results, or of raw replies written in `dialect`, against a data set or its table.

    Several files are the shards of one evaluation. `protocol` is one, or settings for `read_protocol` that start from
    pycocotools' way for results and from the default for replies. Scores in a results file are kept unless the
    protocol's are constant. Raises DataError for a file, row or id that is wrong, for replies without a dialect, and
    for rank scores of a results file.
    """
    table = data if isinstance(data, BoxTable) else truth_table(data_path(data), split=split, on_bad=on_bad)
    files = [predictions] if isinstance(predictions, Path) else predictions

    def chosen(is_replies: bool) -> Protocol:
        if isinstance(protocol, Protocol):
            return protocol
        return read_protocol(protocol, DEFAULT if is_replies else COCO_RESULTS)

    parts: dict[str, Sequence[int] | None] = {"": None}
    return score_files(files, table, parts, dialect=dialect, protocol=chosen, num_resamples=num_resamples)[""]


def score_files(
    predictions: Sequence[Path],
    table: BoxTable,
    parts: Mapping[str, Sequence[int] | None],
    *,
    dialect: str | None,
    protocol: Callable[[bool], Protocol],
    num_resamples: int | None = None,
) -> dict[str, DetectionResult]:
    """As `evaluate_file`, against a table: a result for each of `parts`, positions of categories (None for all).

    `protocol(whether the files hold replies)` is asked once the files are read.
    """
    files, asked = read_files(predictions)
    stated = protocol(is_replies(files.values()))
    if is_replies(files.values()):
        said, own, stated = replies_of(files), replies_dialect(predictions, dialect, asked), as_asked(stated, asked)
        score = partial(evaluate_replies, table, said, dialect=own, protocol=stated)
        return {name: score(kept=kept, num_resamples=num_resamples) for name, kept in parts.items()}
    detections, num_unknown = merged_detections(files, table)
    if stated.scores == "constant":
        detections = replace(detections, score=np.full(len(detections), stated.constant_score))
    elif stated.scores != "file":
        raise DataError(f"protocol {stated.name}: scores={stated.scores} is for replies, not for a results file")
    results = {
        name: evaluate_boxes(table, detections, protocol=stated, kept=kept, num_resamples=num_resamples)
        for name, kept in parts.items()
    }
    sizes = table.sizes_wh[detections.image]
    beyond = (xywh_to_xyxy(detections.xywh)[:, 2:] > sizes + 1).any(axis=1) & sizes.all(axis=1)
    odd = {"unknown_categories": num_unknown, "boxes_beyond_image": int(beyond.sum())}
    return {name: replace(result, counts={**result.counts, **odd}) for name, result in results.items()}


def write_evaluation(
    folder: Path,
    name: str,
    result: DetectionResult | GroundingResult,
    predictions: Sequence[Prediction] | None,
    *,
    replies_of: Mapping[str, Any] | None = None,
    model: str,
    data: str,
    split: str,
    **more: Any,
) -> Mapping[str, Any]:
    """Write NAME.json (the result and what it is of) and, of replies, NAME.predictions.jsonl; return the former.

    Raises DataError rather than replace a result of anything else, or under another protocol.
    """
    facts = {"model": model, "data": data, "split": split, **more}
    record = {**facts, **result.to_json()}
    check_replaced(folder / f"{name}.json", {**facts, "protocol": record["protocol"]})
    if predictions is not None:
        write_predictions(folder / f"{name}.predictions.jsonl", predictions, replies_of)
    write_json_atomic(folder / f"{name}.json", record)
    return record


def check_replaced(path: Path, stated: Mapping[str, Any]) -> None:
    """Raise DataError if there is a result at `path` that is of something else than `stated`."""

    def flat(record: Mapping[str, Any]) -> dict[str, Any]:
        rules = {f"protocol {key}": value for key, value in record.get("protocol", {}).items() if key != "name"}
        return {key: record.get(key) for key in stated if key != "protocol"} | rules

    if path.exists():
        found = read_json(path)
        check_same(path, "a result", flat(json.loads(json.dumps(stated))), flat(found if type(found) is dict else {}))
