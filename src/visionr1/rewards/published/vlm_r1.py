"""Preset `vlm_r1`: the detection rewards of VLM-R1 (arXiv 2504.07615), as its public code (om-ai-lab/VLM-R1@90052f4).

The reply is `<think>..</think><answer>..</answer>`; the answer holds a ```json fence with a list of
{"bbox_2d": [x1, y1, x2, y2], "label": "name"}, or `None` where there is no object. K true and P predicted boxes, every
item of the list being a prediction:

- od_ap, od_ap50: COCO's AP and AP50 of this one image. All boxes score alike, so the order of writing ranks them.
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

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Self

import numpy as np
from pydantic import Field, PlainValidator, field_validator, model_validator

from visionr1.boxes import Array, box_area, iou_matrix, rescale_xyxy
from visionr1.dialects import Dialect, get_dialect
from visionr1.dialects.base import MAX_BOXES
from visionr1.dialects.json_list import salvage_objects
from visionr1.errors import RecipeError
from visionr1.rewards.presets import Preset
from visionr1.rewards.score import Score
from visionr1.rewards.stages import BEGINNER, Stage
from visionr1.samples import Boxes, GroundTruth
from visionr1.settings import Section

DIALECTS = ("qwen25", "qwen3", "think+qwen25", "think+qwen3")
PARTS = ("od_ap", "od_ap50", "odLength", "map", "weighted_sum", "format", "repetition")
REC_PARTS = ("rec_iou", "rec_format")
OVD_WEIGHTS: Mapping[str, float] = MappingProxyType({"odLength": 1.0, "format": 1.0})
"""What VLM-R1 trains open-vocabulary detection with."""

_THRESHOLDS = np.linspace(0.5, 0.95, 10).tolist()
_RECALLS = np.linspace(0.0, 1.0, 101)
_MAX_DETECTIONS = 100  # COCO's maxDets, per class
_LARGEST_AREA = 1e10  # COCO's areaRng "all"; an unmatched box outside of 0 to this is left out

_THINK_ANSWER = re.compile(r"</think>\s*+<answer>")
_FOUR_INTEGERS = re.compile(r"\[(\d+),\s*+(\d+),\s*+(\d+),\s*+(\d+)\]")
_LIST_START, _LIST_END = re.compile(r"\[\s*+\{"), re.compile(r"\}\s*+\]")
_WORDS = 6  # repetition of plain text is counted in runs of six words


class VlmR1Options(Section):
    """What VLM-R1 is trained with."""

    weights: Mapping[str, float] = Field(default_factory=lambda: dict(OVD_WEIGHTS))
    """Which rewards make the total, and how much each counts: od_ap, od_ap50, odLength, map, weighted_sum, format,
    repetition, and for one true box rec_iou, rec_format."""

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, weights: Mapping[str, float]) -> Mapping[str, float]:
        if unknown := set(weights) - {*PARTS, *REC_PARTS}:
            raise RecipeError(f"unknown rewards {sorted(unknown)}; known: {', '.join(PARTS + REC_PARTS)}")
        return weights


class VlmR1Reward(VlmR1Options):
    """VLM-R1's rewards.

    `dialect` says what the coordinates of the JSON mean: qwen25 (model pixels) or qwen3 (0-1000). The tags are those of
    VLM-R1 whichever it is; for a model that is prompted by its dialect, take the one with think+.
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
        return sum(weight for name, weight in self.weights.items() if name != "repetition" and weight > 0)

    def score(self, text: str, truth: GroundTruth, stage: Stage = BEGINNER) -> Score:
        """Score one completion; it has no stages.

        Parts are in [0, 1] but repetition, in [-1, 0]. Never raises on the text; ValueError if a REC reward that counts
        lacks its one true box.
        """
        grid_wh, answers = self.dialect.grid_wh(truth.input_size_wh), list(_blocks(text, "<answer>", "</answer>"))
        parts = detection_rewards(text, answers, truth, grid_wh)
        parts["format"] = think_answer_format(text)
        parts["repetition"] = repetition(text)
        if len(truth.boxes) == 1:
            parts["rec_iou"] = rec_iou(answers[0] if answers else "", truth, grid_wh)
            parts["rec_format"] = rec_format(text)
        if missing := set(self.weights) - set(parts):
            raise ValueError(f"{sorted(missing)} need exactly one true box, but there are {len(truth.boxes)}")
        total = sum(weight * parts[name] for name, weight in self.weights.items())
        return Score(
            total,
            parts,
            notes=tuple(faults(text)),
            note_kind="vlm_r1",
            num_predicted=len(_read_list(_last_fence(text)) or ()),
        )


