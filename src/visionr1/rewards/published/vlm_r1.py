"""Preset `vlm_r1`: the detection rewards of VLM-R1 (arXiv 2504.07615), as its public code (om-ai-lab/VLM-R1@90052f4).

The reply is `<think>..</think><answer>..</answer>`; the answer holds a ```json fence with a list of
{"bbox_2d": [x1, y1, x2, y2], "label": "name"}, or `None` where there is no object. K true and P predicted boxes, every
item of the list being a prediction:

- od_ap, od_ap50: COCO's AP and AP50 of this one image (`coco_precision.py`); the order of writing ranks the boxes.
- odLength: od_ap * min(1, K / P).
- map: as od_ap, of the last fence in the whole reply, with or without the answer's tags.
- weighted_sum: .7 * position + .3 * completeness; position is the sum of the matched pairs' IoUs over K, completeness
  1 - (share of true boxes missed + share of predicted boxes unmatched) / 2. Matching takes the best pair first, down to
  IoU .5; a pair of unequal labels has IoU 0.
- format: the two tags and nothing around.
- repetition: minus the share of items, or else of words in runs of six, that were there before.
- rec_iou, rec_format: referring expressions, where there is one true box: the first box of the first answer.

Right where the public code is wrong: an answer that cannot be read is no "None"; a box without label has a wrong label;
IoU is the true one for narrow overlaps; coordinates are rescaled to original pixels; nothing raises. `docs/parity.md`
lists the cases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Self

import numpy as np
from pydantic import Field, PlainValidator, field_validator, model_validator

from visionr1.boxes import iou_matrix, rescale_xyxy
from visionr1.dialects import Dialect, get_dialect
from visionr1.dialects.base import MAX_BOXES
from visionr1.dialects.think import Think
from visionr1.errors import RecipeError
from visionr1.rewards.presets import Preset
from visionr1.rewards.published.coco_precision import THRESHOLDS, average_precisions
from visionr1.rewards.published.vlm_r1_text import (
    blocks,
    last_fence,
    normalize_answer,
    read_box,
    read_first_items,
    read_label,
    read_list,
    says_no_object,
)
from visionr1.rewards.score import Score
from visionr1.rewards.stages import BEGINNER, Stage
from visionr1.samples import Boxes, GroundTruth, compose_text
from visionr1.settings import Section

DIALECTS = ("qwen25", "qwen3", "think+qwen25", "think+qwen3", "open-think+qwen25", "open-think+qwen3")
PARTS = ("od_ap", "od_ap50", "odLength", "map", "weighted_sum", "format", "repetition")
REC_PARTS = ("rec_iou", "rec_format")
OVD_WEIGHTS: Mapping[str, float] = MappingProxyType({"odLength": 1.0, "format": 1.0})
"""The rewards that VLM-R1 trains open-vocabulary detection with."""

_THINK_ANSWER = re.compile(r"</think>\s*+<answer>")
_FOUR_INTEGERS = re.compile(r"\[(\d+),\s*+(\d+),\s*+(\d+),\s*+(\d+)\]")
_RUN = 6  # repetition of plain text is counted in runs of six words


class VlmR1Options(Section):
    """Choose among the rewards that VLM-R1 is trained with."""

    weights: Mapping[str, float] = Field(default_factory=lambda: dict(OVD_WEIGHTS))
    """The rewards that make the total, and how much each counts: od_ap, od_ap50, odLength, map, weighted_sum, format,
    repetition, and for one true box rec_iou, rec_format."""

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, weights: Mapping[str, float]) -> Mapping[str, float]:
        unknown = set(weights) - {*PARTS, *REC_PARTS}
        if unknown:
            raise RecipeError(f"unknown rewards {sorted(unknown)}; known: {', '.join(PARTS + REC_PARTS)}")
        return weights


class VlmR1Reward(VlmR1Options):
    """Score completions as VLM-R1 does.

    `dialect` says what the coordinates of the JSON mean: qwen25 (model pixels) or qwen3 (0-1000). The tags are those of
    VLM-R1 whichever it is; for a model that is prompted by its dialect, take the one with think+, or open-think+ where
    the prompt ends in `<think>`.
    """

    dialect: Annotated[Dialect, PlainValidator(lambda dialect: dialect)] = Field(
        default_factory=lambda: get_dialect("qwen25")
    )

    @model_validator(mode="after")
    def _check_dialect(self) -> Self:
        if self.dialect.name not in DIALECTS:
            raise RecipeError(f"vlm_r1 reads the JSON of the dialects {', '.join(DIALECTS)}, not {self.dialect.name}")
        return self

    @property
    def maximum(self) -> float:
        """The largest total there can be; repetition is a penalty."""
        gains = []
        for name, weight in self.weights.items():
            if name != "repetition" and weight > 0:
                gains.append(weight)
        return sum(gains)

    def score(self, text: str, truth: GroundTruth, stage: Stage = BEGINNER) -> Score:
        """Score one completion; it has no stages.

        Parts are in [0, 1] but repetition, in [-1, 0]. Never raises on the text; ValueError if a REC reward that counts
        lacks its one true box.
        """
        # Where the prompt opens the thought, the public code would see the tag in front of the reply.
        if isinstance(self.dialect, Think) and self.dialect.opened:
            text = f"<think>{text}"

        grid_wh = self.dialect.grid_wh(size_wh=truth.size_wh, input_size_wh=truth.input_size_wh)
        answers = list(blocks(text, "<answer>", "</answer>"))
        parts = detection_rewards(text, answers, truth, grid_wh)
        parts["format"] = think_answer_format(text)
        parts["repetition"] = repetition(text)

        # A referring expression names one object; its reward reads the first answer, detection the last.
        if len(truth.boxes) == 1:
            first_answer = next(iter(answers), "")
            parts["rec_iou"] = rec_iou(first_answer, truth, grid_wh)
            parts["rec_format"] = rec_format(text)
        missing = set(self.weights) - set(parts)
        if missing:
            raise ValueError(f"{sorted(missing)} need exactly one true box, but there are {len(truth.boxes)}")

        return Score(
            total=sum(weight * parts[name] for name, weight in self.weights.items()),
            parts=parts,
            notes=tuple(list_faults(text)),
            note_kind="vlm_r1",
            num_predicted=len(read_list(last_fence(text)) or ()),
        )


def detection_rewards(
    text: str,
    answers: list[str],
    truth: GroundTruth,
    grid_wh: tuple[float, float],
) -> dict[str, float]:
    """Return od_ap, od_ap50, odLength, map and weighted_sum; `answers` are the <answer> blocks of `text`."""
    # Without tags the whole text is read, which counts for map and weighted_sum alone.
    answer = text
    is_tagged = 0.0
    if answers:
        answer = answers[-1]
        is_tagged = 1.0

    answer_fence = last_fence(answer)
    items = read_list(answer_fence)
    precisions = _score_items(answer, items, truth, grid_wh)
    mean_precision = sum(precisions) / len(precisions)
    length_factor = 1.0
    if items:
        length_factor = min(1.0, len(truth.boxes) / len(items))

    # `map` reads the last fence of the whole text; most often it is the answer's, which was scored already.
    text_fence = last_fence(text)
    text_precisions = precisions
    if text_fence != answer_fence:
        text_precisions = _score_items(text_fence, read_list(text_fence), truth, grid_wh)

    return {
        "od_ap": mean_precision * is_tagged,
        "od_ap50": precisions[0] * is_tagged,
        "odLength": mean_precision * length_factor * is_tagged,
        "map": sum(text_precisions) / len(text_precisions),
        "weighted_sum": weighted_sum(normalize_answer(answer), truth, grid_wh),
    }


def weighted_sum(answer: str, truth: GroundTruth, grid_wh: tuple[float, float]) -> float:
    """Return VLM-R1's weighted sum of position and completeness; `answer` is as `normalize_answer` leaves it."""
    if not len(truth.boxes):
        return float(answer == "none")
    items = read_list(next(blocks(answer, "```json", "```"), ""))
    if not items:
        return 0.0

    boxes = [read_box(item) or [0.0] * 4 for item in items[:MAX_BOXES]]
    predicted_xyxy = rescale_xyxy(np.array(boxes, dtype=np.float64), grid_wh, truth.size_wh)
    iou = iou_matrix(predicted_xyxy, truth.boxes.xyxy)

    # Match greedily, the best pair first; a pair of unequal labels takes its boxes but has IoU 0.
    rows, columns = np.nonzero(iou >= 0.5)
    best_first = np.argsort(-iou[rows, columns], kind="stable")
    free_rows = set(range(len(items)))
    free_columns = set(range(len(truth.boxes)))
    true_labels = [compose_text(label).lower() for label in truth.boxes.labels]
    position = 0.0
    for row, column in zip(rows[best_first].tolist(), columns[best_first].tolist(), strict=True):
        if row not in free_rows or column not in free_columns:
            continue
        free_rows.remove(row)
        free_columns.remove(column)
        label = read_label(items[row])
        if label is not None and label.lower() == true_labels[column]:
            position += float(iou[row, column])

    share_missed = len(free_columns) / len(truth.boxes)
    share_unmatched = len(free_rows) / len(items)
    completeness = 1.0 - (share_missed + share_unmatched) / 2.0
    return 0.7 * position / len(truth.boxes) + 0.3 * completeness


