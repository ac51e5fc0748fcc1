"""Metrics that are ratios of two sums over samples: what `metrics/rec.py` and `metrics/grec.py` share.

A resample of images then only weighs the samples anew. Samples of one image are drawn together: their expressions are
not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visionr1.boxes import Array, giou_matrix, iou_matrix, is_box, is_number, xywh_to_xyxy
from visionr1.data.ids import Id, IdIndex
from visionr1.dialects import Dialect
from visionr1.errors import DataError, short_repr
from visionr1.evaluation.asking import ask
from visionr1.evaluation.detection.replies import count_faults, count_replies, input_size_of
from visionr1.evaluation.predictions import JsonRows, Prediction
from visionr1.evaluation.protocols import Protocol
from visionr1.evaluation.result import Result
from visionr1.evaluation.statistics import NUM_RESAMPLES, intervals
from visionr1.evaluation.units import Answers, BoxFiles, Replies, Unit
from visionr1.samples import Boxes, Reply, Sample

Ratios = tuple[Array, Array]
"""Numerators and denominators of M metrics: (S, M) each, for S samples."""


@dataclass(frozen=True, slots=True, eq=False)
class RatioResampler:
    """The sums of numerators and denominators (N, M) over each of N images, in order."""

    names: tuple[str, ...]
    images: tuple[object, ...]
    numerators: Array
    denominators: Array

    def __len__(self) -> int:
        return len(self.images)

    def figures(self, times: NDArray[np.int64]) -> Array:
        """Return the metrics (R, M) of R sets in which image i stands `times[r, i]` times; nan without any count."""
        numerators = times @ self.numerators
        denominators = times @ self.denominators
        empty = np.full(numerators.shape, np.nan)
        values: Array = np.divide(numerators, denominators, out=empty, where=denominators > 0)
        return values

    def check_pairs_with(self, other: object) -> None:
        """Raise ValueError unless `other` has the same metrics of the same samples."""
        if (
            not isinstance(other, RatioResampler)
            or (self.names, self.images) != (other.names, other.images)
            or not np.array_equal(self.denominators, other.denominators)
        ):
            raise ValueError("paired results need the same metrics of the same samples")

    def metrics(self) -> dict[str, float]:
        """Return the figures of the set itself, those that nothing is counted for left out."""
        once = np.ones((1, len(self.images)), dtype=np.int64)
        values = self.figures(once)[0].tolist()
        metrics = {}
        for name, value in zip(self.names, values, strict=True):
            if not np.isnan(value):
                metrics[name] = value
        return metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioScore:
    """The `score` of a metric whose figures are ratios; the first of `names` is the headline and counts every sample.

    `ratios(boxes, truths, protocol)` takes the boxes xyxy of each of S samples, best first, and the true ones.
    """

    names: tuple[str, ...]
    rule: str
    """In words, what `ratios` does with the boxes."""
    ratios: Callable[[Sequence[Array], Sequence[Array], Protocol], Ratios]

    def __call__(
        self, unit: Unit, answers: Answers, protocol: Protocol, num_resamples: int | None
    ) -> dict[str, Result]:
        """Score raw replies, or files of boxes, by sample id; a sample without an answer is one without boxes.

        A row of a file is `sample_id`, `bbox` xywh in original pixels, and `score`, 1 where it is left out; among equal
        scores the order of the file decides. Raises DataError for a bad row, a reply to no sample or a second one, and
        where a size is missing to read boxes.
        """
        # One sample for each prompt; of a limit only those that were asked.
        samples = ask(unit.samples, protocol)
        if isinstance(answers, BoxFiles):
            boxes = _read_boxes(answers.files, samples, protocol)
            protocol = replace(protocol, decoding="")
            return {unit.name: self._result(samples, boxes, protocol, num_resamples)}
        return {unit.name: self._score_replies(samples, answers, protocol, num_resamples)}

    def _score_replies(
        self, samples: Sequence[Sample], answers: Replies, protocol: Protocol, num_resamples: int | None
    ) -> Result:
        """Score raw replies; beside salvaged boxes the headline of the strict ones, of well-formed replies alone."""
        protocol = replace(protocol, dialect=answers.dialect.name)
        parsed = _parse_replies(samples, answers)
        no_reply = Reply(Boxes.empty())
        salvaged = []
        strict = []
        for place in range(len(samples)):
            reply = parsed.get(place, no_reply)
            salvaged.append(reply.boxes.xyxy)
            if not reply.well_formed:
                reply = no_reply
            strict.append(reply.boxes.xyxy)

        if protocol.parse == "strict":
            result = self._result(samples, strict, protocol, num_resamples)
        else:
            result = self._result(samples, salvaged, protocol, num_resamples)
        metrics = dict(result.metrics)
        if protocol.parse == "salvage":
            headline = self.names[0]
            strict_metrics = self._resampler(samples, strict, protocol).metrics()
            metrics[f"{headline} strict"] = strict_metrics[headline]

        # An expression is no label: there are no unknown ones to count.
        counts = count_replies(answers.predictions, list(parsed.values()))
        del counts["unknown_labels"]
        counts["samples_without_reply"] = len(samples) - len(parsed)
        return replace(
            result,
            metrics=metrics,
            counts={**result.counts, **counts},
            faults=count_faults(list(parsed.values())),
        )

    def _result(
        self, samples: Sequence[Sample], boxes: Sequence[Array], protocol: Protocol, num_resamples: int | None
    ) -> Result:
        """Score the boxes xyxy of each sample; `num_resamples` as in a metric's `score`."""
        resampler = self._resampler(samples, boxes, protocol)
        if num_resamples is None:
            num_resamples = NUM_RESAMPLES
        truths = [sample.truth for sample in samples]
        return Result(
            protocol=replace(protocol, metric=self.rule),
            metrics=resampler.metrics(),
            interval=intervals(resampler, num_resamples=num_resamples) if num_resamples else {},
            counts={
                "images": len(resampler),
                "samples": len(samples),
                "true_boxes": sum(map(len, truths)),
                "predicted_boxes": sum(map(len, boxes)),
            },
            resampler=resampler,
        )

    def _resampler(self, samples: Sequence[Sample], boxes: Sequence[Array], protocol: Protocol) -> RatioResampler:
        """Sum the ratios of the samples of each image."""
        truths = [sample.truth.xyxy for sample in samples]
        numerators, denominators = self.ratios(boxes, truths, protocol)

        # Images in the order in which the samples name them first.
        places: dict[object, int] = {}
        image_of_sample = []
        for sample in samples:
            image_of_sample.append(places.setdefault(sample.image_key, len(places)))

        image_numerators = np.zeros((len(places), len(self.names)))
        image_denominators = np.zeros((len(places), len(self.names)))
        np.add.at(image_numerators, image_of_sample, numerators)
        np.add.at(image_denominators, image_of_sample, denominators)
        return RatioResampler(self.names, tuple(places), image_numerators, image_denominators)