def detection_rewards(
    text: str, answers: list[str], truth: GroundTruth, grid_wh: tuple[float, float]
) -> dict[str, float]:
    """od_ap, od_ap50, odLength, map and weighted_sum; `answers` are the <answer> blocks of `text`."""
    answer, answered = (answers[-1], 1.0) if answers else (text, 0.0)
    fence, last_fence = _last_fence(answer), _last_fence(text)
    items = _read_list(fence)
    ap = _average_precisions(answer, items, truth, grid_wh)
    of_text = ap if last_fence == fence else _average_precisions(last_fence, _read_list(last_fence), truth, grid_wh)
    mean = sum(ap) / len(ap)
    shorter = min(1.0, len(truth.boxes) / len(items)) if items else 1.0
    return {
        "od_ap": mean * answered,
        "od_ap50": ap[0] * answered,
        "odLength": mean * shorter * answered,
        "map": sum(of_text) / len(of_text),
        "weighted_sum": weighted_sum(_clean(answer), truth, grid_wh),
    }


def average_precisions(predicted: Boxes, true: Boxes) -> list[float]:
    """COCO's AP of one image at IoU .5, .55, ... .95: the mean over the classes of the true boxes.

    All predicted boxes score alike, so their order ranks them. Labels must be equal to the letter. Equal to pycocotools
    with areas "all" and maxDets 100.
    """
    names = list(dict.fromkeys(true.labels))
    total = [0.0] * len(_THRESHOLDS)
    for name in names:
        rows = [row for row, label in enumerate(predicted.labels) if label == name][:_MAX_DETECTIONS]
        columns = [column for column, label in enumerate(true.labels) if label == name]
        if rows:
            for index, ap in enumerate(_class_precisions(predicted.xyxy[rows], true.xyxy[columns])):
                total[index] += ap
    return [ap / len(names) for ap in total]


def weighted_sum(answer: str, truth: GroundTruth, grid_wh: tuple[float, float]) -> float:
    """VLM-R1's weighted sum of position and completeness; `answer` is in lower case, as `_clean` leaves it."""
    if not len(truth.boxes):
        return float(answer == "none")
    items = _read_list(next(_blocks(answer, "```json", "```"), "")) or []
    if not items:
        return 0.0
    boxes = [_numbers(item) or [0.0] * 4 for item in items[:MAX_BOXES]]
    true = truth.boxes.xyxy
    iou = iou_matrix(rescale_xyxy(np.array(boxes, dtype=np.float64), grid_wh, truth.size_wh), true)
    rows, columns = np.nonzero(iou >= 0.5)
    best_first = np.argsort(-iou[rows, columns], kind="stable")
    free_rows, free_columns, position = set(range(len(items))), set(range(len(true))), 0.0
    for row, column in zip(rows[best_first].tolist(), columns[best_first].tolist(), strict=True):
        if row in free_rows and column in free_columns:
            free_rows.remove(row)
            free_columns.remove(column)
            if _label(items[row]) == truth.boxes.labels[column].lower():
                position += float(iou[row, column])
    missed, too_many = len(free_columns) / len(true), len(free_rows) / len(items)
    return 0.7 * position / len(true) + 0.3 * (1.0 - (missed + too_many) / 2.0)


def think_answer_format(text: str) -> float:
    """1 if `text` is <think>..</think><answer>..</answer>, with white space between the two and nothing around."""
    if not text.startswith("<think>") or not text.endswith("</answer>"):
        return 0.0
    between = _THINK_ANSWER.search(text, len("<think>"))
    return float(between is not None and between.end() <= len(text) - len("</answer>"))


def repetition(text: str) -> float:
    """Minus the share of items (box and label) that were said before; without a list, of runs of six words."""
    said: Sequence[object] | None = _said_items(text)
    if said is None:
        words = text.lower().split()
        said = list(zip(*(words[start:] for start in range(_WORDS)), strict=False))
    return len(set(said)) / len(said) - 1.0 if said else 0.0


