"""Detection, measured: COCO's figures with what they hide beside them.

A constant-score AP mixes how well boxes lie with how many were written, so AR, precision, recall and F1, the faults of
the replies and the number of boxes always stand beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionr1.boxes import Array, xyxy_to_xywh
from visionr1.data.table import BoxTable, Index, table_of
from visionr1.dialects import Dialect
from visionr1.dialects.qwen3 import Qwen3
from visionr1.dialects.qwen25 import Qwen25
from visionr1.errors import DataError
from visionr1.evaluation.asking import evenly
from visionr1.evaluation.detection.box_errors import NEAR, box_errors
from visionr1.evaluation.detection.coco import FIGURES, Detections, coco_figures, coco_matches, image_ranks
from visionr1.evaluation.detection.matching import match_boxes, overlaps
from visionr1.evaluation.detection.release_salvage import release_list
from visionr1.evaluation.detection.token_scores import token_scores
from visionr1.evaluation.predictions import Prediction
from visionr1.evaluation.protocols import DEFAULT, Protocol
from visionr1.evaluation.statistics import MAX_CATEGORIES, MAX_RESAMPLED, NUM_RESAMPLES, Matches, intervals
from visionr1.samples import FaultKind, Reply, Sample, Size, normalize_label

RANK_DECAY = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionResult:
    """The figures of one set of predictions under one protocol.

    `coco` are pycocotools' twelve; `strict` the same where a faulty reply counts as empty (None for files of boxes).
    `counts` are of replies and boxes, `faults` of replies by kind, `errors` of boxes by kind (see `errors.py`).
    `matches`, for intervals, and `detections`, for export, are not stored.
    """

    protocol: Protocol
    coco: tuple[float, ...]
    strict: tuple[float, ...] | None
    precision: float
    recall: float
    f1: float
    counts: Mapping[str, int]
    faults: Mapping[str, int]
    per_category: Mapping[str, Mapping[str, float]]
    interval: Mapping[str, tuple[float, float]]
    errors: Mapping[str, Any] = field(default_factory=dict)
    matches: Matches | None = field(default=None, compare=False, repr=False)
    detections: Detections | None = field(default=None, compare=False, repr=False)

    @property
    def metrics(self) -> dict[str, float]:
        """The headline figures by name."""
        named = dict(zip(FIGURES, self.coco, strict=True))
        return {
            "AP": named["AP"],
            "AP50": named["AP50"],
            "AP75": named["AP75"],
            f"AR{self.protocol.max_dets[-1]}": named["AR_100"],
            "precision": self.precision,
            "recall": self.recall,
            "F1": self.f1,
            **({"AP strict": self.strict[0]} if self.strict else {}),
        }

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object; `from_json` reads it."""
        return {
            "coco": list(self.coco),
            "metrics": self.metrics,
            "interval": {name: list(ends) for name, ends in self.interval.items()},
            "counts": dict(self.counts),
            "faults": dict(self.faults),
            "per_category": {name: dict(row) for name, row in self.per_category.items()},
            "errors": dict(self.errors),
            "strict": list(self.strict) if self.strict else None,
            "protocol": self.protocol.to_json(),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> DetectionResult:
        """The result in a stored record, without its matches."""
        metrics = record["metrics"]
        return cls(
            protocol=Protocol.from_json(record["protocol"]),
            coco=tuple(record["coco"]),
            strict=tuple(record["strict"]) if record["strict"] else None,
            precision=metrics["precision"],
            recall=metrics["recall"],
            f1=metrics["F1"],
            counts=record["counts"],
            faults=record["faults"],
            per_category=record["per_category"],
            interval={name: (low, high) for name, (low, high) in record["interval"].items()},
            errors=record.get("errors", {}),
        )


def evaluate_detection(
    samples: Sequence[Sample],
    predictions: Sequence[Prediction],
    *,
    dialect: Dialect,
    protocol: Protocol = DEFAULT,
    table: BoxTable | None = None,
    num_resamples: int | None = None,
) -> DetectionResult:
    """Figures of one reply per sample.

    `table` is the annotation file's, with its crowd regions and areas; else the samples' own boxes are the truth.
    Raises DataError if a sample has no prediction, has two, or a prediction is of no sample.
    """
    answered = Counter(prediction.sample_id for prediction in predictions)
    for sample in samples:
        if answered[sample.id] != 1:
            raise DataError(f"sample {sample.id!r}: expected one prediction, found {answered[sample.id]}")
    if len(samples) < len(predictions):
        unknown = set(answered) - {sample.id for sample in samples}
        raise DataError(f"{len(unknown)} predictions are of no sample of the set, such as {min(unknown)!r}")
    return evaluate_replies(
        table or table_of(samples), predictions, dialect=dialect, protocol=protocol, num_resamples=num_resamples
    )


def evaluate_replies(
    table: BoxTable,
    predictions: Sequence[Prediction],
    *,
    dialect: Dialect,
    protocol: Protocol = DEFAULT,
    num_resamples: int | None = None,
    kept: Sequence[int] | None = None,
) -> DetectionResult:
    """Figures of raw replies against an annotation file. An image without a reply counts as one without boxes.

    With `kept`, positions of categories, the figures are of those alone. A box counts for a category only if its own
    prompt asked for it; where prompts name only what their image holds, the protocol of the result says so. Raises
    DataError for an unknown image id, for a reply whose dialect needs a size that it does not have, and for a protocol
    that takes scores from a results file.
    """
    if protocol.scores == "file":
        raise DataError(f"protocol {protocol.name} takes scores from a results file, but these are replies; set scores")
    protocol = replace(protocol, dialect=dialect.name)
    if protocol.limit:
        table = table.take(evenly(range(len(table)), protocol.limit))
    places = {identity: index for index, identity in enumerate(table.image_ids)}
    read = partial(_parse, table=table, places=places, dialect=dialect, release=protocol.salvage == "release")
    replies = [read(prediction) for prediction in predictions]
    images = [places[prediction.image_id] for prediction in predictions]
    asked = [prediction.categories or table.categories for prediction in predictions]
    if protocol.categories == "all" and _is_hint(table, images, asked):
        protocol = replace(protocol, categories="present", name=f"{protocol.name} with categories=present")
    scores = _scores(predictions, replies, images, protocol, read)
    found, of_reply = _detections(table, images, replies, asked, scores)
    known = found.category >= 0
    detections = found.keep(known)
    well_formed = np.array([reply.well_formed for reply in replies], dtype=bool)
    strict = detections.keep(well_formed[of_reply[known]])
    names = {table.categories[place] for place in (range(len(table.categories)) if kept is None else kept)}
    concerned = np.array([kept is None or not names.isdisjoint(categories) for categories in asked], dtype=bool)
    stray = np.bincount(found.image[~known & concerned[of_reply]], minlength=len(table))
    np.add.at(stray, images, concerned * np.array([reply.num_malformed for reply in replies], dtype=np.int64))
    result = evaluate_boxes(
        table,
        strict if protocol.parse == "strict" else detections,
        protocol=protocol,
        stray=stray if protocol.parse == "salvage" else None,
        num_resamples=num_resamples,
        kept=kept,
    )
    return replace(
        result,
        strict=result.coco if protocol.parse == "strict" else coco_figures(table, strict, protocol, kept)[0],
        counts={
            **result.counts,
            **_reply_counts(predictions, replies),
            "images_without_reply": len(table) - len(set(images)),
            "prompts_answered_again": len(images) - len(set(zip(images, map(tuple, asked), strict=True))),
            "categories_asked": sum(map(len, asked)),
            "categories_times_images": len(table) * len(table.categories),
        },
        faults=dict(sorted(Counter(str(kind) for reply in replies for kind in _fault_kinds(reply)).items())),
    )


def _is_hint(table: BoxTable, images: Sequence[int], asked: Sequence[Sequence[str]]) -> bool:
    """Whether prompts name only categories that their image holds, so that naming one tells that it is there."""
    if sum(map(len, asked)) >= len(table) * len(table.categories):
        return False
    rows = zip(table.image.tolist(), table.category.tolist(), strict=True)
    present = {(image, normalize_label(table.categories[category])) for image, category in rows}
    return bool(asked) and all(
        (image, normalize_label(name)) in present for image, names in zip(images, asked, strict=True) for name in names
    )


def _reply_counts(predictions: Sequence[Prediction], replies: Sequence[Reply]) -> dict[str, int]:
    both = zip(predictions, replies, strict=True)
    return {
        "replies": len(replies),
        "well_formed": sum(reply.well_formed for reply in replies),
        "unparsable": sum(not reply.well_formed and not reply.num_predicted for reply in replies),
        "truncated": sum(said.truncated or FaultKind.TRUNCATED in _fault_kinds(reply) for said, reply in both),
        "unknown_labels": sum(f.kind is FaultKind.UNKNOWN_LABEL for reply in replies for f in reply.faults),
        "malformed_boxes": sum(reply.num_malformed for reply in replies),
    }


def _fault_kinds(reply: Reply) -> set[FaultKind]:
    return {fault.kind for fault in reply.faults}


def evaluate_boxes(
    table: BoxTable,
    detections: Detections,
    *,
    protocol: Protocol,
    stray: NDArray[np.int64] | None = None,
    num_resamples: int | None = None,
    kept: Sequence[int] | None = None,
) -> DetectionResult:
    """Figures of boxes, of whatever origin; with `kept`, positions of categories, of those alone.

    `stray` (N,) counts the boxes of each image that no category takes (unknown label, malformed): they cost
    precision. `num_resamples` are for the intervals: 0 for none; by default NUM_RESAMPLES, and none for more
    than MAX_RESAMPLED boxes or MAX_CATEGORIES categories, where they would take far longer than all else.
    """
    if num_resamples is None:
        few = len(detections) <= MAX_RESAMPLED and len(table.categories) <= MAX_CATEGORIES
        num_resamples = NUM_RESAMPLES if few else 0
    coco, aps = coco_figures(table, detections, protocol, kept)
    by_category = coco_matches(table, detections, protocol) if num_resamples else []
    if kept is not None:  # AP depends on the other categories too (suppression, a tree), the rest does not
        by_category = [by_category[place] for place in kept] if by_category else []
        detections = detections.of_categories(kept, len(table.categories))
        table = table.of_categories(kept)
    pairs = overlaps(table, detections, min(NEAR, protocol.match_iou))
    matching = match_boxes(table, detections, pairs, protocol.match_iou)
    counted = matching.counts(table, detections)
    if stray is not None:
        counted[:, 1] += stray
    right, predicted, true = counted.sum(axis=0).tolist()
    ranked = np.empty_like(counted)
    ranked[image_ranks(table, protocol.order)] = counted
    matches, interval = None, {}
    if num_resamples:
        matches = Matches(tuple(by_category), ranked, protocol.max_dets[-1])
        interval = intervals(matches, num_resamples=num_resamples)
    own = np.bincount(table.category[~table.iscrowd], minlength=len(table.categories))
    given = np.bincount(detections.category, minlength=len(table.categories))
    rows = zip(table.categories, aps.T.tolist(), own.tolist(), given.tolist(), strict=True)
    return DetectionResult(
        protocol=protocol,
        coco=coco,
        strict=None,
        precision=right / predicted if predicted else 0.0,
        recall=right / true if true else 0.0,
        f1=2 * right / (predicted + true) if predicted + true else 0.0,
        counts={
            "images": len(table),
            "true_boxes": true,
            "crowd_regions": int(table.iscrowd.sum()),
            "categories_without_truth": int((own == 0).sum()),
            "predicted_boxes": int(predicted),
        },
        faults={},
        per_category={
            name: {"AP": ap, "AP50": ap50, "true_boxes": num_true, "predicted_boxes": num_given}
            for name, (ap, ap50), num_true, num_given in rows
            if num_true or num_given
        },
        interval=interval,
        errors=box_errors(table, detections, pairs, matching, protocol.match_iou),
        matches=matches,
        detections=detections,
    )


def _parse(
    prediction: Prediction, table: BoxTable, places: Mapping[Any, int], dialect: Dialect, *, release: bool
) -> Reply:
    """The reply; with `release` its boxes are those that Vision-R1's release reads in JSON, its faults the same."""
    place = places.get(prediction.image_id)
    if place is None:
        raise DataError(f"a prediction has image_id {prediction.image_id!r}, which {table.path} does not have")
    width, height = table.sizes_wh[place].tolist()
    if not (width and height):
        raise DataError(
            f"{table.path}: image {prediction.image_id!r}: width, height: needed to read replies, but missing"
        )
    read = partial(
        dialect.parse,
        size_wh=(width, height),
        input_size_wh=_input_size(prediction, (width, height), dialect),
        categories=prediction.categories or table.categories,
    )
    reply = read(prediction.text)
    if release and isinstance(dialect, Qwen25 | Qwen3):
        whole = read(release_list(prediction.text))
        reply = replace(reply, boxes=whole.boxes, num_malformed=whole.num_malformed)
    return reply


def _input_size(prediction: Prediction, size_wh: Size, dialect: Dialect) -> Size:
    if not dialect.in_model_px:
        return prediction.input_size_wh or size_wh  # it reads the same whatever this is
    if prediction.input_size_wh is None:
        raise DataError(
            f"the prediction for image {prediction.image_id!r} has no input_size_wh; boxes of dialect {dialect.name} "
            "are in pixels of the image as the model saw it, so its [width, height] must be given"
        )
    return prediction.input_size_wh


def _scores(
    predictions: Sequence[Prediction],
    replies: Sequence[Reply],
    images: Sequence[int],
    protocol: Protocol,
    read: Callable[[Prediction], Reply],
) -> list[Array]:
    """The scores of the boxes of each reply; `read` reads one. Ranks go on over the replies to one image."""
    if protocol.scores == "token":
        return [
            token_scores(said, reply, lambda text: read(replace(said, text=text)))  # noqa: B023, called at once
            for said, reply in zip(predictions, replies, strict=True)
        ]
    if protocol.scores == "constant":
        return [np.full(len(reply.boxes), protocol.constant_score) for reply in replies]
    emitted: Counter[int] = Counter()
    scores: list[Array] = []
    for place, reply in zip(images, replies, strict=True):
        ranks = np.arange(emitted[place], emitted[place] + len(reply.boxes), dtype=np.float64)
        scores.append(1 - RANK_DECAY * ranks)
        emitted[place] += len(reply.boxes)
    return scores


def _detections(
    table: BoxTable,
    images: Sequence[int],
    replies: Sequence[Reply],
    asked: Sequence[Sequence[str]],
    scores: Sequence[Array],
) -> tuple[Detections, Index]:
    """The boxes in emission order, of category -1 where their label was not asked for, and each one's reply."""
    indexes = table.label_indexes(asked)
    image, category = [], []
    for place, reply, categories in zip(images, replies, map(tuple, asked), strict=True):
        index = indexes[categories]
        labels = [index.get(label.strip(), index.get(normalize_label(label), -1)) for label in reply.boxes.labels]
        image += [place] * len(labels)
        category += labels
    corners = np.concatenate([np.zeros((0, 4)), *(reply.boxes.xyxy for reply in replies)])
    found = Detections(
        np.array(image, dtype=np.intp),
        np.array(category, dtype=np.intp),
        xyxy_to_xywh(corners),
        np.concatenate([np.zeros(0), *scores]),
    )
    return found, np.repeat(np.arange(len(replies)), [len(reply.boxes) for reply in replies])
