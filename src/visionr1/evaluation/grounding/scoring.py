"""Replies to expressions, measured: what referring (`rec.py`) and generalised referring (`grec.py`) share.

Every metric is a ratio of two sums over samples, so that a resample of images only weighs the samples anew. Samples of
one image are drawn together: their expressions are not independent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from visionr1.boxes import Array, giou_matrix, iou_matrix, is_box, is_number, xywh_to_xyxy
from visionr1.dialects import Dialect
from visionr1.errors import DataError
from visionr1.evaluation.predictions import Prediction, Rows, is_replies, read_files, replies_dialect, replies_of
from visionr1.evaluation.protocols import ReplyProtocol, as_asked
from visionr1.evaluation.statistics import NUM_RESAMPLES, Difference, draws, percentiles
from visionr1.samples import Boxes, FaultKind, Reply, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundingProtocol(ReplyProtocol):
    """How a model is asked for what an expression names, read and scored."""

    comparison: Literal["at_least", "above"] = "at_least"
    """Whether an overlap of just `match_iou` is enough: mmdetection's `>=`, or `>` as Griffon and VLM-R1 have it."""
    overlap: Literal["iou", "giou"] = "iou"
    """What is compared: IoU, or generalised IoU as the authors of gRefCOCO do."""
    min_score: float = 0.0
    """Boxes of a results file below this score are left out; those of a reply have none and stay."""

    def line(self) -> str:
        """The protocol in one line, to stand under a number."""
        sign = ">=" if self.comparison == "at_least" else ">"
        score = f"boxes of score {self.min_score:g} or more; " if self.min_score and not self.dialect else ""
        said = self.reply_line("one expression a prompt")
        right = f"right at {self.overlap.replace('iou', 'IoU').replace('gI', 'GI')} {sign} {self.match_iou:g}"
        return f"protocol {self.name}: {said}{score}{right}; {self.metric}"

    def is_right(self, overlap: Array) -> NDArray[np.bool_]:
        """Whether an overlap makes a predicted box right."""
        found: NDArray[np.bool_] = (
            overlap >= self.match_iou if self.comparison == "at_least" else overlap > self.match_iou
        )
        return found

    def overlaps(self, found: Array, true: Array) -> Array:
        """The overlap (P, K) of predicted and true boxes xyxy."""
        return (iou_matrix if self.overlap == "iou" else giou_matrix)(found, true)


QWEN3_TEMPLATE = (
    'Locate every object that matches the description "{}" in the image. Report bbox coordinates in JSON format.'
)
VLM_R1_TEMPLATE = (
    "Please provide the bounding box coordinate of the region this sentence describes: {}. First output the thinking "
    "process in <think> </think> tags and then output the final answer in <answer> </answer> tags. Output the final "
    "answer in JSON format."
)

GROUNDING_DEFAULT = GroundingProtocol(name="default")
GREC_DEFAULT = GroundingProtocol(name="grec", min_score=0.7)

GROUNDING_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        GROUNDING_DEFAULT,
        GREC_DEFAULT,
        # henghuiding/gRefCOCO, mdetr/datasets/refexp.py: thresholds generalised IoU (its issue 9).
        replace(GREC_DEFAULT, name="grec_giou", overlap="giou"),
        # Vision-R1's and Griffon's evaluation (griffon/eval/eval_rec.py).
        GroundingProtocol(name="vision_r1", comparison="above"),
        # VLM-R1, src/eval/test_rec_r1.py. Its IoU subtracts 1 and adds 1 again: the ordinary one, but 0 for overlaps at
        # most one pixel wide or high.
        GroundingProtocol(name="vlm_r1", comparison="above", template=VLM_R1_TEMPLATE, max_new_tokens=256),
        GroundingProtocol(name="qwen3vl", template=QWEN3_TEMPLATE),
        # mmdetection's RefExpMetric, on files of boxes.
        GroundingProtocol(name="mmdet", decoding=""),
    )
}
"""By name, for benchmarks of expressions."""