def faults(text: str) -> Iterator[str]:
    """Why a reply scores less than its boxes deserve, in words."""
    answers = list(_blocks(text, "<answer>", "</answer>"))
    answer = answers[-1] if answers else text
    fence = _last_fence(answer)
    if not answers:
        yield "no <answer>..</answer>: od_ap, od_ap50 and odLength are 0"
    if not fence and not _says_nothing(answer, None):
        yield "no ```json fence: nothing is read as a box"
    elif fence and _read_list(fence) is None:
        yield "what the last ```json fence holds is no JSON list: nothing is read as a box"
    if not think_answer_format(text):
        yield "not <think>..</think><answer>..</answer> with nothing around: format is 0"


def rec_iou(answer: str, truth: GroundTruth, grid_wh: tuple[float, float]) -> float:
    """The IoU of the true box with the first [x1, y1, x2, y2] of integers in `answer`; 0 without one."""
    found = _FOUR_INTEGERS.search(answer)
    if found is None:
        return 0.0
    box = np.array([[min(float(number), 1e9) for number in found.groups()]])
    return float(iou_matrix(rescale_xyxy(box, grid_wh, truth.size_wh), truth.boxes.xyxy[:1])[0, 0])


def rec_format(text: str) -> float:
    """1 if `text` holds <think>..</think><answer>..{..[four integers]..}..</answer>."""
    at = text.find("<think>")
    if at < 0 or (between := _THINK_ANSWER.search(text, at + len("<think>"))) is None:
        return 0.0
    if (brace := text.find("{", between.end())) < 0 or (box := _FOUR_INTEGERS.search(text, brace + 1)) is None:
        return 0.0
    closing = text.find("}", box.end())
    return float(closing >= 0 and text.find("</answer>", closing) >= 0)


def _average_precisions(
    said: str, items: list[object] | None, truth: GroundTruth, grid_wh: tuple[float, float]
) -> list[float]:
    """AP of the `items` of a list at each threshold; where no object is, 1 if `said` says so and lists none.

    Items without a label of the truth or without four numbers are no boxes of any class.
    """
    if not len(truth.boxes):
        return [float(_says_nothing(said, items))] * len(_THRESHOLDS)
    known = set(truth.boxes.labels)
    boxes, labels = [], []
    for item in items or ():
        label = item.get("label") if isinstance(item, dict) else None
        if isinstance(label, str) and label in known and (numbers := _numbers(item)) is not None:
            boxes.append(numbers)
            labels.append(label)
    predicted = Boxes.of(boxes, labels)
    scaled = Boxes(rescale_xyxy(predicted.xyxy, grid_wh, truth.size_wh), predicted.labels)
    return average_precisions(scaled, truth.boxes)


def _says_nothing(said: str, items: list[object] | None) -> bool:
    """Whether a reply says that there is no object: None or an empty list, bare or in a fence."""
    bare = next(_blocks(said, "```", "```"), said).removeprefix("json")
    return items == [] or _clean(bare) == "none" or _read_list(bare) == []


def _class_precisions(predicted: Array, true: Array) -> Iterator[float]:
    """AP at each threshold, of one class: greedy matching in the order of writing, to the best free true box."""
    iou = _coco_iou(predicted, true)
    area = box_area(predicted)
    counted = ((area >= 0) & (area <= _LARGEST_AREA)).tolist()
    near = [
        [(column, value) for column, value in enumerate(row) if value >= _THRESHOLDS[0] - 1e-9] for row in iou.tolist()
    ]
    for threshold in _THRESHOLDS:
        yield _precision_over_recall(_ranks_of_hits(near, counted, min(threshold, 1 - 1e-10)), len(true))


def _ranks_of_hits(near: list[list[tuple[int, float]]], counted: list[bool], threshold: float) -> list[int]:
    """The rank, from 1, of each predicted box that finds a free true box of IoU >= `threshold`; the last best wins."""
    ranks: list[int] = []
    taken: set[int] = set()
    rank = 0
    for candidates, counts in zip(near, counted, strict=True):
        best, match = threshold, -1
        for column, value in candidates:
            if value >= best and column not in taken:
                best, match = value, column
        rank += match >= 0 or counts
        if match >= 0:
            taken.add(match)
            ranks.append(rank)
    return ranks


