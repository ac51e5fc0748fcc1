"""Preset `release`: the rewards of the public Vision-R1 code (jefferyZhan/Griffon@9866875), bug for bug.

For those who must reproduce what that code gives; it departs from the paper (`criteria.py`) in these points:
- What it calls IoU is GIoU; boxes are matched by pixel L1 + GIoU + 1 for an unequal class, so L1 decides almost alone.
- Precision divides by the matched pairs, so that extra boxes cost nothing, and has no threshold where no step is given.
- Recall divides by the data's `num_instances`; its differentiation stays at .5/.75 after the switch and is off without
  a step; a pair of GIoU .5 exactly counts half before the switch.
- The format reward takes any JSON but a `bbox_2d` that is no list of four; on a sample without object it is inverted.
- A reply that is no JSON list, or one with no good box, is searched for the one literal form of a box.

Where that code raises (and training would end), this one goes on and the notes of the score say so. Arithmetic is
float32 as there; boxes are not limited in number, since it does not limit them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from visionr1.dialects import Dialect
from visionr1.rewards.presets import Preset
from visionr1.rewards.score import Score
from visionr1.rewards.stages import BEGINNER, Stage
from visionr1.samples import GroundTruth, compose_text
from visionr1.settings import Section

Array32 = NDArray[np.float32]
ReleaseStep = Literal[0, 1500, "stage"] | None
"""None: the released script, which passes no step. 0 and 1500: with `--adaptive`, before and after its switch, which
"stage" takes from the stage in force."""

STEPS: Mapping[str, ReleaseStep] = MappingProxyType({"none": None, "0": 0, "1500": 1500, "stage": "stage"})
"""Steps as they are written in a recipe and on the command line."""

WEIGHTS: Mapping[str, float] = MappingProxyType({"format": 1.0, "recall": 1.0, "precision": 1.0})

_BOX = re.compile(r'\{"bbox_2d": \[' + r"(\d{1,3}|1000), " * 3 + r'(\d{1,3}|1000)\], "label": "([^"]+)"\}')
_FENCES = re.compile(r"```json\n|\n```")


@dataclass(frozen=True, slots=True)
class ReleasePair:
    """A matched pair: index of the predicted box, of the true one, and their GIoU before thresholds."""

    predicted: int
    true: int
    giou: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseScore(Score):
    """The score by the public code: the sum of its three parts, and notes on where it would have raised.

    `step` is the one in force; `giou_pairs` are of the boxes that the public code reads.
    """

    step: Literal[0, 1500] | None
    giou_pairs: tuple[ReleasePair, ...]

    def to_json(self) -> dict[str, object]:
        """See `Score.to_json`."""
        return {
            "total": self.total,
            **self.parts,
            "stage": self.step,
            "num_predicted": self.num_predicted,
            "pairs": [asdict(pair) for pair in self.giou_pairs],
            "faults": self.faults_to_json(),
        }

    def reasons(self, truth: GroundTruth, weights: Mapping[str, float]) -> Iterator[str]:
        """See `Score.reasons`."""
        yield self.sum_in_words(weights)
        yield f"{self.num_predicted} predicted, {_num_instances(truth)} instances, {len(self.giou_pairs)} matched pairs"
        for pair in self.giou_pairs:
            yield f"box {pair.predicted} matches true box {pair.true}: GIoU {pair.giou:.3f}"
        yield from self.notes


class ReleaseOptions(Section):
    """Choose how the public code is run."""

    step: Literal["none", "0", "1500", "stage"] = "none"
    """none as its script runs, 0 and 1500 with --adaptive before and after its switch; stage switches where
    reward.stage_step says."""


@dataclass(frozen=True, slots=True)
class ReleaseReward:
    """Sum the public code's three rewards. Class ids are 1, 2, ... in the order of the truth's categories."""

    step: ReleaseStep = None

    def __post_init__(self) -> None:
        if self.step not in STEPS.values():
            raise ValueError(f"unknown step {self.step!r}; known: {', '.join(map(str, STEPS.values()))}")

    @property
    def weights(self) -> Mapping[str, float]:
        """All parts count alike."""
        return WEIGHTS

    @property
    def maximum(self) -> float:
        """The largest total there can be."""
        return sum(WEIGHTS.values())

    def score(self, text: str, truth: GroundTruth, stage: Stage = BEGINNER) -> ReleaseScore:
        """Score one completion. Never raises on its text."""
        # The code's own step decides, or the stage in force stands for it.
        step = self.step
        if step == "stage":
            step = 1500
            if stage == BEGINNER:
                step = 0
        num_instances = _num_instances(truth)
        notes: list[str] = []

        # Without a predicted box, the code looks at num_instances alone.
        predicted = extract(text.strip())
        pairs: tuple[ReleasePair, ...] = ()
        recall = precision = float(num_instances <= 0)
        if predicted:
            pairs = _match(predicted, truth, notes)
            overlaps = np.array([pair.giou for pair in pairs], dtype=np.float32)
            recall = _recall(overlaps, num_instances, step, notes)
            precision = _precision(overlaps, step)

        parts = {"format": dual_format(text, num_instances, notes), "recall": recall, "precision": precision}
        return ReleaseScore(
            total=sum(parts.values()),
            parts=parts,
            notes=tuple(notes),
            note_kind="public_code_raises",
            num_predicted=len(predicted),
            step=step,
            giou_pairs=pairs,
        )


def _num_instances(truth: GroundTruth) -> int:
    """Return the data's `num_instances`, by default the number of true boxes."""
    if truth.num_instances is None:
        return len(truth.boxes)
    return truth.num_instances


