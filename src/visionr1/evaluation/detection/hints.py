"""Say why a figure is 0 although there are boxes: a line beside the result, never a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from visionr1.boxes import xywh_to_xyxy
from visionr1.data.ids import Id, IdIndex
from visionr1.data.table import BoxTable, map_positions
from visionr1.evaluation.asking import evenly
from visionr1.evaluation.detection.scoring import evaluate_replies
from visionr1.evaluation.predictions import Prediction
from visionr1.evaluation.result import Result
from visionr1.evaluation.units import Answers, BoxFiles, Unit
from visionr1.rewards.hints import MOST_REPLIES, OtherSpace, RepliesWithTruth, explain_no_overlap
from visionr1.samples import Boxes, GroundTruth, normalize_label, normalized_labels


def explain_zero(unit: Unit, answers: Answers, results: Mapping[str, Result]) -> str:
    """Return one line that says why no box of the replies is right; empty if one is, or for files of boxes."""
    result = next(iter(results.values()))
    headline = result.metrics.get("F1", next(iter(result.metrics.values()), None))
    if isinstance(answers, BoxFiles) or headline != 0 or not answers.predictions:
        return ""

    completions = []
    knows_input_size = True
    truths = _Truths(unit)
    for prediction in evenly(answers.predictions, MOST_REPLIES):
        truth = truths.of(prediction)
        if truth is not None:
            completions.append((prediction.text, truth))
            knows_input_size = knows_input_size and prediction.input_size_wh is not None
    replies = RepliesWithTruth(answers.dialect, completions, knows_input_size)

    if "AP50" not in result.metrics:
        return explain_no_overlap(replies)

    def ap50_in_words(other: OtherSpace) -> str:
        """Say what COCO's figure would be in another space."""
        there = evaluate_replies(
            unit.table, answers.predictions, dialect=other.dialect, protocol=result.protocol, num_resamples=0
        )
        return f"as {other.dialect.name} AP50 would be {100 * there.metrics['AP50']:.1f}"

    return explain_no_overlap(replies, ap50_in_words)


class _Truths:
    """The true boxes of prompts, from a unit's samples or its table; ids are found as any tool may write them."""

    def __init__(self, unit: Unit) -> None:
        # Expressions are prompts of their own, detection asks for categories of the table.
        self.samples = [sample for sample in unit.samples if sample.query.task == "referring"]
        ids: Sequence[Id] = [sample.id for sample in self.samples]
        self.table: BoxTable | None = None
        if not self.samples:
            self.table = unit.table
            ids = unit.table.image_ids
        self.ids = IdIndex(ids)
        self.places = map_positions(ids)

    def of(self, prediction: Prediction) -> GroundTruth | None:
        """Return the truth of one prompt; None if the unit does not have its image."""
        identity = self.ids.find(prediction.sample_id if self.table is None else prediction.image_id)
        if identity is None:
            return None
        place = self.places[identity]
        if self.table is None:
            sample = self.samples[place]
            return sample.ground_truth(prediction.input_size_wh or sample.size_wh)
        return _make_truth(self.table, place, prediction)


def _make_truth(table: BoxTable, place: int, prediction: Prediction) -> GroundTruth | None:
    """Return the truth of a prompt about the image at `place`; None if its size is not known."""
    width, height = table.sizes_wh[place].tolist()
    if not width or not height:
        return None

    # A prompt is answered right by the boxes of the categories that it asked for.
    asked = tuple(prediction.categories or table.categories)
    known = normalized_labels(asked)
    rows = []
    labels = []
    for row in np.flatnonzero(table.image == place).tolist():
        label = table.categories[table.category[row]]
        if normalize_label(label) in known:
            rows.append(row)
            labels.append(label)
    boxes = Boxes(xywh_to_xyxy(table.xywh[rows]), tuple(labels))
    return GroundTruth(boxes, asked, (width, height), prediction.input_size_wh or (width, height))