def is_right(overlap: Array, protocol: Protocol) -> NDArray[np.bool_]:
    """Mark the overlaps that make a predicted box right under the protocol."""
    right: NDArray[np.bool_]
    right = overlap >= protocol.match_iou if protocol.comparison == "at_least" else overlap > protocol.match_iou
    return right


def overlap_matrix(predicted: Array, true: Array, protocol: Protocol) -> Array:
    """Return the overlap (P, K) of predicted and true boxes xyxy that the protocol compares."""
    if protocol.overlap == "iou":
        return iou_matrix(predicted, true)
    return giou_matrix(predicted, true)


def _parse_replies(samples: Sequence[Sample], answers: Replies) -> dict[int, Reply]:
    """Parse the replies by position of their sample, in the order of the replies."""
    places = _Places(samples)
    parsed: dict[int, Reply] = {}
    for prediction in answers.predictions:
        place = places.find(prediction.sample_id, "a reply")
        if place in parsed:
            raise DataError(f"sample {prediction.sample_id!r}: expected one reply, found two")
        parsed[place] = _parse(samples[place], prediction, answers.dialect)
    return parsed


class _Places:
    """The positions of samples, by their ids as any tool may write them."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._places: dict[Id, int] = {sample.id: place for place, sample in enumerate(samples)}
        self._ids = IdIndex(self._places)

    def find(self, sample_id: object, what: str) -> int:
        """Return the position of a sample; DataError, beginning with `what` names it, if the set does not have it."""
        identity = self._ids.find(sample_id)
        if identity is None:
            example = next(iter(self._places), "")
            found = f"sample_id {short_repr(sample_id)}"
            raise DataError(f"{what} has {found}, which is not of the set; its ids are like {example!r}")
        return self._places[identity]


def _parse(sample: Sample, prediction: Prediction, dialect: Dialect) -> Reply:
    """Parse one reply; DataError if the size of its image is missing."""
    if not all(sample.size_wh):
        raise DataError(f"sample {sample.id!r}: width and height of its image are needed to read replies, but missing")
    return dialect.parse(
        prediction.text,
        size_wh=sample.size_wh,
        input_size_wh=input_size_of(prediction, sample.size_wh, dialect, f"the reply to sample {sample.id!r}"),
        categories=sample.query.categories,
    )


def _read_boxes(files: Mapping[Path, JsonRows], samples: Sequence[Sample], protocol: Protocol) -> list[Array]:
    """Return the boxes xyxy of each sample, best first; DataError for a bad row, or a sample in two files."""
    places = _Places(samples)
    scored: list[list[tuple[float, list[float]]]] = [[] for _ in samples]
    file_of_sample: dict[int, Path] = {}
    for path, rows in files.items():
        for index, row in enumerate(rows):
            where = f"{path}: row {index}"
            place = places.find(row.get("sample_id"), f"{where}: the box")

            # Ranks over two files would depend on their order.
            if file_of_sample.setdefault(place, path) != path:
                raise DataError(
                    f"{where}: {file_of_sample[place]} has boxes of sample {samples[place].id!r} too; leave one out"
                )

            box = row.get("bbox")
            score = row.get("score", 1.0)
            if not is_box(box):
                raise DataError(
                    f"{where}: bbox: expected four finite numbers [x, y, width, height], found {short_repr(box)}"
                )
            if not is_number(score):
                raise DataError(f"{where}: score: expected a finite number, found {short_repr(score)}")
            if score >= protocol.min_score:
                scored[place].append((score, box))

    # Sorting is stable: among equal scores the order of the file decides.
    boxes = []
    for rows_of_sample in scored:
        rows_of_sample.sort(key=lambda scored_box: -scored_box[0])
        xywh = np.array([box for _, box in rows_of_sample], dtype=np.float64).reshape(-1, 4)
        boxes.append(xywh_to_xyxy(xywh))
    return boxes