def _recall(overlaps: Array32, num_instances: int, step: Literal[0, 1500] | None, notes: list[str]) -> float:
    """Return the matched pairs over the instances, by the thresholds of `step`; notes say where NaN would be."""
    threshold = 0.5
    if step == 1500:
        threshold = 0.75

    # A pair exactly at the threshold counts as its GIoU, not as one.
    num_matched = _clip(overlaps, threshold, threshold).sum(dtype=np.float32)
    if num_instances == 0 and len(overlaps):
        if not num_matched:
            notes.append("recall: the public code divides 0 by 0 instances and gives NaN; scored 0")
        return float(num_matched > 0)

    # Differentiation of recall stays at .5/.75 after the switch.
    recall = np.array([num_matched / max(num_instances, 1)], dtype=np.float32)
    if step is None:
        return float(_clip(recall, 0.0, 1.0)[0])
    return float(_clip(recall, 0.5, 0.75)[0])


def _precision(overlaps: Array32, step: Literal[0, 1500] | None) -> float:
    """Return the mean GIoU of the matched pairs, by the thresholds of `step`; 0 without a pair."""
    if not len(overlaps):
        return 0.0
    low, high = {None: (0.0, 1.0), 0: (0.5, 0.75), 1500: (0.75, 0.9)}[step]
    return float(_clip(overlaps, low, high).mean())


def extract(text: str) -> list[tuple[list[int], object]]:
    """Return the boxes (in model pixels) and labels that the public code reads."""
    boxes = []
    value = _parse_json(text)
    if isinstance(value, list):
        for item in value:
            box = _read_box(item)
            if box is not None:
                boxes.append((box, item.get("label")))
    if boxes:
        return boxes

    # Without a good box in the JSON, search the text for the one literal form.
    for *numbers, label in _BOX.findall(text):
        x1, y1, x2, y2 = map(int, numbers)
        if x1 < x2 and y1 < y2:
            boxes.append(([x1, y1, x2, y2], label))
    return boxes


def _read_box(item: object) -> list[int] | None:
    """Return an item's box in whole numbers; None where it has none, or one that is inverted."""
    if not isinstance(item, dict):
        return None
    box = item.get("bbox_2d")
    if not isinstance(box, list) or len(box) != 4:
        return None
    try:
        x1, y1, x2, y2 = map(int, box)
    except (TypeError, ValueError, OverflowError):
        return None
    if x1 < x2 and y1 < y2:
        return [x1, y1, x2, y2]
    return None


def dual_format(completion: str, num_instances: int, notes: list[str]) -> float:
    """Return 1 for any JSON in which every item with both keys has a list of four for a box, else 0.

    On a sample without an object it is the other way round.
    """
    is_right = _has_right_format(completion, notes)
    if num_instances <= 0:
        is_right = not is_right
    return float(is_right)


def _has_right_format(completion: str, notes: list[str]) -> bool:
    try:
        value = json.loads(_FENCES.sub("", completion).strip())
    except json.JSONDecodeError:
        return False
    except (RecursionError, ValueError) as error:
        notes.append(f"format: the public code raises {type(error).__name__} ({error}); scored as wrong")
        return False
    if not isinstance(value, list):
        return True

    for item in value:
        if isinstance(item, dict) and "bbox_2d" in item and "label" in item:
            box = item["bbox_2d"]
            if not isinstance(box, list) or len(box) != 4:
                return False
    return True