def think_answer_format(text: str) -> float:
    """Return 1 for <think>..</think><answer>..</answer>, white space between the two and nothing around; else 0."""
    if not text.startswith("<think>") or not text.endswith("</answer>"):
        return 0.0
    between = _THINK_ANSWER.search(text, len("<think>"))
    return float(between is not None and between.end() <= len(text) - len("</answer>"))


def repetition(text: str) -> float:
    """Return minus the share of items (box and label) that repeat one; without a list, of runs of six words."""
    items: Sequence[object] | None = read_first_items(text)
    if items is None:
        words = text.lower().split()
        shifted = [words[start:] for start in range(_RUN)]
        items = list(zip(*shifted, strict=False))
    if not items:
        return 0.0
    return len(set(items)) / len(items) - 1.0


def list_faults(text: str) -> Iterator[str]:
    """Say in words why a reply scores less than its boxes deserve."""
    answers = list(blocks(text, "<answer>", "</answer>"))
    answer = text
    if answers:
        answer = answers[-1]
    fence = last_fence(answer)
    if not answers:
        yield "no <answer>..</answer>: od_ap, od_ap50 and odLength are 0"
    if not fence and not says_no_object(answer, None):
        yield "no ```json fence: nothing is read as a box"
    elif fence and read_list(fence) is None:
        yield "what the last ```json fence holds is no JSON list: nothing is read as a box"
    if not think_answer_format(text):
        yield "not <think>..</think><answer>..</answer> with nothing around: format is 0"