Ratios = tuple[Array, Array]
"""Numerators and denominators of M metrics: (S, M) each, for S samples."""


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """What resamples need: the sums of numerators and denominators (I, M) over each of I images, in order."""

    names: tuple[str, ...]
    images: tuple[object, ...]
    over: Array
    under: Array

    def figures(self, times: NDArray[np.int64]) -> Array:
        """The metrics (R, M) of R sets in which image i stands `times[r, i]` times; nan where nothing is counted."""
        over, under = times @ self.over, times @ self.under
        values: Array = np.divide(over, under, out=np.full(over.shape, np.nan), where=under > 0)
        return values

    def metrics(self) -> dict[str, float]:
        """The figures of the set itself, those that nothing is counted for left out."""
        values = self.figures(np.ones((1, len(self.images)), dtype=np.int64))[0].tolist()
        return {name: value for name, value in zip(self.names, values, strict=True) if not np.isnan(value)}


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundingResult:
    """The figures of one set of predictions under one protocol; a metric that nothing is counted for is left out."""

    protocol: GroundingProtocol
    metrics: Mapping[str, float]
    interval: Mapping[str, tuple[float, float]]
    counts: Mapping[str, int]
    faults: Mapping[str, int]
    shares: Shares | None = field(default=None, compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return {
            "metrics": dict(self.metrics),
            "interval": {name: list(ends) for name, ends in self.interval.items()},
            "counts": dict(self.counts),
            "faults": dict(self.faults),
            "protocol": self.protocol.to_json(),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> GroundingResult:
        """The result in a stored record, without its shares."""
        return cls(
            protocol=GroundingProtocol.from_json(record["protocol"]),
            metrics=record["metrics"],
            interval={name: (low, high) for name, (low, high) in record["interval"].items()},
            counts=record["counts"],
            faults=record["faults"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundingMetric:
    """The metrics of a benchmark; the first is its headline and counts every sample.

    `ratios(boxes, truths, protocol)` takes the boxes xyxy of each of S samples, best first; `rule` says in words what
    it does with them.
    """

    names: tuple[str, ...]
    rule: str
    ratios: Callable[[Sequence[Array], Sequence[Array], GroundingProtocol], Ratios]


def score_grounding(
    samples: Sequence[Sample],
    predictions: Sequence[Prediction],
    metric: GroundingMetric,
    *,
    dialect: Dialect,
    protocol: GroundingProtocol,
    num_resamples: int | None = None,
) -> GroundingResult:
    """Figures of raw replies, one a sample by `sample_id`; a sample without a reply counts as one without boxes.

    Raises DataError for a reply to no sample or a second one, and where a size is missing to read boxes.
    """
    protocol = replace(protocol, dialect=dialect.name)
    places = {sample.id: place for place, sample in enumerate(samples)}
    replies: dict[int, Reply] = {}
    truncated = 0
    for prediction in predictions:
        place = _place(places, prediction.sample_id, "a reply")
        if place in replies:
            raise DataError(f"sample {prediction.sample_id!r}: expected one reply, found two")
        replies[place] = _read(samples[place], prediction, dialect)
        truncated += prediction.truncated or any(f.kind is FaultKind.TRUNCATED for f in replies[place].faults)
    nothing = Reply(Boxes.empty())
    said = [replies.get(place, nothing) for place in range(len(samples))]
    salvaged = [reply.boxes.xyxy for reply in said]
    strict = [reply.boxes.xyxy if reply.well_formed else nothing.boxes.xyxy for reply in said]
    result = _result(samples, strict if protocol.parse == "strict" else salvaged, metric, protocol, num_resamples)
    if protocol.parse == "salvage":
        headline = _shares(samples, strict, metric, protocol).metrics()[metric.names[0]]
        result = replace(result, metrics={**result.metrics, f"{metric.names[0]} strict": headline})
    kinds = [{fault.kind for fault in reply.faults} for reply in replies.values()]
    counts = {
        "replies": len(replies),
        "samples_without_reply": len(samples) - len(replies),
        "well_formed": sum(reply.well_formed for reply in replies.values()),
        "unparsable": sum(not reply.well_formed and not reply.num_predicted for reply in replies.values()),
        "truncated": truncated,
        "malformed_boxes": sum(reply.num_malformed for reply in replies.values()),
    }
    faults = dict(sorted(Counter(str(kind) for own in kinds for kind in own).items()))
    return replace(result, counts={**result.counts, **counts}, faults=faults)


def score_grounding_files(
    samples: Sequence[Sample],
    paths: Sequence[Path],
    metric: GroundingMetric,
    *,
    dialect: str | None,
    protocol: GroundingProtocol,
    num_resamples: int | None = None,
) -> GroundingResult:
    """Figures of the files of one evaluation: raw replies in `dialect`, or boxes.

    A row of boxes is `sample_id`, `bbox` xywh in original pixels, and `score`, 1 where it is left out; among equal
    scores the order of the file decides. Raises DataError naming the row.
    """
    files, asked = read_files(paths)
    if is_replies(files.values()):
        said, own, protocol = replies_of(files), replies_dialect(paths, dialect, asked), as_asked(protocol, asked)
        return score_grounding(samples, said, metric, dialect=own, protocol=protocol, num_resamples=num_resamples)
    protocol = replace(protocol, decoding="")
    return _result(samples, _boxes_of(files, samples, protocol), metric, protocol, num_resamples)


def paired_grounding(
    first: GroundingResult, second: GroundingResult, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, Difference]:
    """`second` minus `first` for each metric, both on the same resamples of the same images."""
    a, b = first.shares, second.shares
    if a is None or b is None or a.names != b.names or a.images != b.images or not np.array_equal(a.under, b.under):
        raise ValueError("paired results need the same metrics of the same samples")
    resampled = draws(len(a.images), num_resamples, seed)
    ranges = percentiles(a.names, b.figures(resampled) - a.figures(resampled))
    old, new = a.metrics(), b.metrics()
    return {name: Difference(new[name] - old[name], ends) for name, ends in ranges.items()}


def _place(places: Mapping[str, int], sample_id: str, what: str) -> int:
    if sample_id not in places:
        example = next(iter(places), "")
        raise DataError(f"{what} has sample_id {sample_id!r}, which is not of the set; its ids are like {example!r}")
    return places[sample_id]


def _read(sample: Sample, prediction: Prediction, dialect: Dialect) -> Reply:
    if not all(sample.size_wh):
        raise DataError(f"sample {sample.id!r}: width and height of its image are needed to read replies, but missing")
    size = prediction.input_size_wh
    if size is None and dialect.in_model_px:
        raise DataError(
            f"the reply to sample {sample.id!r} has no input_size_wh; boxes of dialect {dialect.name} are in pixels of "
            "the image as the model saw it, so its [width, height] must be given"
        )
    return dialect.parse(
        prediction.text,
        size_wh=sample.size_wh,
        input_size_wh=size or sample.size_wh,
        categories=sample.query.categories,
    )


def _boxes_of(files: Mapping[Path, Rows], samples: Sequence[Sample], protocol: GroundingProtocol) -> list[Array]:
    """The boxes xyxy of each sample, best first; DataError for a bad row, or a sample with boxes in two files."""
    places = {sample.id: place for place, sample in enumerate(samples)}
    found: list[list[tuple[float, list[float]]]] = [[] for _ in samples]
    owner: dict[int, Path] = {}
    for path, index, row in ((path, index, row) for path, rows in files.items() for index, row in enumerate(rows)):
        where = f"{path}: row {index}"
        place = _place(places, str(row.get("sample_id")), f"{where}: the box")
        if owner.setdefault(place, path) != path:
            raise DataError(f"{where}: {owner[place]} has boxes of sample {samples[place].id!r} too; leave one out")
        box, score = row.get("bbox"), row.get("score", 1.0)
        if not is_box(box):
            raise DataError(f"{where}: bbox: expected four finite numbers [x, y, width, height], found {box!r:.80}")
        if not is_number(score):
            raise DataError(f"{where}: score: expected a finite number, found {score!r:.60}")
        if score >= protocol.min_score:
            found[place].append((score, box))
    ranked = [sorted(own, key=lambda pair: -pair[0]) for own in found]
    return [xywh_to_xyxy(np.array([box for _, box in own], dtype=np.float64).reshape(-1, 4)) for own in ranked]


def _shares(
    samples: Sequence[Sample], boxes: Sequence[Array], metric: GroundingMetric, protocol: GroundingProtocol
) -> Shares:
    over, under = metric.ratios(boxes, [sample.truth.xyxy for sample in samples], protocol)
    rank = {image: place for place, image in enumerate(dict.fromkeys(sample.image_id for sample in samples))}
    of_sample = [rank[sample.image_id] for sample in samples]
    sums = [np.zeros((len(rank), len(metric.names))) for _ in range(2)]
    for total, part in zip(sums, (over, under), strict=True):
        np.add.at(total, of_sample, part)
    return Shares(metric.names, tuple(rank), *sums)


def _result(
    samples: Sequence[Sample],
    boxes: Sequence[Array],
    metric: GroundingMetric,
    protocol: GroundingProtocol,
    num_resamples: int | None,
) -> GroundingResult:
    shares = _shares(samples, boxes, metric, protocol)
    resamples = NUM_RESAMPLES if num_resamples is None else num_resamples
    drawn = shares.figures(draws(len(shares.images), resamples, 0)) if resamples else None
    return GroundingResult(
        protocol=replace(protocol, metric=metric.rule),
        metrics=shares.metrics(),
        interval={} if drawn is None else percentiles(shares.names, drawn),
        counts={
            "images": len(shares.images),
            "samples": len(samples),
            "true_boxes": sum(len(sample.truth) for sample in samples),
            "predicted_boxes": sum(map(len, boxes)),
        },
        faults={},
        shares=shares,
    )