def _parse_json(text: str) -> object:
    """Return the JSON before the first ``` of `text`, a first line of ```json left out; None if it is none."""
    lines = text.splitlines()
    if lines and lines[0].startswith("```json"):
        text = "\n".join(lines[1:])
    try:
        return json.loads(text.partition("```")[0])
    except (RecursionError, ValueError):
        return None


def _match(predicted: list[tuple[list[int], object]], truth: GroundTruth, notes: list[str]) -> tuple[ReleasePair, ...]:
    """Return the matched pairs with their GIoUs; none (with a note) where the public code raises before."""
    # Class ids, as the public code takes them from the categories.
    ids = {_class_name(name): index for index, name in enumerate(truth.categories, 1)}
    true_names = list(map(_class_name, truth.boxes.labels))
    missing = sorted(set(true_names) - set(ids))
    if missing:
        notes.append(f"the public code raises KeyError: true label {missing[0]!r} is no category; matched as no class")
    if not ids:
        notes.append("the public code raises ValueError: there is no category")

    if not true_names:
        notes.append("the public code raises: a box is predicted where nothing is; scored 0")
        return ()
    true = truth.boxes.xyxy.astype(np.float32)
    if (true[:, 2:] < true[:, :2]).any():
        notes.append("the public code raises AssertionError: a true box is inverted; scored 0")
        return ()

    # The cost of a pair: L1 in pixels, a class that is not equal, and GIoU.
    predicted_ids = np.array([_class_id(label, ids) for _, label in predicted])
    true_ids = np.array([ids.get(name, -1) for name in true_names])
    same_class = (predicted_ids[:, None] == true_ids).astype(np.float32)
    try:
        with np.errstate(all="ignore"):
            boxes = _original_px([box for box, _ in predicted], truth)
            giou = _giou(boxes, true)
            rows, columns = linear_sum_assignment(_l1(boxes, true) - same_class - giou)
    except (OverflowError, ValueError) as error:  # a coordinate or an overlap that no float32 can hold
        notes.append(f"the public code raises {type(error).__name__} ({error}); scored 0")
        return ()

    pairs = []
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        pairs.append(ReleasePair(row, column, float(giou[row, column])))
    return tuple(pairs)


def _original_px(model_px: list[list[int]], truth: GroundTruth) -> Array32:
    """Return boxes (P, 4) in pixels of the original image; OverflowError for a number beyond float32's."""
    boxes = np.array(model_px, dtype=np.float32)
    boxes[:, ::2] = boxes[:, ::2] / truth.input_size_wh[0] * truth.size_wh[0]
    boxes[:, 1::2] = boxes[:, 1::2] / truth.input_size_wh[1] * truth.size_wh[1]
    return boxes


def _class_name(label: str) -> str:
    """Return a label in lower case, as the public code compares it, and composed (NFC), as a model can write it."""
    return compose_text(label).lower()


def _class_id(label: object, ids: Mapping[str, int]) -> int:
    """Return the class id of a written label; 0 for one that is no category or no text."""
    if not isinstance(label, str):
        return 0
    return ids.get(_class_name(label.strip()), 0)


def _l1(a: Array32, b: Array32) -> Array32:
    """Return the L1 distance (P, K) in pixels, its terms added in the order of the public code's."""
    distance = np.abs(a[:, None] - b[None])
    total: Array32 = distance[..., 0] + distance[..., 1] + distance[..., 2] + distance[..., 3]
    return total


def _giou(a: Array32, b: Array32) -> Array32:
    """Return GIoU (P, K) in float32, with the operations in the order of the public code's."""
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    overlap = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    side = np.maximum(overlap, np.float32(0))
    intersection = side[..., 0] * side[..., 1]
    union = area_a[:, None] + area_b - intersection

    # The smallest box around both.
    hull = np.maximum(a[:, None, 2:], b[:, 2:]) - np.minimum(a[:, None, :2], b[:, :2])
    hull_area = hull[..., 0] * hull[..., 1]
    giou: Array32 = intersection / union - (hull_area - union) / hull_area
    return giou


def _clip(x: Array32, low: float, high: float) -> Array32:
    """Return 0 below `low`, 1 above `high`, x itself between and at both."""
    at_most_high = np.where(x > np.float32(high), np.float32(1), x)
    return np.where(x < np.float32(low), np.float32(0), at_most_high)


def _build(options: ReleaseOptions, dialect: Dialect) -> ReleaseReward:
    return ReleaseReward(STEPS[options.step])


PRESET = Preset(
    "release",
    options=ReleaseOptions,
    build=_build,
    dialects=("qwen25",),
    stage_options={"step": "stage"},
    takes_inverted_boxes=True,
)