def rec_iou(answer: str, truth: GroundTruth, grid_wh: tuple[float, float]) -> float:
    """Return the IoU of the true box with the first [x1, y1, x2, y2] of integers in `answer`; 0 without one."""
    numbers = _FOUR_INTEGERS.search(answer)
    if numbers is None:
        return 0.0
    # Integers of any length may stand there; none so large is inside an image.
    box = np.array([[min(float(number), 1e9) for number in numbers.groups()]])
    predicted_xyxy = rescale_xyxy(box, grid_wh, truth.size_wh)
    return float(iou_matrix(predicted_xyxy, truth.boxes.xyxy[:1])[0, 0])


def rec_format(text: str) -> float:
    """Return 1 if `text` holds <think>..</think><answer>..{..[four integers]..}..</answer>, else 0."""
    # Each search begins where the last ended: one regular expression would take time quadratic in the text.
    think = text.find("<think>")
    if think < 0:
        return 0.0
    between = _THINK_ANSWER.search(text, think + len("<think>"))
    if between is None:
        return 0.0
    opening = text.find("{", between.end())
    if opening < 0:
        return 0.0
    box = _FOUR_INTEGERS.search(text, opening + 1)
    if box is None:
        return 0.0
    closing = text.find("}", box.end())
    return float(closing >= 0 and text.find("</answer>", closing) >= 0)


def _score_items(
    answer: str,
    items: list[object] | None,
    truth: GroundTruth,
    grid_wh: tuple[float, float],
) -> list[float]:
    """Return AP at each threshold; where no object is, 1 if `answer` says so and `items` has none.

    Items without a label of the truth or without four numbers are no boxes of any class.
    """
    if not len(truth.boxes):
        return [float(says_no_object(answer, items))] * len(THRESHOLDS)

    # Composed, as a model can write them (NFC).
    true = Boxes(truth.boxes.xyxy, tuple(map(compose_text, truth.boxes.labels)))
    true_labels = set(true.labels)
    boxes = []
    labels = []
    for item in items or ():
        label = read_label(item)
        if label is None or label not in true_labels:
            continue
        box = read_box(item)
        if box is not None:
            boxes.append(box)
            labels.append(label)

    predicted = Boxes.of(boxes, labels)
    predicted_xyxy = rescale_xyxy(predicted.xyxy, grid_wh, truth.size_wh)
    return average_precisions(Boxes(predicted_xyxy, predicted.labels), true)


def _build(options: VlmR1Options, dialect: Dialect) -> VlmR1Reward:
    return VlmR1Reward(**dict(options), dialect=dialect)


PRESET = Preset("vlm_r1", options=VlmR1Options, build=_build, dialects=DIALECTS, stage_options=None)