def _precision_over_recall(ranks: list[int], num_true: int) -> float:
    """COCO's AP: the mean, over 101 recalls, of the best precision at that recall or a higher one."""
    weights = _recalls_reached(num_true)
    total = best = 0.0
    for hits in range(len(ranks), 0, -1):
        best = max(best, hits / ranks[hits - 1])
        total += weights[hits - 1] * best
    return total / len(_RECALLS)


@lru_cache(maxsize=1024)
def _recalls_reached(num_true: int) -> list[int]:
    """How many of COCO's 101 recalls are reached by the first hit, the second, ... the last."""
    reached = np.searchsorted(_RECALLS, np.arange(num_true + 1) / num_true, side="right")
    reached[0] = 0
    weights: list[int] = np.diff(reached).tolist()
    return weights


def _coco_iou(a: Array, b: Array) -> Array:
    """IoU (P, K) by COCO's arithmetic, which goes through width and height: equal to the last bit."""
    side_a, side_b = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
    overlap = np.minimum((a[:, :2] + side_a)[:, None], b[:, :2] + side_b) - np.maximum(a[:, None, :2], b[:, :2])
    intersection = np.maximum(overlap, 0.0).prod(axis=-1)
    union = side_a.prod(axis=-1)[:, None] + side_b.prod(axis=-1) - intersection
    iou: Array = np.divide(intersection, union, out=np.zeros_like(intersection), where=intersection > 0)
    return iou


def _last_fence(text: str) -> str:
    """What stands in the last ```json fence; nothing if there is none."""
    *_, last = ["", *_blocks(text, "```json", "```")]
    return last


def _read_list(text: str) -> list[object] | None:
    """The JSON list that `text` is; None if it is none."""
    try:
        value = json.loads(text.strip())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def _numbers(item: object) -> list[float] | None:
    """The first four numbers of an item's box."""
    box = item.get("bbox_2d") if isinstance(item, dict) else None
    if not isinstance(box, list) or len(box) < 4:
        return None
    if not all(isinstance(number, int | float) and abs(number) <= 1e100 for number in box[:4]):
        return None
    return [float(number) for number in box[:4]]


def _label(item: object) -> str | None:
    label = item.get("label") if isinstance(item, dict) else None
    return label.lower() if isinstance(label, str) else None


def _said_items(text: str) -> list[str] | None:
    """Box and label of each item of the first list in `text`, as text; None if there is no list with anything in it."""
    found = _first_list(text)
    try:
        items = json.loads(found)
    except ValueError:
        items = salvage_objects(found)
        if not items and found.startswith("[") and "{" in found:
            return []  # a list whose first item was cut off
    except RecursionError:
        return None
    if not isinstance(items, list) or not items:
        return None
    whole = [item for item in items if isinstance(item, dict) and "bbox_2d" in item and "label" in item]
    try:
        return [f"{item['bbox_2d']}_{item['label']}" for item in whole]
    except RecursionError:  # nested as deep as can be read, and too deep to be written
        return None


def _first_list(text: str) -> str:
    """What may be a list: in the first ```json fence, else the first fence, else from `[ {` to `} ]` around a box."""
    if (fenced := next(_blocks(text, "```json", "```"), None)) is not None:
        return fenced.strip()
    if fenced := next(_blocks(text, "```", "```"), "").strip():
        return fenced
    start = _LIST_START.search(text)
    if start is None or (box := text.find('"bbox_2d"', start.end())) < 0 or (label := text.find('"label"', box)) < 0:
        return ""
    end = _LIST_END.search(text, label)
    return text[start.start() : end.end()] if end else ""


def _clean(text: str) -> str:
    """As the public code reads an answer for weighted_sum: on one line, without final dots, in lower case."""
    return re.sub(r"(?<!\s)[\r\n]", " ", re.sub(r"(?<=\s)[\r\n]", "", text)).strip().rstrip(".").lower()


def _blocks(text: str, opening: str, closing: str) -> Iterator[str]:
    """What stands between `opening` and the next `closing`, one after the other; linear in the text."""
    start = text.find(opening)
    while start >= 0 and (end := text.find(closing, start + len(opening))) >= 0:
        yield text[start + len(opening) : end]
        start = text.find(opening, end + len(closing))


def _build(options: VlmR1Options, dialect: Dialect) -> VlmR1Reward:
    return VlmR1Reward(**dict(options), dialect=dialect)


PRESET = Preset("vlm_r1", options=VlmR1Options, build=_build, dialects=DIALECTS, stage_options=None)
